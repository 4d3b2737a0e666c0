"""Signals as arrays: what is asked, what is decided, how it fills, and what is recorded."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import qml_plugin
import qml_plugin.pandas
from experiments.compare_engines import GENERATORS, one_in_three_skipped, random_market
from qml_plugin import PatternMemory, PatternRegistry, gate_signals
from qml_plugin.adapters.asked import Asked
from qml_plugin.adapters.engines import REASONS
from qml_plugin.adapters.playing import play
from qml_plugin.adapters.reproduce import reproduce
from qml_plugin.adapters.setup_indicator import setup_indicator
from qml_plugin.bars import bars_from_frame
from qml_plugin.errors import DataError, LookAheadError
from qml_plugin.features import MarketFeatures
from qml_plugin.records import Point, Setup, Signals

ROOT = Path(__file__).parents[2]
BARS = random_market(5, 240)
UP, DOWN = (BARS.Close.rolling(4).mean().diff() > 0), (BARS.Close.rolling(4).mean().diff() < 0)
LONGS, SHORTS = UP & ~UP.shift(fill_value=False), DOWN & ~DOWN.shift(fill_value=False)


def asked_of(seed, n_bars=160):
    frame = random_market(seed, n_bars)
    bars = bars_from_frame(frame, symbol="X")
    rng = np.random.default_rng(seed)
    side = rng.choice([-1, 0, 0, 0, 1], n_bars).astype(np.int8)
    away = rng.uniform(0.002, 0.02, (2, n_bars))
    away[rng.random((2, n_bars)) < 0.3] = np.nan
    stop, target = bars.close * (1 - side * away[0]), bars.close * (1 + side * away[1])
    return Asked("X", bars, side, stop, target, rng.random(n_bars) < 0.1, rng.random(n_bars) < 0.1), rng.random(
        n_bars
    ) < 0.7


def slow_twin(asked, is_taken, *, at_close, max_bars, is_flat_on_skip):
    """The rules of `play`, a position as a dictionary and every order written down as it fills."""
    bars, orders, position, waiting = asked.bars, [], None, []

    def close_at(bar, px):
        orders.append((bar, 0, px))

    for i in range(len(bars)):
        for what in waiting:
            if what == "close":
                close_at(i, bars.open[i])
                position = None
            else:
                orders.append((i, what, bars.open[i]))
                position = {"side": what, "bar": i, "stop": asked.stop_px[i - 1], "target": asked.target_px[i - 1]}
        waiting = []
        if position:
            side, stop, target = position["side"], position["stop"], position["target"]
            is_stopped = bars.low[i] <= stop if side > 0 else bars.high[i] >= stop
            is_reached = bars.high[i] >= target if side > 0 else bars.low[i] <= target
            if is_stopped or is_reached:
                px = stop if is_stopped else target
                is_passed = (bars.open[i] < px) == (side > 0) if is_stopped else (bars.open[i] > px) == (side > 0)
                close_at(i, bars.open[i] if is_passed else px)
                position = None
        wants = []
        if position:
            held = i - position["bar"] + (not at_close)
            is_out = (asked.exits_long if position["side"] > 0 else asked.exits_short)[i]
            if is_out or (max_bars and held >= max_bars):
                wants.append("close")
        side = int(asked.side[i])
        if side and is_taken[i] and (position is None or position["side"] != side or wants):
            wants = (["close"] if position else []) + [side]
        if side and not is_taken[i] and is_flat_on_skip and position and position["side"] == -side:
            wants = ["close"]
        if not at_close:
            waiting = wants
            continue
        for what in wants:
            if what == "close":
                close_at(i, bars.close[i])
                position = None
            else:
                orders.append((i, what, bars.close[i]))
                position = {"side": what, "bar": i, "stop": asked.stop_px[i], "target": asked.target_px[i]}
    return orders


@pytest.mark.parametrize("at_close", [False, True])
@pytest.mark.parametrize("max_bars", [None, 4])
@pytest.mark.parametrize("is_flat_on_skip", [False, True])
def test_orders_are_those_of_the_slow_twin(at_close, max_bars, is_flat_on_skip):
    options = {"at_close": at_close, "max_bars": max_bars, "is_flat_on_skip": is_flat_on_skip}
    for seed in range(12):
        asked, is_taken = asked_of(seed)
        orders = play(asked, is_taken, **options)
        found = list(zip(orders.bar.tolist(), orders.side.tolist(), orders.px.tolist(), strict=True))
        assert found == slow_twin(asked, is_taken, **options)
        assert len(found) > 20


def test_changing_the_future_changes_no_decision_and_no_order_of_the_past():
    cut = 150
    changed = BARS.copy()
    changed.iloc[cut:] = random_market(99, 240).iloc[cut:].to_numpy()
    with one_in_three_skipped():
        results = []
        for frame in (BARS, changed):
            longs, shorts = LONGS.to_numpy().copy(), SHORTS.to_numpy().copy()
            gated = gate_signals(frame, longs, shorts, stop=0.01, target=0.015, mode="gate")
            orders = gated.portfolio().order_records
            bars = [pattern.entry.bar for pattern in gated.patterns]
            past = [decision for decision, bar in zip(gated.decisions, bars, strict=True) if bar < cut]
            kept = [tuple(o)[2:] for o in orders if o["idx"] < cut]
            results.append((past, kept, gated.entries.to_numpy()[: cut + 1].tolist()))
    assert results[0] == results[1]
    assert len(results[0][0]) > 20


def test_a_run_is_recorded_with_its_trades(tmp_path):
    url = f"sqlite:///{tmp_path / 'r.db'}"
    gated = gate_signals(
        BARS, LONGS, SHORTS, stop=0.01, target=0.02, symbol="X", timeframe="1h", registry=url, fees=0.001
    )
    registry = PatternRegistry(url)
    assert registry.get_run(gated.runs[0].run_id)["status"] == "running"
    pf = gated.portfolio(50_000)
    run = registry.get_run(gated.record(pf).runs[0].run_id)
    assert (run["status"], run["metrics"]["n_trades"]) == ("finished", len(pf.trades.closed.records))
    assert run["params"]["host"] == {
        "host": "vectorbt",
        "fill": "open",
        "fees": 0.001,
        "slippage": 0.0,
        "max_bars": None,
    }
    assert run["metrics"]["return_frac"] == pytest.approx(float(pf.total_return()))
    assert run["metrics"]["max_drawdown_frac"] == pytest.approx(float(pf.max_drawdown()))
    assert run["metrics"]["n_unregistered_trades"] == 0
    assert len(registry.get_returns(run["run_id"])) == len(BARS) - 1
    table = gated.table()
    closed = pf.entry_trades.closed.records
    assert table["trade_return_frac"].dropna().tolist() == pytest.approx(closed["return"].tolist())
    again = gate_signals(
        BARS, LONGS, SHORTS, stop=0.01, target=0.02, symbol="X", timeframe="1h", registry=url, fees=0.001
    )
    assert again.runs[0].run_id == run["run_id"], "the same signals are the same run"
    with pytest.raises(DataError, match="played arrays of signals on vectorbt, which no record holds"):
        reproduce(url, run["run_id"])


def test_features_of_other_bars_are_refused():
    bars, others = (bars_from_frame(frame, symbol="X") for frame in (BARS, BARS[:100]))
    with pytest.raises(DataError, match="the market features given are of other bars"):
        PatternMemory(bars, market=MarketFeatures(others))


def test_a_portfolio_of_ones_own_is_joined_too():
    import vectorbt as vbt

    gated = gate_signals(BARS, LONGS, SHORTS, UP & (BARS.Close > 101), fees=0.001)
    signals = (gated.entries, gated.exits, gated.short_entries, gated.short_exits)
    pf = vbt.Portfolio.from_signals(BARS.Close, *signals, price=gated.price, fees=0.001, freq="1h")
    returns = gated.record(pf).returns
    assert len(returns) == len(pf.entry_trades.records)
    assert gated.runs[0].metrics["n_unregistered_trades"] == 0
    with pytest.raises(DataError, match=r"the portfolio has the shape \(100, 1\)"):
        gated.record(vbt.Portfolio.from_signals(BARS.Close[:100], gated.entries[:100], freq="1h"))


def test_a_portfolio_that_fills_elsewhere_is_refused_and_the_good_run_stays():
    import vectorbt as vbt

    gated = gate_signals(BARS, LONGS, exits=DOWN, slippage=0.001)
    good = dict(gated.record(gated.portfolio()).returns)
    own = {"price": gated.price, "freq": "1h"}
    at_close = vbt.Portfolio.from_signals(BARS.Close, gated.entries, gated.exits, freq="1h")
    other_slippage = vbt.Portfolio.from_signals(BARS.Close, gated.entries, gated.exits, **own, slippage=0.002)
    unrelated = vbt.Portfolio.from_signals(BARS.Close, ~gated.entries & (np.arange(240) == 7), **own)
    for pf, message in [
        (at_close, r"enters at bar \d+ \(20.* at .*, but the signals fill there at .*price=gated.price"),
        (other_slippage, "with a slippage of 0.001. Make it with"),
        (unrelated, "none of the portfolio's 1 trades is of an entry of these signals: the first is at bar 7"),
        ("hello", "record was given a str, not a vectorbt.Portfolio"),
    ]:
        with pytest.raises(DataError, match=message):
            gated.record(pf)
        assert gated.returns == good
    same = vbt.Portfolio.from_signals(BARS.Close, gated.entries, gated.exits, **own, slippage=0.001)
    assert gated.record(same).returns.keys() == good.keys()
    more = gated.entries | (np.arange(240) == 1)
    with pytest.warns(UserWarning, match=r"1 of the portfolio's \d+ trades are of no entry"):
        gated.record(vbt.Portfolio.from_signals(BARS.Close, more, gated.exits | (np.arange(240) == 2), **own))
    assert gated.runs[0].metrics["n_unregistered_trades"] == 1


def test_gated_signals_show_themselves_in_one_line():
    with one_in_three_skipped():
        gated = gate_signals(BARS, LONGS, SHORTS, mode="shadow")
    n, n_skipped = len(gated.decisions), sum(decision.action == "skip" for decision in gated.decisions)
    assert repr(gated) == f"GatedSignals(1 columns, {n} entries, {n - n_skipped} taken, {n_skipped} skipped)"


def test_with_fill_at_the_close_signals_stay_on_their_bar():
    gated = gate_signals(BARS, LONGS, SHORTS, mode="record", fill="close")
    assert gated.entries.equals(LONGS.rename(gated.entries.name))
    assert gated.price.tolist() == BARS.Close.tolist()
    shifted = gate_signals(BARS, LONGS, SHORTS, mode="record")
    assert shifted.entries.to_numpy()[1:].tolist() == LONGS.to_numpy()[:-1].tolist()
    assert shifted.price.tolist() == BARS.Open.tolist()


def test_a_skipped_reversal_asks_to_close_or_holds():
    with one_in_three_skipped():
        flat = gate_signals(BARS, LONGS, SHORTS, on_skip="flat", mode="shadow")
        hold = gate_signals(BARS, LONGS, SHORTS, on_skip="hold", mode="shadow")
    n_skipped = sum(decision.action == "skip" for decision in flat.decisions)
    assert int(flat.exits.sum() + flat.short_exits.sum()) == n_skipped > 5
    assert not hold.exits.any()


def test_columns_are_gated_together_as_they_would_be_alone():
    entries = pd.DataFrame({("A", 4): LONGS, ("B", 4): SHORTS, ("A", 8): LONGS.shift(2, fill_value=False)})
    entries.columns = entries.columns.set_names(["symbol", "wait"])
    frames = {"A": BARS, "B": random_market(6, 240)}
    gated = gate_signals(frames, entries, stop=0.01, target=0.02, timeframe="1h")
    pf = gated.portfolio(1_000)
    assert gated.entries.columns.equals(entries.columns)
    assert [run.symbol for run in gated.runs] == ["A", "B", "A"]
    assert gated.runs[2].params["strategy"] == {"symbol": "A", "wait": 8, "max_bars": None}
    gated.record(pf)
    for place, (symbol, wait) in enumerate(entries.columns):
        alone = gate_signals(
            frames[symbol], entries[symbol, wait], stop=0.01, target=0.02, symbol=symbol, timeframe="1h"
        )
        one = alone.portfolio(1_000)
        alone.record(one)
        of_column = gated.table()
        of_column = of_column[[label == (symbol, wait) for label in of_column["column"]]].drop(columns="column")
        pd.testing.assert_frame_equal(of_column.reset_index(drop=True), alone.table(), check_dtype=False)
        assert float(pf.total_return().iloc[place]) == float(one.total_return())


def test_slippage_and_size_are_the_hosts():
    gated = gate_signals(BARS, np.arange(240) == 50, exits=np.arange(240) == 60, slippage=0.01)
    trade = gated.portfolio(1_000, size=2, size_type="amount").entry_trades.records.iloc[0]
    assert trade["entry_price"] == pytest.approx(BARS.Open.iloc[51] * 1.01)
    assert trade["exit_price"] == pytest.approx(BARS.Open.iloc[61] * 0.99)
    assert trade["size"] == 2
    with pytest.raises(DataError, match="price is set by the signals"):
        gated.portfolio(price=1.0)
    with pytest.raises(DataError, match="size_type 'lots' is unknown"):
        gated.portfolio(size_type="lots")


def test_no_signals_make_an_empty_run():
    gated = gate_signals(BARS, np.zeros(240, bool))
    pf = gated.portfolio()
    assert gated.record(pf).table().empty
    assert float(pf.total_return()) == 0.0


def signals(**changed):
    missing = np.full(240, np.nan)
    fields = {"side": np.zeros(240, np.int8), "stop_px": missing, "target_px": missing, "exits": np.zeros(240, bool)}
    return Signals(**(fields | changed))


def test_of_signals_an_entry_that_has_passed_its_stop_is_not_asked():
    side = np.zeros(240, np.int8)
    side[[50, 60]] = 1
    stop = np.where(np.arange(240) == 50, BARS.Close * 1.01, BARS.Close * 0.99)
    gated = gate_signals(BARS, signals(side=side, stop_px=stop))
    assert [pattern.entry.bar for pattern in gated.patterns] == [60]


def test_a_setup_of_the_future_is_refused_and_the_run_fails(tmp_path):
    url = f"sqlite:///{tmp_path / 'r.db'}"
    side = np.zeros(240, np.int8)
    side[50] = 1
    late = Setup("quasimodo", 1, (Point(45, 100.0, 46),), 70)
    with pytest.raises(LookAheadError, match="known at bar 70 only"):
        gate_signals(BARS, signals(side=side, setups={50: late}), symbol="X", registry=url)
    assert [run["status"] for run in PatternRegistry(url).get_runs()] == ["failed"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"short_entries": LONGS}, "asks to buy and to sell"),
        ({"long_entries": LONGS.astype(float)}, "long_entries holds float64, not True and False"),
        ({"long_entries": LONGS[:100]}, "long_entries has another index than the bars: it ends before the bar 100, "),
        ({"long_entries": LONGS.set_axis(LONGS.index + pd.Timedelta("1min"))}, rf"row 0 is .*01:00, the bar {BARS.index[0]}"),
        ({"long_entries": None}, "neither long_entries nor short_entries was given"),
        ({"long_entries": pd.DataFrame(index=BARS.index)}, "the entries have no columns"),
        ({"gate_model": "xgbost"}, "gate_model 'xgbost' is unknown. Use one of 'auto', 'logistic', 'xgboost', 'frozen'"),
        ({"n_neighbours": 10**9}, "n_neighbours is 1000000000. So many are no longer near"),
        ({"long_entries": LONGS.to_numpy()[:100]}, r"long_entries has the shape \(100,\)"),
        ({"stop": 1.5}, "stop is 1.5. A number is a fraction of the close"),
        ({"stop": BARS.Close * 1.01}, "does not lie below the close"),
        ({"target": BARS.Close * 0.99}, "does not lie above the close"),
        ({"fill": "high"}, "fill 'high' is unknown"),
        ({"fees": 1.0}, "fees is 1.0. It is a fraction"),
        ({"max_bars": 0}, "max_bars of the label rule is 0"),
        ({"mode": "maybe"}, "mode 'maybe' is unknown"),
        ({"on_skip": "wait"}, "on_skip 'wait' is unknown"),
        ({"registry": "sqlite:///x.db"}, "gate_signals.symbol is None, but a registry"),
        ({"ohlcv": 3}, "ohlcv is a int"),
        ({"ohlcv": {"A": BARS}, "symbol": "A"}, "whose keys are the symbols"),
        ({"ohlcv": {"A": BARS, "B": BARS[:100]}, "long_entries": pd.DataFrame({"A": LONGS, "B": LONGS})}, "different times"),
        ({"ohlcv": {"A": BARS, "B": BARS}, "long_entries": pd.DataFrame({"A": LONGS, "C": LONGS})}, "column 'C' names none"),
        ({"long_entries": signals(), "stop": 0.1}, "stop was given beside Signals"),
        ({"long_entries": signals(side=np.zeros(3, np.int8))}, "the Signals have 3 rows, the bars 240"),
        ({"long_entries": signals(side=np.full(240, 2))}, "side is 2 at bar 0"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_with_its_place(changed, message):
    arguments = {"ohlcv": BARS, "long_entries": LONGS} | changed
    with pytest.raises(DataError, match=message):
        gate_signals(arguments.pop("ohlcv"), arguments.pop("long_entries"), **arguments)


def test_the_accessor_gates_and_finds_setups():
    gated = BARS.qml.gate(LONGS, SHORTS, stop=0.01)
    assert gated.decisions == gate_signals(BARS, LONGS, SHORTS, stop=0.01).decisions
    whole, first = BARS.qml.setups(), BARS[:200].qml.setups()
    assert list(whole.columns) == [
        "known_bar",
        "pattern_type",
        "side",
        "stop_px",
        "target_px",
        "validity_score",
        "setup",
    ]
    assert isinstance(whole["setup"].iloc[0], Setup)
    assert whole["setup"].tolist()[: len(first)] == first["setup"].tolist()
    assert whole.index.tolist() == BARS.index[whole["known_bar"]].tolist()
    assert BARS[:30].qml.setups().empty


def test_gating_needs_no_vectorbt_and_a_portfolio_names_the_install_command():
    script = """
