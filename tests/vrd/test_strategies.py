import json

import numpy as np
import pandas as pd
import pytest
from backtesting import Strategy

from qml_plugin import PatternMixin
from qml_plugin.adapters.plain_runs import is_played_as_arrays, parameters_of
from qml_plugin.bars import bars_from_frame
from qml_plugin.errors import DataError
from qml_plugin.provenance import canonical_json, plain
from qml_plugin.registry import PatternRegistry
from qml_plugin.vrd import Plan, strategies
from qml_plugin.vrd.strategies import find_strategy, market_bars, validate_strategy, validate_trades
from strategies.donchian import DonchianBreakout
from strategies.moving_average import MovingAverageCross
from tests.conftest import random_walk

PLAN = Plan(n_windows=4, n_draws=49, n_paths=100, n_cuts=2, is_importance=False)


@pytest.fixture(autouse=True)
def no_bars_of_the_host(monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")


@pytest.fixture(scope="module")
def walk():
    return bars_from_frame(random_walk(600, 3), symbol="WALK", timeframe="1h")


def validated(strategy, bars, **options):
    return validate_strategy(strategy, bars, symbol="WALK", **{"plan": PLAN, "is_quick": True, **options})


def test_trials_are_recorded_once_and_counted_with_those_of_others(walk, tmp_path):
    url, grid = f"sqlite:///{tmp_path}/r.db", {"fast": [5, 10], "slow": [20]}
    found = validated(MovingAverageCross, walk, registry=url, grid=grid)
    assert found.validation.n_trials_ledger == found.n_attempts == 2
    assert [attempt.kind for attempt in found.attempts] == ["trial", "trial", "backtest"]
    assert found.n_patterns > 0
    assert PatternRegistry(url).get_statistics()["n_patterns"] == found.n_patterns
    again = validated(MovingAverageCross, walk, registry=url, grid=grid)
    assert again.n_attempts == 2
    assert len(again.attempts) == 3
    more = validated(MovingAverageCross, walk, registry=url, grid={"fast": [7], "slow": [30]})
    assert more.n_attempts == 3
    assert more.n_trials_on_bars > found.n_trials_on_bars >= 2
    assert more.attempts[-1].number == len(more.attempts) == 5


def test_an_interrupted_validation_goes_on(walk, tmp_path):
    def interrupt(name, done, total):
        if name == "costs":
            raise KeyboardInterrupt

    grid, url = {"fast": [5, 10]}, f"sqlite:///{tmp_path}/r.db"
    with pytest.raises(KeyboardInterrupt):
        validated(MovingAverageCross, walk, grid=grid, registry=url, folder=tmp_path, on_progress=interrupt)
    found = validated(MovingAverageCross, walk, grid=grid, registry=url, folder=tmp_path)
    kept = {step.name for step in found.validation.steps if step.is_kept}
    assert {"trials", "walk", "timing"} <= kept
    assert "costs" not in kept


def test_several_processes_find_what_one_finds(walk):
    grid = {"entry_bars": [10, 20], "exit_bars": [5]}
    one, two = (validated(DonchianBreakout, walk, grid=grid, n_jobs=n).validation.trials for n in (1, 2))
    np.testing.assert_array_equal(one.returns, two.returns)


class Peeking(Strategy):
    n_bars = 1

    def init(self):
        close = pd.Series(self.data.df.Close)
        self.rises = self.I(lambda: (close.shift(-self.n_bars) > close).to_numpy(float), plot=False)

    def next(self):
        if self.rises[-1] and not self.position:
            self.buy()
        elif not self.rises[-1] and self.position:
            self.position.close()


def test_a_plain_strategy_runs_under_the_host_and_the_audit_catches_a_glance_ahead(walk):
    found = validated(Peeking, walk)
    assert found.validation.verdict.word == "REJECT"
    assert "the gate of audit" in found.validation.verdict.sentence
    assert "Peeking has no memory" in found.gate_reason
    assert found.validation.parameters == {"n_bars": 1}
    assert found.n_attempts is None


class Clean(Strategy):
    n_bars = 1

    def init(self):
        pass

    def next(self):
        if len(self.data) % 9 == 0 and not self.position:
            self.buy()
        elif self.position and len(self.data) % 9 == 5:
            self.position.close()


def test_an_audit_of_the_class_is_told_from_others_without_being_run(walk):
    host = {"fees": 0.001, "exclusive_orders": False}
    one = strategies._LazyAudit(Peeking, walk, host, True, 0)
    others = [
        strategies._LazyAudit(*asked)
        for asked in (
            (Clean, walk, host, True, 0),
            (Peeking, walk, {**host, "fees": 0.002}, True, 0),
            (Peeking, walk, host, False, 0),
            (Peeking, walk, host, True, 1),
        )
    ]
    assert len({canonical_json(plain(audit.identity)) for audit in (one, *others)}) == 5
    assert one.identity == strategies._LazyAudit(Peeking, walk, host, True, 0).identity
    assert all(audit._found is None for audit in (one, *others))


def test_the_kept_audit_of_a_class_is_read_again_and_not_run(walk, tmp_path, monkeypatch):
    first = validated(Clean, walk, folder=tmp_path)
    monkeypatch.setattr(strategies, "audit", lambda *_, **__: pytest.fail("it was run again"))
    again = validated(Clean, walk, folder=tmp_path)
    assert {step.name: step.is_kept for step in again.validation.steps}["audit"]
    assert again.validation.audit == first.validation.audit


class Raising(MovingAverageCross):
    def signals(self, bars):
        if self.fast == 7:
            raise RuntimeError("seven is bad luck")
        return super().signals(bars)


def test_a_trial_that_raises_is_recorded_and_the_others_are_kept(walk, tmp_path):
    url = f"sqlite:///{tmp_path}/r.db"
    found = validated(Raising, walk, registry=url, grid={"fast": [7, 10]})
    assert found.validation.trials.n_trials == 1
    assert found.n_attempts == 2
    assert found.attempts[0].status == "failed"
    assert found.attempts[0].error == "RuntimeError: seven is bad luck"
    alone = validated(Raising, walk, grid={"fast": [7]})
    assert alone.validation.verdict.word == "INSUFFICIENT"
    assert "seven is bad luck" in alone.validation.verdict.sentence
    assert "no parameters gave a result" in alone.gate_reason


class Once(MovingAverageCross):
    n_entries = 1

    def signals(self, bars):
        asked = super().signals(bars)
        asked.side[np.flatnonzero(asked.side)[self.n_entries :]] = 0
        return asked


@pytest.mark.parametrize("n_entries", [0, 1])
def test_no_trade_and_one_trade_are_insufficient(walk, n_entries):
    found = validated(Once, walk, grid={"n_entries": [n_entries]})
    assert found.validation.verdict.word == "INSUFFICIENT"
    assert "trades out of sample; 30 are needed" in found.validation.verdict.sentence
    json.dumps(found.as_dict(), allow_nan=False)
    if n_entries == 0:
        assert found.gate_reason == "the strategy asked for no entry"


def test_less_data_than_a_window_keeps_what_was_computed():
    found = validated(MovingAverageCross, random_walk(60, 1))
    assert found.validation.trials is not None
    assert "leave one of" in found.validation.verdict.sentence


class Registering(PatternMixin, Strategy):
    every = 5

    def init(self):
        pass

    def next(self):
        if len(self.data) % self.every == 0:
            self.buy(sl=self.data.Close[-1] * 0.98)


def test_trials_of_a_strategy_with_a_memory_register_nothing_until_the_choice(walk, tmp_path):
    url = f"sqlite:///{tmp_path}/r.db"
    assert not is_played_as_arrays(Registering)
    found = validated(
        Registering, walk, registry=url, grid={"every": [40, 50]}, plan=Plan(n_windows=2, n_draws=9, n_paths=9)
    )
    assert found.n_patterns == len(walk) // found.validation.parameters["every"]
    assert PatternRegistry(url).get_statistics()["n_patterns"] == found.n_patterns


def test_parameters_are_the_strategys_own():
    assert parameters_of(DonchianBreakout) == {
        "entry_bars": 20, "exit_bars": 10, "stop_loss_atr": 2.0, "take_profit_rr": None, "atr_period": 14,
    }  # fmt: skip


def test_returns_from_a_file(tmp_path):
    rows = pd.DataFrame({"exit_at": pd.date_range("2020-01-01", periods=120, freq="W"), "return_frac": np.random.default_rng(0).normal(0.004, 0.02, 120)})  # fmt: skip
    rows.to_csv(tmp_path / "t.csv", index=False)
    found = validate_trades(tmp_path / "t.csv", is_quick=True)
    assert found.validation.verdict.word == "INSUFFICIENT"
    assert found.validation.strategy_name == "t"
    assert len(found.returns) == 120
    assert found.validation.walk is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid": {"fats": [1]}}, "has no parameter 'fats'"),
        ({"grid": {"fast": []}}, "'fast' has no values"),
        ({"grid": {"fast": range(2001)}}, "2001 points; at most 2000"),
        ({"fees": 1.0}, "fees are 1.0"),
        ({"fees": float("nan")}, "fees are nan"),
    ],
)
def test_what_cannot_be_tried_is_refused(walk, options, message):
    with pytest.raises(DataError, match=message):
        validated(MovingAverageCross, walk, **options)


def test_strategies_and_markets_that_are_not_there_are_refused():
    for place, message in (("Nope", "'Nope' is unknown"), ("collections:OrderedDict", "no backtesting.Strategy")):
        with pytest.raises(DataError, match=message):
            find_strategy(place)
    with pytest.raises(DataError, match="no data of 'BTC/USDT'"):
        market_bars("BTC/USDT")
    with pytest.raises(DataError, match="has bars of 1h, not 4h"):
        market_bars("EURUSD", "4h")
    assert len(market_bars("GOOG")) == 2148
