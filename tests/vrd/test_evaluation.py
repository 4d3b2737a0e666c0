import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qml_plugin.bars import bars_from_frame
from qml_plugin.errors import DataError
from qml_plugin.vrd import Backtests, Positions, run_trials
from qml_plugin.vrd.evaluation import bars_per_year, evaluation_of_exposure, frame_of, market_returns
from tests.stats.naive import slow_holds
from tests.vrd.conftest import GRID, moving_average


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=2, max_size=40), st.integers(0, 99))
def test_trades_add_up_to_the_returns_when_all_are_closed(exposure, seed):
    x = np.array([*exposure, 0.0])
    market = np.random.default_rng(seed).normal(0, 0.01, len(x))
    found = evaluation_of_exposure(x, market, 0.001)
    assert found.trade_returns.sum() == pytest.approx(found.returns.sum(), abs=1e-12)
    assert found.n_trades == len(slow_holds(x))


def test_a_position_wanted_at_a_close_earns_from_the_next_bar_on(bars, evaluate):
    found = evaluate(bars, GRID[0])
    wanted = moving_average(bars, GRID[0])
    np.testing.assert_array_equal(found.exposure[1:], wanted[:-1])
    np.testing.assert_allclose(found.returns, found.exposure * market_returns(bars) - found.costs)


def test_trials_that_fail_are_kept_with_their_reason(bars):
    def position(bars, parameters):
        if parameters["n"] == 1:
            raise ZeroDivisionError("no bars")
        return np.full(len(bars), np.nan) if parameters["n"] == 2 else np.ones(len(bars))

    trials = run_trials(bars, Positions(position), [{"n": n} for n in (0, 1, 2)])
    assert trials.n_trials == 1
    assert [one.parameters["n"] for one in trials.failed] == [1, 2]
    assert "ZeroDivisionError: no bars" in trials.failed[0].reason
    assert "not finite" in trials.failed[1].reason


def test_a_search_of_which_nothing_is_left_is_refused(bars):
    with pytest.raises(DataError, match=r"the only trial failed, .*, with DataError: positions have shape"):
        run_trials(bars, Positions(lambda bars, parameters: np.ones(3)), [{}])
    with pytest.raises(DataError, match="the grid of parameters is empty"):
        run_trials(bars, Positions(moving_average), [])


def test_negative_costs_are_refused():
    with pytest.raises(DataError, match="cost_frac is -1"):
        Positions(moving_average, -1)


def test_a_backtest_is_evaluated_bar_by_bar(goog):
    from backtesting import Backtest, Strategy
    from backtesting.lib import crossover

    def mean(x, n):
        return pd.Series(x).rolling(n).mean()

    class Cross(Strategy):
        fast, slow = 5, 20

        def init(self):
            self.quick = self.I(mean, self.data.Close, self.fast)
            self.slow_mean = self.I(mean, self.data.Close, self.slow)

        def next(self):
            if crossover(self.quick, self.slow_mean):
                self.buy()
            elif crossover(self.slow_mean, self.quick):
                self.sell()

    bars = bars_from_frame(goog.iloc[:600], symbol="GOOG")

    def run(frame, parameters):
        test = Backtest(frame, Cross, commission=0.001, exclusive_orders=True, finalize_trades=True)
        return test.run(**parameters)

    found = Backtests(run)(bars, {"fast": 5, "slow": 20})
    stats = run(frame_of(bars), {"fast": 5, "slow": 20})
    equity = stats["_equity_curve"]["Equity"].to_numpy()
    np.testing.assert_allclose(np.cumprod(1 + found.returns), equity / equity[0])
    assert found.n_trades == len(stats["_trades"])
    assert np.abs(found.exposure).max() == pytest.approx(1.0, abs=0.2)
    is_held = found.exposure != 0
    # Between fills the equity moves with the market times the exposure, as far as the position grows with its price.
    inside = is_held & np.roll(is_held, 1) & (found.costs == 0)
    assert np.corrcoef(found.returns[inside], (found.exposure * market_returns(bars))[inside])[0, 1] > 0.98


def test_bars_a_year_are_counted(goog):
    assert bars_per_year(bars_from_frame(goog, symbol="GOOG")) == pytest.approx(252, abs=1)
