"""What all shipped strategies promise: the arrays are what the host plays, and know no future."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from backtesting import Backtest
from backtesting.test import EURUSD, GOOG
from hypothesis import given, settings
from hypothesis import strategies as st

from qml_plugin.adapters.array_strategy import ArrayStrategy, one_at_a_time, with_stops
from qml_plugin.bars import bars_from_frame
from qml_plugin.errors import DataError
from qml_plugin.features.kernels import wilder_atr
from qml_plugin.records import Signals
from strategies.donchian import DonchianBreakout, channel
from strategies.moving_average import MovingAverageCross
from strategies.qml import QMLStrategy
from strategies.rsi_reversion import RSIReversion, wilder_rsi
from tests.conftest import random_walk
from tests.strategies.bare import without_memory

pytestmark = [
    pytest.mark.filterwarnings("ignore:DatetimeIndex.dayofweek is deprecated"),  # of the host's own statistics
    pytest.mark.filterwarnings("ignore:Some trades remain open"),
    pytest.mark.filterwarnings("ignore:.*insufficient margin"),
]
STRATEGIES = (QMLStrategy, MovingAverageCross, DonchianBreakout, RSIReversion)
MARKETS = {"GOOG": GOOG, "EURUSD": EURUSD[:2500]}
PARAMETERS = {
    QMLStrategy: {"swing_atr": 0.7, "take_profit_rr": 1.0},
    MovingAverageCross: {"fast": 5, "slow": 15, "stop_loss_atr": 2.0},
    DonchianBreakout: {"entry_bars": 30, "exit_bars": 15, "take_profit_rr": 3.0},
    RSIReversion: {"rsi_period": 7, "oversold": 25.0, "stop_loss_atr": 3.0},
}


class EveryTenth(ArrayStrategy):
    step = 10

    def signals(self, bars):
        side = np.zeros(len(bars))
        side[:: self.step] = 1
        return with_stops(bars, side)

    def may_enter(self, bar):
        return not self.position


def same(one: Signals, other: Signals, n_bars: int) -> None:
    for name in ("side", "stop_px", "target_px", "exits"):
        np.testing.assert_array_equal(getattr(one, name)[:n_bars], getattr(other, name)[:n_bars], err_msg=name)
    known = [{bar: setup for bar, setup in asked.setups.items() if bar < n_bars} for asked in (one, other)]
    assert known[0] == known[1]


def watched(strategy: type[ArrayStrategy], orders: list) -> type:
    """The strategy under the host alone, writing down every order it places."""

    class Watched(without_memory(strategy)):
        def buy(self, **order):
            orders.append((len(self.data) - 1, 1, order.get("sl"), order.get("tp")))
            return super().buy(**order)

        def sell(self, **order):
            orders.append((len(self.data) - 1, -1, order.get("sl"), order.get("tp")))
            return super().sell(**order)

    return Watched


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("name", MARKETS)
def test_the_host_plays_the_arrays_row_by_row(strategy, name, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    orders: list = []
    frame, parameters = MARKETS[name], PARAMETERS[strategy]
    host = Backtest(frame, watched(strategy, orders), cash=1_000_000, exclusive_orders=True, finalize_trades=True)
    stats = host.run(**parameters)
    arrays = strategy.arrays(frame, **parameters)
    rows = [
        (bar, side, *(None if np.isnan(px) else px for px in prices))
        for bar, side, *prices in zip(*(np.arange(len(frame)), arrays.side, arrays.stop_px, arrays.target_px), strict=True)
        if side != 0
    ]  # fmt: skip
    assert {side for _, side, *_ in rows} == {-1, 1}
    assert set(orders) <= set(rows)
    passed_over = set(rows) - set(orders)
    assert not passed_over or strategy is QMLStrategy  # setups against the open position
    assert len(orders) > 10
    trades = stats["_trades"]
    assert set(trades["EntryBar"] - 1) <= {bar for bar, *_ in orders}
    left = set(np.flatnonzero(arrays.exits) + 1)
    if strategy is RSIReversion:
        assert left & set(trades["ExitBar"])


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda cls: cls.__name__)
@given(seed=st.integers(0, 10_000), cut=st.integers(2, 499))
@settings(max_examples=12)
def test_no_row_of_the_arrays_changes_with_the_future(strategy, seed, cut):
    frame, other = random_walk(500, seed), random_walk(500, seed + 1)
    whole = strategy.arrays(frame, **PARAMETERS[strategy])
    same(strategy.arrays(frame[:cut], **PARAMETERS[strategy]), whole, cut)
    same(strategy.arrays(pd.concat([frame[:cut], other[cut:]]), **PARAMETERS[strategy]), whole, cut)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda cls: cls.__name__)
def test_stops_and_targets_surround_the_close_that_asks(strategy):
    frame = random_walk(2000, 3)
    asked = strategy.arrays(frame)
    side, close = asked.side.astype(float), frame["Close"].to_numpy()
    assert (side != 0).sum() > 10
    for gap in (side * (close - asked.stop_px), side * (asked.target_px - close)):
        assert not (gap[side != 0] <= 0).any()
    assert np.isnan(asked.stop_px[side == 0]).all()


def test_bars_and_their_frame_give_the_same_arrays():
    bars = bars_from_frame(GOOG, symbol="GOOG")
    same(QMLStrategy.arrays(bars), QMLStrategy.arrays(GOOG), len(GOOG))


def test_the_memory_changes_nothing_while_it_only_records(monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    for strategy in (DonchianBreakout, RSIReversion):
        told = type("Told", (strategy,), {"mode": "record"})
        runs = [Backtest(GOOG[:1000], cls, cash=1_000_000).run() for cls in (told, without_memory(strategy))]
        pd.testing.assert_frame_equal(runs[0]["_trades"], runs[1]["_trades"])
        assert len(runs[0]["_trades"]) > 5


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # the host's own, when it optimizes
def test_a_subclass_needs_one_method(monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    assert np.flatnonzero(EveryTenth.arrays(GOOG[:100], step=30).side).tolist() == [0, 30, 60, 90]
    trades = Backtest(GOOG[:100], EveryTenth, finalize_trades=True).run(step=30)["_trades"]
    assert trades["EntryBar"].tolist() == [31]
    stats = Backtest(GOOG[:100], EveryTenth, finalize_trades=True).optimize(step=[20, 30], maximize="# Trades")
    assert stats["_strategy"].step in (20, 30)


def test_lines_are_drawn_but_do_not_postpone_the_first_bar(monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    stats = Backtest(GOOG[:300], MovingAverageCross, exclusive_orders=True).run(mode="record")
    assert [line.name for line in stats["_strategy"]._indicators] == ["mean(20)", "mean(50)"]


def test_an_entry_that_the_spread_eats_up_is_passed_over(monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    parameters = {"stop_loss_atr": 1.0, "take_profit_rr": 1.0}
    wide = Backtest(EURUSD[:1000], without_memory(MovingAverageCross), cash=1_000_000, spread=0.2).run(**parameters)
    assert len(wide["_trades"]) == 0


@given(st.lists(st.tuples(*[st.booleans()] * 4), min_size=1, max_size=60))
@settings(max_examples=60)
def test_one_at_a_time_reads_aloud_like_this(wishes):
    buy, sell, leave_long, leave_short = (np.array(column) for column in zip(*wishes, strict=True))
    side, exits = one_at_a_time(buy, sell, leave_long, leave_short)
    held = "nothing"
    for t in range(len(buy)):
        leaves = {"long": leave_long[t], "short": leave_short[t], "nothing": False}[held]
        assert exits[t] == leaves
        held = "nothing" if leaves else held
        wanted = {(True, False): "long", (False, True): "short"}.get((bool(buy[t]), bool(sell[t])))
        enters = wanted is not None and wanted != held
        assert side[t] == ({"long": 1, "short": -1}[wanted] if enters else 0)
        held = wanted if enters else held


def test_rsi_and_channel_equal_their_definitions():
    bars = bars_from_frame(random_walk(200, 8), symbol="X")
    moves = np.diff(bars.close)
    gain, loss = np.maximum(moves[:14], 0).mean(), np.maximum(-moves[:14], 0).mean()
    expected = [np.nan] * 14 + [100 - 100 / (1 + gain / loss)]
    for move in moves[14:]:
        gain, loss = (13 * gain + max(move, 0)) / 14, (13 * loss + max(-move, 0)) / 14
        expected.append(100 - 100 / (1 + gain / loss))
    np.testing.assert_allclose(wilder_rsi(bars.close, 14), expected, rtol=1e-10)
    upper, lower = channel(bars, 10)
    for t in range(200):
        window = slice(t - 10, t)
        assert np.isnan(upper[t]) if t < 10 else upper[t] == max(bars.high[window])
        assert np.isnan(lower[t]) if t < 10 else lower[t] == min(bars.low[window])
    assert np.isnan(wilder_rsi(np.full(30, 5.0), 14)).all()


def test_a_stop_lies_where_atr_puts_it_and_nowhere_without_it():
    bars = bars_from_frame(random_walk(60, 1), symbol="X")
    side = np.zeros(60)
    side[[5, 40, 50]] = 1, 1, -1
    asked = with_stops(bars, side, stop_loss_atr=2.0, take_profit_rr=3.0)
    atr = wilder_atr(bars.high, bars.low, bars.close, 14)
    assert np.isnan(asked.stop_px[5])  # no ATR yet
    assert asked.stop_px[40] == bars.close[40] - 2 * atr[40]
    assert asked.target_px[50] == bars.close[50] - 6 * atr[50]
    assert np.isnan(with_stops(bars, side, stop_loss_atr=500.0).stop_px[40])  # below 0
    assert np.isnan(with_stops(bars, side).stop_px).all()


@pytest.mark.parametrize("odd", [2, -3, 0.5, np.inf, 257.0])
def test_a_side_that_is_no_side_is_refused_before_it_is_cast(odd):
    bars = bars_from_frame(random_walk(60, 1), symbol="X")
    side = np.zeros(60)
    side[40] = odd
    with pytest.raises(DataError, match=rf"^side is {float(odd)} at bar 40\. It must be \+1, -1 or 0\.$"):
        with_stops(bars, side, stop_loss_atr=2.0)


def test_a_side_that_is_not_there_asks_for_nothing_and_has_no_stop():
    bars = bars_from_frame(random_walk(60, 1), symbol="X")
    side = np.r_[np.full(50, np.nan), np.ones(10)]
    asked = with_stops(bars, side, stop_loss_atr=2.0, take_profit_rr=3.0)
    same(asked, with_stops(bars, np.nan_to_num(side), stop_loss_atr=2.0, take_profit_rr=3.0), 60)
    assert np.isnan(asked.stop_px[:50]).all()
    assert asked.side.tolist() == [0] * 50 + [1] * 10


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            lambda bars: Signals(np.full(len(bars), 2), *[np.zeros(len(bars))] * 3),
            r"side of Bad.signals is .*2.* at bar 0. It must be \+1",
        ),
        (lambda bars: Signals(*[np.zeros(3)] * 4), r"side of Bad.signals has shape \(3,\), but there are 50 bars"),
        (
            lambda bars: np.ones(len(bars)),
            r"Bad.signals returned a ndarray, not Signals. Return with_stops\(bars, side\)",
        ),
        (lambda bars: with_stops(bars, np.ones(3)), r"side has the shape \(3,\), but there are 50 bars"),
        *[
            (
                lambda bars, given=given: with_stops(bars, np.ones(len(bars)), **given),
                f"{next(iter(given))} is .* a distance",
            )
            for given in ({"stop_loss_atr": -2.0}, {"stop_loss_atr": 0}, {"take_profit_rr": np.nan})
        ],
    ],
)
def test_signals_that_no_host_could_play_are_refused(asked, message):
    class Bad(ArrayStrategy):
        def signals(self, bars):
            return asked(bars)

    with pytest.raises(DataError, match=message):
        Bad.arrays(GOOG[:50])


def test_a_parameter_that_is_not_there_is_named():
    with pytest.raises(DataError, match=r"RSIReversion has no parameter 'rsi'. .* atr_period, .*rsi_period"):
        RSIReversion.arrays(GOOG, rsi=3)
    with pytest.raises(
        DataError, match=r"no parameter 'stepp'. Did you mean 'step'\? .*it has reverses, size, step, and"
    ):
        EveryTenth.arrays(GOOG, stepp=3)
    with pytest.raises(NotImplementedError, match=r"ArrayStrategy has no signals. Write: def signals"):
        ArrayStrategy.arrays(GOOG)


def test_none_that_the_optimizer_hands_back_as_nan_is_none():
    backtest = Backtest(GOOG[:300], MovingAverageCross, exclusive_orders=True)
    parameters = {"fast": 5, "mode": "record"}
    with_nan = backtest.run(**parameters, stop_loss_atr=np.nan)
    assert with_nan["_trades"].equals(backtest.run(**parameters)["_trades"])
