"""Published and recomputed values, an independent library, and what must hold for any returns."""

import math

import numpy as np
import purgedcv
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from qml_plugin.errors import DataError
from qml_plugin.stats.sharpe import (
    deflated_sharpe_ratio,
    excess_returns,
    expected_max_sharpe,
    min_backtest_length,
    min_track_record_length,
    probabilistic_sharpe_ratio,
    sharpe_moments,
    sharpe_ratio,
)

SKEW_2012, KURT_2012 = -2.448, 10.164
ratios = st.floats(-0.5, 0.5)
skews = st.floats(-2, 2)


@pytest.mark.parametrize(
    ("sr", "expected"), [(1.585 / math.sqrt(12), 0.9132343068848602), (0.036 / 0.079, 0.9127093395948954)]
)
def test_psr_meets_the_example_of_2012(sr, expected):
    assert probabilistic_sharpe_ratio(sr, 24, SKEW_2012, KURT_2012) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("n_trials", "expected"),
    [(1, 0.0), (2, 0.519755), (10, 1.574598), (45, 2.235640), (100, 2.5306028932016846), (1000, 3.255122)],
)
def test_expected_maximum_meets_published_values(n_trials, expected):
    assert expected_max_sharpe(n_trials) == pytest.approx(expected, abs=1e-9 if n_trials == 100 else 5e-7)
    assert expected_max_sharpe(n_trials, 0.25) == pytest.approx(expected / 2, abs=5e-7)


@pytest.mark.parametrize(("n", "exact"), [(5, 1.162964), (10, 1.538753), (100, 2.507594), (1000, 3.241436)])
def test_expected_maximum_is_near_the_exact_one(n, exact):
    assert expected_max_sharpe(n) == pytest.approx(exact, rel=0.03)


def test_dsr_meets_the_example_of_2014():
    sr, var_sr = 2.5 / math.sqrt(250), 0.5 / 250
    assert expected_max_sharpe(100, var_sr) == pytest.approx(0.113172, abs=5e-8)
    assert deflated_sharpe_ratio(sr, 1250, -3, 10, var_sr, 100) == pytest.approx(0.9003968344493903, abs=1e-12)


def test_min_backtest_length_meets_figure_2():
    assert min_backtest_length(45, 1.0) == pytest.approx(4.998087004443404, abs=1e-12)
    assert min_backtest_length(45, 1.0) < 2 * math.log(45) == pytest.approx(7.6133, abs=1e-4)


def test_min_track_record_is_where_psr_becomes_significant():
    length = min_track_record_length(0.036 / 0.079, SKEW_2012, KURT_2012)
    assert length == pytest.approx(34.76, abs=0.005)
    # PSR of a fractional number of observations, by its formula.
    spread = math.sqrt(1 - SKEW_2012 * 0.036 / 0.079 + (KURT_2012 - 1) / 4 * (0.036 / 0.079) ** 2)
    assert scipy_stats.norm.cdf(0.036 / 0.079 * math.sqrt(length - 1) / spread) == pytest.approx(0.95, abs=1e-12)
    assert min_track_record_length(0.1, 0, 3, benchmark=0.1) == math.inf


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_purgedcv(seed):
    rng = np.random.default_rng(seed)
    returns = rng.standard_t(5, 300) * 0.01 + 0.003
    sr = returns.mean() / returns.std()
    skew = scipy_stats.skew(returns, bias=False)
    kurt = scipy_stats.kurtosis(returns, bias=False, fisher=False)
    ours = [
        probabilistic_sharpe_ratio(sr, 300, skew, kurt, 0.02),
        deflated_sharpe_ratio(sr, 300, skew, kurt, 0.003, 40),
        math.ceil(min_track_record_length(sr, skew, kurt, 0.0, 0.05) - 1) + 1,
        min_backtest_length(40, 1.2),
    ]
    theirs = [
        purgedcv.probabilistic_sharpe_ratio(returns, 0.02),
        purgedcv.deflated_sharpe_ratio(returns, 40, 0.003),
        purgedcv.min_track_record_length(sr, 0.0, 0.05, skew, kurt),
        purgedcv.minimum_backtest_length(40, 1.2),
    ]
    assert ours == pytest.approx(theirs, abs=1e-9)


