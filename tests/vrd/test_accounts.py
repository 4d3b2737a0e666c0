import numpy as np
import pytest

from qml_plugin.adapters import plain_runs
from qml_plugin.adapters.asked import Asked
from qml_plugin.adapters.playing import Orders
from qml_plugin.bars import bars_from_frame
from qml_plugin.vrd.accounts import evaluation_of_orders
from qml_plugin.vrd.evaluation import evaluation_of_stats, frame_of
from qml_plugin.vrd.leakage import audit_positions
from qml_plugin.vrd.strategies import StrategyRuns, find_strategy
from tests.conftest import random_walk

# QMLStrategy orders again on the side that is open, which the host adds to the position; on these bars of EURUSD it does not.
PLAYED = [("EURUSD", "QMLStrategy")] + [
    (market, name)
    for market in ("EURUSD", "GOOG")
    for name in ("MovingAverageCross", "DonchianBreakout", "RSIReversion")
]


@pytest.fixture(autouse=True)
def no_bars_of_the_host(monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")


@pytest.mark.parametrize(("market", "name"), PLAYED)
def test_arrays_earn_what_the_host_earns_with_them(market, name, goog, eurusd):
    bars = bars_from_frame({"GOOG": goog, "EURUSD": eurusd}[market][:1000], symbol=market)
    cls = find_strategy(name)
    assert plain_runs.is_played_as_arrays(cls)
    ours = StrategyRuns(cls, 0.0005, cls.reverses)(bars, {})
    stats = plain_runs.run_plain(cls, frame_of(bars), {}, fees=0.0005, is_exclusive=cls.reverses)
    host = evaluation_of_stats(stats, bars)
    # The host closes what is open at the last close and pays for it; and it trades whole units.
    np.testing.assert_allclose(ours.returns[:-1], host.returns[:-1], atol=1e-6, rtol=0)
    n = len(ours.trade_returns)
    assert n >= 5
    np.testing.assert_array_equal(ours.entry_bar, host.entry_bar[:n])
    np.testing.assert_allclose(ours.trade_returns, host.trade_returns[:n], atol=2e-4)
    np.testing.assert_allclose(ours.costs.sum(), host.costs[:-1].sum(), rtol=0.02)


def test_a_searched_size_is_played_as_the_host_plays_it(goog):
    bars = bars_from_frame(goog[:1000], symbol="GOOG")
    cls = find_strategy("MovingAverageCross")
    runs = StrategyRuns(cls, 0.0005, cls.reverses)
    found = {}
    for size in (0.25, 0.5, 100):
        stats = plain_runs.run_plain(cls, frame_of(bars), {"size": size}, fees=0.0005, is_exclusive=cls.reverses)
        found[size] = runs(bars, {"size": size}).returns
        np.testing.assert_allclose(found[size][:-1], evaluation_of_stats(stats, bars).returns[:-1], atol=1e-6, rtol=0)
        assert runs.is_as_arrays({"size": size}) == (size < 1)  # whole units are for the host
    assert found[0.5].std() > 1.8 * found[0.25].std() > 100 * found[100].std()


def test_whether_an_entry_reverses_can_be_searched(goog):
    bars = bars_from_frame(goog[:1000], symbol="GOOG")
    cls = find_strategy("MovingAverageCross")
    runs = StrategyRuns(cls, 0.0005, cls.reverses)
    holding = type("Holding", (cls,), {"reverses": not cls.reverses})
    asked = runs(bars, {"reverses": not cls.reverses}).exposure
    np.testing.assert_array_equal(asked, StrategyRuns(holding, 0.0005, cls.reverses)(bars, {}).exposure)
    assert (asked != runs(bars, {}).exposure).any()


@pytest.mark.parametrize("name", ["QMLStrategy", "MovingAverageCross", "DonchianBreakout", "RSIReversion"])
def test_the_position_over_a_bar_does_not_know_its_open(name):
    bars = bars_from_frame(random_walk(1200, 5, volatility=0.02), symbol="WALK")
    cls = find_strategy(name)
    assert audit_positions(bars, StrategyRuns(cls, 0.001, True), {}, n_cuts=40, seed=1).verdict == "clean"


def test_two_trades_by_hand():
    frame = random_walk(8, 1)
    frame["Open"] = [100.0, 100, 110, 110, 121, 121, 100, 100]
    frame["Close"] = [100.0, 110, 110, 121, 121, 110, 100, 100]
    frame["High"], frame["Low"] = frame[["Open", "Close"]].max(axis=1), frame[["Open", "Close"]].min(axis=1)
    bars = bars_from_frame(frame, symbol="X")
    flags, none = np.zeros(8, np.bool_), np.full(8, np.nan)
    flags[3] = True  # asks at the close of bar 3 to leave at the open of bar 4
    asked = Asked("", bars, np.zeros(8, np.int8), none, none, flags, flags)
    orders = Orders(np.array([1, 4, 5, 5]), np.array([1, 0, -1, 0], np.int8), np.array([100.0, 121.0, 121.0, 110.0]))
    got = evaluation_of_orders(orders, asked, size=0.5, fees=0.0)
    np.testing.assert_allclose(got.returns, [0, 0.05, 0, 0.055 / 1.05, 0, 0.5 * 11 / 121, 0, 0])
    np.testing.assert_allclose(got.exposure, [0, 0.5, 0.55 / 1.05, 0.55 / 1.05, 0, -0.5, 0, 0])
    assert got.entry_bar.tolist() == [1, 5]
    assert got.exit_bar.tolist() == [4, 6]
    np.testing.assert_allclose(got.trade_returns, [0.105, 0.5 * 11 / 121])
    paid = evaluation_of_orders(orders, asked, size=0.5, fees=0.01)
    assert paid.costs[1] == pytest.approx(0.5 / 1.01 * 0.01)
    assert paid.trade_returns[0] == pytest.approx(0.5 / 1.01 * (0.21 - 0.01 - 0.0121))


def test_nothing_happens_once_the_equity_is_gone():
    frame = random_walk(6, 1)
    for name in ("Open", "High", "Low", "Close"):
        frame[name] = [100.0, 100, 250, 250, 50, 50]
    bars = bars_from_frame(frame, symbol="X")
    none, flags = np.full(6, np.nan), np.zeros(6, np.bool_)
    asked = Asked("", bars, np.zeros(6, np.int8), none, none, flags, flags)
    got = evaluation_of_orders(
        Orders(np.array([1]), np.array([-1], np.int8), np.array([100.0])), asked, size=1.0, fees=0.0
    )
    assert got.returns[2] == -1
    assert not got.returns[3:].any()