import sys; sys.modules["vectorbt"] = sys.modules["backtesting"] = None
import numpy as np, pandas as pd, qml_plugin
close = 100 + np.sin(np.arange(60.0))
bars = pd.DataFrame({"Open": close, "High": close + 1, "Low": close - 1, "Close": close},
                    index=pd.date_range("2024-01-01", periods=60, freq="h"))
gated = qml_plugin.gate_signals(bars, close < 99.1)
print(int(gated.entries.sum()))
gated.portfolio()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout == "9\n", done.stderr
    assert "MissingExtra: vectorbt is not installed" in done.stderr
    assert "pip install 'qml-plugin[vectorbt]'" in done.stderr


def test_the_indicator_gives_setups_and_features_by_column():
    prices = [BARS[name] for name in ("Open", "High", "Low", "Close", "Volume")]
    found = setup_indicator(["ctx_close_loc_bar"]).run(*prices, swing_atr=[1.0, 2.0])
    for column, swing_atr in enumerate((1.0, 2.0)):
        setups = BARS.qml.setups(swing_atr=swing_atr)
        side = found.side.iloc[:, column]
        assert np.flatnonzero(side).tolist() == sorted(set(setups["known_bar"]))
        best = setups.sort_values("validity_score").groupby("known_bar").last()
        assert found.stop_px.iloc[:, column].dropna().tolist() == best["stop_px"].tolist()
        assert side[side != 0].tolist() == best["side"].tolist()
    loc = BARS.qml.features()["ctx_close_loc_bar"]
    assert found.ctx_close_loc_bar.iloc[:, 1].tolist() == loc.tolist()
    with pytest.raises(DataError, match="there is no feature 'nothing'"):
        setup_indicator(["nothing"])


def test_the_examples_of_the_page_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for body in re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "vectorbt.md").read_text(), flags=re.M | re.S):
        exec(compile(body, "docs/vectorbt.md", "exec"), namespace)
    assert "ctx_rsi_14" in capsys.readouterr().out
    for reason, why in REASONS.items():
        assert f"| `{reason}` |" in (ROOT / "docs" / "vectorbt.md").read_text(), why


def test_generators_ask_what_the_comparison_needs():
    asked = [generator(BARS, np.random.default_rng(0)) for generator in GENERATORS.values()]
    assert any("short_exits" in one for one in asked)
    assert any("max_bars" in one for one in asked)
    assert qml_plugin.gate_signals is gate_signals
