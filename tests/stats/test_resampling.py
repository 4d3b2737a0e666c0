import numpy as np
import pytest
from arch.bootstrap import StationaryBootstrap, optimal_block_length
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, norm

from qml_plugin.errors import DataError
from qml_plugin.stats.kernels import resampled_means, resampled_rows
from qml_plugin.stats.resampling import (
    FAN_QUANTILES,
    automatic_block_length,
    bootstrap_interval,
    monte_carlo,
    pessimist_mean,
)
from tests.stats import naive


def autoregressive(n, rho, seed=0, mean=0.0):
    noise = np.random.default_rng(seed).normal(size=n)
    for t in range(1, n):
        noise[t] += rho * noise[t - 1]
    return noise * 0.01 + mean


def test_rows_are_those_of_the_stationary_bootstrap():
    rows = resampled_rows(20, 4000, 5.0, 5, seed=1)
    goes_on = (np.diff(rows, axis=1) - 1) % 20 == 0
    # A block ends with probability 1/5, and its successor follows on by chance once in 20.
    assert 1 - goes_on.mean() == pytest.approx(0.2 * 19 / 20, abs=0.01)
    assert chisquare(np.bincount(resampled_rows(20, 2000, 1.0, 10, seed=2).ravel())).pvalue > 0.001
    assert not (resampled_rows(20, 50, 1.0, 2, seed=1)[0] == resampled_rows(20, 50, 1.0, 2, seed=1)[1]).all()


@pytest.mark.parametrize("block_length", [1.0, 3.5, 40.0])
def test_sums_of_blocks_are_the_sums_of_their_rows(block_length):
    values = np.random.default_rng(0).normal(size=(50, 3))
    values -= values.mean(axis=0)
    rows = resampled_rows(50, 50, block_length, 200, seed=4)
    found = resampled_means(values, 200, block_length, 4, 3)
    np.testing.assert_allclose(found, values[rows].mean(axis=1), atol=1e-13)


def test_automatic_block_length_is_the_longer_of_archs_for_returns_and_squares():
    """The example is arch's own test of an AR(1): 13.6357 for the series itself."""
    random = np.random.RandomState(0)
    series = random.standard_normal(10_100)
    for t in range(1, len(series)):
        series[t] = 0.3 * series[t - 1] + series[t]
    series = series[100:]
    lengths = [float(optimal_block_length(x)["stationary"].iloc[0]) for x in (series, series**2)]
    assert lengths[0] == pytest.approx(13.635665, rel=1e-6)
    assert automatic_block_length(series) == max(lengths)
    assert automatic_block_length(np.ones(100)) == automatic_block_length([0.1, 0.2]) == 1.0
    assert automatic_block_length(np.tile([1.0, -1.0], 50)) <= 25
    assert automatic_block_length(autoregressive(100, 0.99)) <= 25


def test_interval_of_independent_returns_is_the_normal_one():
    returns = np.random.default_rng(0).normal(0.1, 1, 2000)
    found = bootstrap_interval(returns, n_draws=8000, block_length=1, seed=1)
    half = norm.ppf(0.95) * returns.std() / np.sqrt(2000)
    assert (found.low, found.high) == pytest.approx((found.estimate - half, found.estimate + half), abs=0.08 * half)
    assert found.estimate == pytest.approx(returns.mean())


def test_interval_of_dependent_returns_is_that_of_arch():
    returns = autoregressive(600, 0.5)
    found = bootstrap_interval(returns, n_draws=4000, block_length=12, seed=1)
    theirs = StationaryBootstrap(12, returns, seed=1).conf_int(np.mean, 2000, method="percentile", size=0.9)[:, 0]
    width = found.high - found.low
    assert (found.low, found.high) == pytest.approx(tuple(theirs), abs=0.06 * width)
    independent = bootstrap_interval(returns, block_length=1, seed=1)
    assert width > 1.4 * (independent.high - independent.low)


def test_any_statistic_and_the_fast_mean_agree():
    returns = autoregressive(80, 0.2)
    fast = bootstrap_interval(returns, seed=3, n_draws=100, block_length=4)
    slow = bootstrap_interval(returns, lambda drawn: float(drawn.mean()), seed=3, n_draws=100, block_length=4)
    np.testing.assert_allclose(fast.draws, slow.draws, atol=1e-15)


@settings(max_examples=30)
@given(st.integers(2, 60), st.floats(0.05, 0.45), st.integers(0, 5))
def test_the_pessimist_is_never_above_the_mean_and_a_surer_one_lower(n, level, seed):
    returns = np.random.default_rng(seed).normal(0.01, 0.1, n)
    bound = pessimist_mean(returns, level=level, n_draws=200, block_length=1, seed=1)
    assert bound <= returns.mean()
    assert pessimist_mean(returns, level=level / 2, n_draws=200, block_length=1, seed=1) <= bound


