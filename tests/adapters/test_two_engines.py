"""Two engines, one answer: the same signals leave the same rows, whichever host plays them."""

import numpy as np
import pandas as pd
import pytest

import qml_plugin.adapters.vectorbt as adapter
from experiments.compare_engines import GENERATORS, one_in_three_skipped, random_market
from qml_plugin.adapters.engines import check_engines, compare_engines
from qml_plugin.adapters.playing import Orders
from qml_plugin.errors import DataError
from qml_plugin.records import Point, Setup, Signals


def played(bars, name, seed=0, **options):
    return compare_engines(bars, **GENERATORS[name](bars, np.random.default_rng(seed)), fees=0.0004, **options)


@pytest.mark.parametrize(
    ("market", "name", "fill", "mode", "on_skip"),
    [
        ("GOOG", "cross", "open", "shadow", "flat"),
        ("GOOG", "chance", "close", "record", "hold"),
        ("EURUSD", "breakout", "close", "gate", "flat"),
        ("EURUSD", "chance", "open", "gate", "hold"),
        (7, "reversion", "open", "gate", "flat"),
        (8, "chance", "close", "gate", "flat"),
        (9, "cross", "close", "gate", "hold"),
    ],
)
def test_rows_decisions_and_returns_are_identical(market, name, fill, mode, on_skip, goog, eurusd):
    bars = random_market(market) if isinstance(market, int) else {"GOOG": goog, "EURUSD": eurusd}[market].iloc[-330:]
    with one_in_three_skipped():
        found = played(bars, name, fill=fill, mode=mode, on_skip=on_skip)
    assert found.unexplained == ()
    assert found.n_entries > 15
    assert found.n_skipped > 3
    assert found.n_trades > 3
    assert found.largest_gap < 1e-12


def test_setups_and_teachers_travel_the_same_way_on_both():
    bars = random_market(3)
    side = np.zeros(len(bars), np.int8)
    side[[100, 140, 200, 260]] = (1, -1, 1, -1)
    points = tuple(Point(bar, float(bars.Close.iloc[bar]), bar + 1) for bar in (40, 50, 60, 70, 80))
    setups = {100: Setup("quasimodo", 1, points, 90, validity_score=0.7)}
    missing = np.full(len(bars), np.nan)
    signals = Signals(side, missing, missing, np.zeros(len(bars), bool), setups)
    found = compare_engines(bars, signals, strategy="Drawn", teachers="executed", n_neighbours=3, bar_label="close")
    assert found.unexplained == ()
    assert found.n_entries == 4


def flat_bars(*rows):
    """Bars of open, high, low, close."""
    index = pd.date_range("2024-01-01", periods=len(rows), freq="h")
    return pd.DataFrame(rows, index=index, columns=["Open", "High", "Low", "Close"]).astype(float)


CALM = [(100, 101, 99, 100)] * 4


@pytest.mark.parametrize(
    ("after", "exit_px", "exit_bar"),
    [
        ([(100, 107, 94, 100)], 95.0, 4),  # a tie on the bar of the entry: the stop counts
        ([(100, 107, 99, 100)], 106.0, 4),  # the target on the bar of the entry
        ([(93, 94, 92, 93)], 93.0, 4),  # the open has passed the stop already
        ([(108, 109, 107, 108)], 108.0, 4),  # the open has passed the target already
        ([(100, 101, 99, 100), (90, 91, 89, 90)], 90.0, 5),  # a gap through the stop
        (
            [(100, 101, 99, 100), (110, 111, 94, 110)],
            95.0,
            5,
        ),  # a gap through the target in a bar that falls to the stop
    ],
)
def test_both_engines_fill_a_stop_and_a_target_at_the_same_price(after, exit_px, exit_bar):
    bars = flat_bars(*CALM, *after, *CALM)
    asked = np.arange(len(bars)) == 3
    gated = adapter.gate_signals(bars, asked, stop=0.05, target=0.06)
    trade = gated.portfolio(1_000).entry_trades.records.iloc[0]
    assert (trade["exit_price"], trade["exit_idx"]) == (exit_px, exit_bar)
    found = compare_engines(bars, asked, stop=0.05, target=0.06, fees=0.001)
    assert found.differences == ()
    assert found.n_trades == 1


def test_what_the_engines_cannot_share_has_a_name_and_is_counted():
    bars = random_market(1, 60)
    asked = np.isin(np.arange(60), (0, 40))
    found = compare_engines(bars, asked, exits=np.arange(60) == 59, fill="close")
    assert dict(found.reasons) == {"first_bar": 1, "last_close": 2}
    assert {difference.column for difference in found.differences} == {"trade_outcome", "trade_return"}
    assert found.unexplained == ()


def test_the_engines_are_checked_on_bars_whose_times_have_no_zone(goog):
    assert goog.index.tz is None
    assert next(iter(check_engines(goog.iloc[:200])))[3].unexplained == ()


def test_a_difference_that_is_not_known_is_found(monkeypatch):
    play = adapter.play

    def dearer(*arguments, **options):
        orders = play(*arguments, **options)
        return Orders(orders.bar, orders.side, orders.px * np.where(orders.side == 0, 1 + 1e-6, 1.0))

    monkeypatch.setattr(adapter, "play", dearer)
    found = compare_engines(random_market(1, 60), np.arange(60) == 40, target=0.001)
    assert {difference.column for difference in found.unexplained} == {"trade_outcome", "trade_return"}


def test_what_one_engine_lacks_is_refused():
    bars = random_market(1, 60)
    with pytest.raises(DataError, match="slippage cannot be compared"):
        compare_engines(bars, np.arange(60) == 40, slippage=0.001)
    with pytest.raises(DataError, match="2 columns were given"):
        compare_engines(bars, np.zeros((60, 2), bool))
