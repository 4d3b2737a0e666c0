from itertools import pairwise

import numpy as np
import pytest
from backtesting import Backtest
from backtesting.test import EURUSD, GOOG
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.moving_average import MovingAverageCross, moving_average
from tests.strategies.bare import without_memory

pytestmark = pytest.mark.filterwarnings("ignore:DatetimeIndex.dayofweek is deprecated")  # of the host's own statistics

MARKETS = {"GOOG": GOOG, "EURUSD": EURUSD}


class Recorded(MovingAverageCross):
    mode = "record"


def bare_strategy():
    """MovingAverageCross without the memory."""
    return without_memory(MovingAverageCross)


def play(frame, strategy=None, *, params=None, **options):
    """Every trade of a run, open ones too, as (bar, size, price, stop, target)."""
    options = {"finalize_trades": True, "exclusive_orders": True, **options}
    test = Backtest(frame, strategy or bare_strategy(), cash=1_000_000, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TQDM_DISABLE", "1")
        stats = test.run(**(params or {}))
    run = stats["_strategy"]
    trades = sorted((*run.closed_trades, *run.trades), key=lambda trade: trade.entry_bar)
    return [(trade.entry_bar, trade.size, trade.entry_price, trade.sl, trade.tp) for trade in trades]


@pytest.mark.parametrize("name", MARKETS)
@pytest.mark.parametrize(
    "options", [{}, {"finalize_trades": False}, {"trade_on_close": True, "spread": 0.001}], ids=str
)
@pytest.mark.filterwarnings("ignore:Some trades remain open")
def test_reverses_at_every_cross(name, options):
    trades = play(MARKETS[name], **options)
    sides = [size > 0 for _, size, *_ in trades]
    assert len(trades) > 20
    assert all(one != other for one, other in pairwise(sides))
    fast, slow = (moving_average(MARKETS[name].Close, period) for period in (20, 50))
    delay = 0 if options.get("trade_on_close") else 1
    assert all((fast[bar - delay] > slow[bar - delay]) == (size > 0) for bar, size, *_ in trades)


@pytest.mark.parametrize("name", MARKETS)
def test_the_memory_changes_nothing_while_it_only_records(name):
    assert play(MARKETS[name], Recorded) == play(MARKETS[name])


@pytest.mark.parametrize("name", MARKETS)
@pytest.mark.parametrize("spread", [0.0, 0.002])
def test_stop_and_target_surround_the_entry(name, spread):
    trades = play(MARKETS[name], params={"stop_loss_atr": 3.0, "fast": 10}, spread=spread)
    assert {size > 0 for _, size, *_ in trades} == {True, False}
    for _, size, _, stop, target in trades:
        assert (stop < target) == (size > 0)


def test_a_target_below_zero_is_left_out():
    trades = play(GOOG[:400], params={"stop_loss_atr": 3.0, "take_profit_rr": 50.0})
    assert any(target is None for _, size, _, _, target in trades if size < 0)


@pytest.mark.parametrize("cut", [300, 1100, 2000])
@pytest.mark.parametrize("params", [{}, {"stop_loss_atr": 2.0}], ids=str)
@pytest.mark.filterwarnings("ignore:Some trades remain open")
def test_the_past_does_not_change_with_the_future(cut, params):
    known = [trade[:3] for trade in play(GOOG, params=params) if trade[0] < cut]
    assert [trade[:3] for trade in play(GOOG[:cut], params=params, finalize_trades=False)] == known


def test_runs_twice_alike():
    assert play(EURUSD, Recorded) == play(EURUSD, Recorded)


@given(prices=st.lists(st.floats(1, 1000), min_size=1, max_size=60), period=st.integers(1, 20))
@settings(max_examples=50, deadline=None)
def test_moving_average_is_the_mean_so_far(prices, period):
    mean = moving_average(prices, period)
    for t, value in enumerate(mean):
        expected = np.mean(prices[t - period + 1 : t + 1]) if t >= period - 1 else np.nan
        np.testing.assert_allclose(value, expected, rtol=1e-9)
        np.testing.assert_array_equal(moving_average(prices[: t + 1], period), mean[: t + 1])