@pytest.mark.parametrize("block_length", [1.0, 5.0])
def test_paths_are_those_walked_step_by_step(block_length):
    returns = np.random.default_rng(1).normal(0.0, 0.05, 40)
    found = monte_carlo(returns, n_paths=300, n_steps=70, block_length=block_length, ruin_equity=0.8, seed=2)
    rows = resampled_rows(40, 70, block_length, 300, seed=2)
    slow = np.array([naive.path(returns[drawn], 0.8) for drawn in rows])
    np.testing.assert_allclose(found.max_drawdown_frac, slow[:, 0], atol=1e-12)
    np.testing.assert_array_equal(found.under_water_steps, slow[:, 1])
    np.testing.assert_array_equal(found.ruin_step, slow[:, 2])
    np.testing.assert_allclose(found.final_equity, slow[:, 3], rtol=1e-12)
    equity = np.cumprod(1 + returns[rows], axis=1)
    np.testing.assert_allclose(
        found.fan, np.quantile(equity[:, found.fan_steps - 1], FAN_QUANTILES, axis=0).T, rtol=1e-12
    )


def test_paths_are_the_same_bits_for_any_number_of_threads():
    returns = autoregressive(100, 0.1)
    one, *others = (monte_carlo(returns, n_paths=1001, block_length=3, seed=5, n_threads=n) for n in (1, 2, 7))
    for other in others:
        for name in ("max_drawdown_frac", "under_water_steps", "ruin_step", "final_equity", "fan"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_gamblers_ruin():
    """A unit at even odds, p = 0.55, from 10 units: ruin with probability (q / p) ** 10. Units of log equity here."""
    returns = np.array([0.05] * 55 + [1 / 1.05 - 1] * 45)
    found = monte_carlo(returns, n_paths=20_000, n_steps=1500, ruin_equity=1.05**-9.5, seed=1)
    assert found.ruin_probability() == pytest.approx((0.45 / 0.55) ** 10, abs=4 * np.sqrt(0.134 * 0.866 / 20_000))
    assert found.ruin_probability(by_step=9) == 0.0
    assert 0 < found.ruin_probability(by_step=100) < found.ruin_probability()


def test_expected_drawdown_of_a_driftless_walk():
    """Magdon-Ismail et al. (2004): sqrt(pi / 2) * sd * sqrt(steps); a walk in 2,000 steps reaches 1.216 of 1.2533."""
    returns = np.random.default_rng(3).normal(size=5000)
    returns = 1e-5 * (returns - returns.mean()) / returns.std()
    found = monte_carlo(returns, n_paths=4000, n_steps=2000, seed=1)
    assert found.max_drawdown_frac.mean() / (1e-5 * np.sqrt(2000)) == pytest.approx(1.22, abs=0.025)


def test_a_lower_mean_is_worse_in_every_way():
    returns = np.random.default_rng(4).normal(0.002, 0.02, 300)
    bound = pessimist_mean(returns, seed=0)
    hopeful, doubtful = (
        monte_carlo(returns, n_paths=2000, mean_return=m, ruin_equity=0.8, seed=0) for m in (None, bound)
    )
    assert hopeful.mean_return == pytest.approx(returns.mean())
    assert doubtful.mean_return == pytest.approx(bound)
    assert (doubtful.final_equity < hopeful.final_equity).all()
    assert (doubtful.max_drawdown_frac >= hopeful.max_drawdown_frac - 1e-12).all()
    assert doubtful.ruin_probability() > hopeful.ruin_probability()


def test_what_is_lost_stays_lost():
    found = monte_carlo([0.1, -1.5], n_paths=500, n_steps=30, seed=0)
    lost = found.final_equity == 0
    assert lost.mean() > 0.99
    assert (found.max_drawdown_frac[lost] == 1).all()
    assert (found.ruin_step[lost] > 0).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: monte_carlo([], seed=0), "has 0 observations"),
        (lambda: monte_carlo([0.1, np.nan], seed=0), "returns is nan at observation 1"),
        (lambda: monte_carlo([0.1, 0.2], n_paths=0, seed=0), "n_paths 0"),
        (lambda: monte_carlo([0.1, 0.2], block_length=3, seed=0), "block_length 3"),
        (lambda: monte_carlo([0.1, 0.2], ruin_equity=1.0, seed=0), "ruin_equity 1.0"),
        (lambda: monte_carlo([0.1, 0.2], mean_return=np.nan, seed=0), "mean_return nan"),
        (lambda: bootstrap_interval([0.1], seed=0), "has 1 observations"),
        (lambda: bootstrap_interval([0.1, 0.2], level=1.0, seed=0), "level 1.0"),
        (lambda: bootstrap_interval([0.1, 0.2], lambda x: np.nan, n_draws=5, seed=0), "not finite in 6 of 5"),
        (lambda: pessimist_mean([0.1, 0.2], level=0.5, seed=0), "level 0.5"),
        (lambda: automatic_block_length([]), "has 0 observations"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(DataError, match=message):
        call()
