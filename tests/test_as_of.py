"""Change the future, compare the past: a decision at bar n is the same whatever happens after n."""

import numpy as np
import pandas as pd
import pytest
from backtesting import Backtest

import qml_plugin.gate.online
from qml_plugin import PatternMemory, PatternRegistry
from strategies.moving_average import MovingAverageCross
from strategies.qml import QMLStrategy

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:backtesting")


class BusyCross(MovingAverageCross):
    """Enough entries for a model to be fitted and to speak."""

    fast, slow = 5, 15


class BusyQuasimodo(QMLStrategy):
    """Most Quasimodos that there are."""

    swing_atr, shoulder_tolerance, size = 0.3, 1.5, 0.05
    min_depth_ratio, max_depth_ratio = 0.01, 10.0


def run(strategy, data, symbol, registry=None, mode="shadow"):
    host = Backtest(data, strategy, cash=1_000_000, exclusive_orders=strategy is BusyCross, finalize_trades=True)
    return host.run(symbol=symbol, timeframe="1h", registry=registry, mode=mode)["_strategy"].qml


def with_another_future(data: pd.DataFrame, n: int) -> pd.DataFrame:
    """The same bars up to and including bar n - 1, then a seeded crash and boom."""
    rng = np.random.default_rng(5)
    close = data["Close"].iloc[n - 1] * np.exp(np.cumsum(rng.normal(0, 0.01, len(data) - n)))
    open_ = np.concatenate([[data["Close"].iloc[n - 1]], close[:-1]])
    high, low = np.maximum(open_, close) * 1.004, np.minimum(open_, close) * 0.996
    volume = rng.integers(1, 9_000, len(close)).astype(float)
    future = pd.DataFrame(
        np.column_stack([open_, high, low, close, volume]), columns=data.columns, index=data.index[n:]
    )
    return pd.concat([data.iloc[:n].astype(float), future])


@pytest.fixture
def training_rows(monkeypatch):
    """Every row that a model was fitted on, with the moment at which it was fitted."""
    seen = []
    online, fit = qml_plugin.gate.online, qml_plugin.gate.online.fit_confidence

    def watched_fit(features, is_win, weight, known_at, resolved_at, **options):
        seen.append(resolved_at)
        return fit(features, is_win, weight, known_at, resolved_at, **options)

    monkeypatch.setattr(online, "fit_confidence", watched_fit)
    decide = PatternMemory.decide

    def watched_decide(self, entry):
        before = len(seen)
        decision = decide(self, entry)
        for resolved_at in seen[before:]:
            assert resolved_at.max() <= entry.known_at, "a training row from the future"
        for neighbour in decision.neighbours:
            assert neighbour.resolved_at <= entry.known_at, "a neighbour from the future"
        return decision

    monkeypatch.setattr(PatternMemory, "decide", watched_decide)
    return seen


@pytest.mark.parametrize("strategy", [BusyCross, BusyQuasimodo])
@pytest.mark.parametrize("is_filled", [False, True], ids=["empty registry", "filled registry"])
def test_the_past_does_not_depend_on_the_future(eurusd, goog, tmp_path, training_rows, strategy, is_filled):
    registry = None
    if is_filled:
        registry = f"sqlite:///{tmp_path}/experiments.db"
        hourly = goog.set_axis(eurusd.index[: len(goog)], axis=0)
        run(strategy, hourly, "OTHER", registry)
        run(strategy, eurusd, "EURUSD", registry)
        known = PatternRegistry(registry).get_statistics()
        assert known["n_patterns"] > 150
    n = 3_500
    results = []
    for data in (eurusd, with_another_future(eurusd, n)):
        # Each run starts from the same snapshot: the file is copied, because a run adds to it.
        if is_filled:
            copy = tmp_path / f"{len(results)}.db"
            copy.write_bytes((tmp_path / "experiments.db").read_bytes())
            results.append(run(strategy, data, "EURUSD", f"sqlite:///{copy}"))
        else:
            results.append(run(strategy, data, "EURUSD"))
    before, after = results
    past = [i for i, pattern in enumerate(before.patterns) if pattern.entry.bar < n]
    assert len(past) > 60
    assert len(training_rows) > 0
    for i in past:
        a, b = before.patterns[i], after.patterns[i]
        assert a.entry == b.entry
        assert np.array_equal(a.features, b.features, equal_nan=True)
        assert before.decisions[i] == after.decisions[i]
        if a.outcome is not None and a.outcome.exit_bar < n:
            assert a.outcome == b.outcome
    assert any(decision.confidence is not None for decision in before.decisions[: len(past)])
    assert any(decision.neighbours for decision in before.decisions[: len(past)])
    later = [p for p in after.patterns if p.entry.bar >= n]
    assert {p.pattern_id for p in later} != {p.pattern_id for p in before.patterns if p.entry.bar >= n}, (
        "the future did change"
    )


def test_a_series_that_ends_earlier_gives_the_same_past(eurusd):
    whole, short = run(BusyCross, eurusd, "EURUSD"), run(BusyCross, eurusd.iloc[:3000], "EURUSD")
    n = len([p for p in short.patterns if p.entry.bar < 2_990])
    assert n > 60
    for a, b in zip(whole.decisions[:n], short.decisions[:n], strict=True):
        assert a == b