def test_moments_are_those_of_scipy():
    returns = np.random.default_rng(0).standard_t(4, 500)
    sr, n_obs, skew, kurt = sharpe_moments(returns)
    assert n_obs == 500
    assert sr == sharpe_ratio(returns) == pytest.approx(returns.mean() / returns.std(ddof=1))
    assert skew == pytest.approx(scipy_stats.skew(returns), abs=1e-9)
    assert kurt == pytest.approx(scipy_stats.kurtosis(returns, fisher=False), abs=1e-9)


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=50), st.floats(0.01, 100))
def test_scale_does_not_matter_and_sign_turns_it(values, scale):
    returns = np.array(values)
    if np.ptp(returns) < 1e-6:
        return
    assert sharpe_ratio(scale * returns) == pytest.approx(sharpe_ratio(returns), abs=1e-6)
    assert sharpe_ratio(-returns) == pytest.approx(-sharpe_ratio(returns))
    assert sharpe_moments(scale * returns)[2:] == pytest.approx(sharpe_moments(returns)[2:], abs=1e-6)


@given(ratios, st.integers(2, 5000), skews, st.floats(0, 20), st.integers(1, 1000))
def test_more_observations_are_surer_and_more_trials_less(sr, n_obs, skew, above, n_trials):
    kurt = 1.1 + skew**2 + above
    less, more = (probabilistic_sharpe_ratio(sr, n, skew, kurt) for n in (n_obs, 2 * n_obs))
    assert 0 <= less <= 1
    assert (more >= less) if sr >= 0 else (more <= less)
    few, many = (deflated_sharpe_ratio(sr, n_obs, skew, kurt, 0.01, n) for n in (n_trials, n_trials + 1))
    assert many <= few <= less + 1e-12
    assert min_track_record_length(sr, skew, kurt) >= 1


def test_a_long_position_in_a_rising_market_has_no_excess():
    rng = np.random.default_rng(1)
    market = 0.01 + rng.normal(0, 0.01, 2000)
    exposure = rng.integers(0, 2, 2000).astype(float)
    excess = excess_returns(exposure * market, exposure, market)
    assert sharpe_ratio(exposure * market) > 0.5
    assert abs(sharpe_ratio(excess)) < 0.06
    np.testing.assert_allclose(excess, (exposure - exposure.mean()) * market, atol=1e-15)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sharpe_ratio([]), "has 0 observations"),
        (lambda: sharpe_ratio([0.1]), "has 1 observations"),
        (lambda: sharpe_ratio([0.1, np.nan, np.inf]), "returns is nan at observation 1, the first of 2"),
        (lambda: sharpe_ratio([0.1] * 9), "all 9 returns are 0.1"),
        (lambda: sharpe_ratio(np.zeros((2, 2))), r"shape \(2, 2\)"),
        (lambda: excess_returns([0.1, 0.2], [1.0, 1.0], [0.1, 0.1, 0.2]), "2 observations, exposure 2 and market"),
        (lambda: probabilistic_sharpe_ratio(0.1, 1, 0, 3), "n_obs 1 refused"),
        (lambda: probabilistic_sharpe_ratio(0.1, 10, 0, 0), "raw kurtosis"),
        (lambda: probabilistic_sharpe_ratio(math.nan, 10, 0, 3), "sr is nan"),
        (lambda: probabilistic_sharpe_ratio(0.1, 10, 0, 3, math.inf), "benchmark is inf"),
        (lambda: expected_max_sharpe(0), "n_trials 0"),
        (lambda: expected_max_sharpe(5, -1.0), "var_sr -1.0"),
        (lambda: min_track_record_length(0.1, 0, 3, alpha=0.0), "alpha 0.0 refused"),
        (lambda: min_backtest_length(10, 0.0), "target_sr 0.0 refused"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(DataError, match=message):
        call()
