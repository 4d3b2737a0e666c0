import numpy as np
import pytest
from scipy.stats import binomtest
from statsmodels.stats.diagnostic import breaks_cusumolsresid
from statsmodels.stats.multitest import multipletests

from qml_plugin.errors import DataError
from qml_plugin.gate.sizing import kelly_risk_frac
from qml_plugin.stats.inference import (
    false_discovery_p_values,
    mean_shift,
    normal_tail_risk,
    tail_risk,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("n_wins", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_meets_published_values(n_wins, n, low, high):
    """Newcombe (1998), Two-sided confidence intervals for the single proportion, table I, method 3."""
    assert wilson_interval(n_wins, n) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_wilson_interval_is_that_of_scipy(level):
    theirs = binomtest(7, 40).proportion_ci(level, method="wilson")
    assert wilson_interval(7, 40, level) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@pytest.mark.parametrize(("dependence", "method"), [("positive", "fdr_bh"), ("any", "fdr_by")])
def test_false_discoveries_are_those_of_statsmodels_and_what_is_missing_stays_so(dependence, method):
    p = np.random.default_rng(0).uniform(size=40) ** 2
    with_gaps = np.insert(p, [3, 17], np.nan)
    found = false_discovery_p_values(with_gaps, dependence=dependence)
    np.testing.assert_allclose(found[~np.isnan(with_gaps)], multipletests(p, method=method)[1], atol=1e-12)
    assert np.isnan(found[[3, 18]]).all()
    assert np.isnan(false_discovery_p_values([np.nan])).all()


@pytest.mark.parametrize("seed", range(4))
def test_mean_shift_is_the_cusum_of_statsmodels(seed):
    returns = np.random.default_rng(seed).normal(size=200)
    found = mean_shift(returns)
    statistic, p_value, _ = breaks_cusumolsresid(returns - returns.mean())
    assert (found.statistic, found.p_value) == pytest.approx((statistic, p_value), abs=1e-9)


def test_an_edge_that_dies_is_found_where_it_died():
    rng = np.random.default_rng(5)
    returns = np.append(rng.normal(0.5, 1, 300), rng.normal(-0.2, 1, 200))
    found = mean_shift(returns)
    assert found.p_value < 1e-3
    assert abs(found.break_bar - 300) < 30
    assert found.mean_before > 0.3 > 0 > found.mean_after
    assert found.mean_before == pytest.approx(returns[: found.break_bar].mean())


def test_mean_shift_keeps_its_size():
    rng = np.random.default_rng(6)
    share = np.mean([mean_shift(rng.standard_t(5, 400)).p_value <= 0.05 for _ in range(1000)])
    assert 0.02 < share < 0.065


def test_tail_risk_of_ten_returns_by_hand():
    found = tail_risk(np.arange(-5, 5) / 100, level=0.8)
    assert (found.value_at_risk, found.expected_shortfall) == pytest.approx((-0.032, -0.045), abs=1e-12)
    assert (found.level, found.horizon_bars, found.n_obs) == (0.8, 1, 10)


def test_tail_risk_of_a_horizon_compounds():
    returns = np.array([0.1, -0.5, 0.2, 0.0])
    found = tail_risk(returns, level=0.99, horizon_bars=2)
    assert (found.horizon_bars, found.n_obs) == (2, 3)
    assert found.expected_shortfall == pytest.approx(1.1 * 0.5 - 1)


@pytest.mark.parametrize(("level", "var", "shortfall"), [(0.95, 1.6448536, 2.0627128), (0.99, 2.3263479, 2.6652142)])
def test_normal_tail_risk_meets_the_tables_and_the_historical_one(level, var, shortfall):
    found = normal_tail_risk(0.0, 1.0, level=level)
    assert (-found.value_at_risk, -found.expected_shortfall) == pytest.approx((var, shortfall), abs=5e-8)
    assert normal_tail_risk(0.1, 1.0, level=level, horizon_bars=4).value_at_risk == pytest.approx(0.4 - 2 * var)
    drawn = tail_risk(np.random.default_rng(0).normal(size=200_000), level=level)
    assert (-drawn.value_at_risk, -drawn.expected_shortfall) == pytest.approx((var, shortfall), abs=0.03)


@pytest.mark.parametrize(("p", "win_r", "expected"), [(0.6, 1.0, 0.20), (0.5, 2.0, 0.25)])
def test_kelly_meets_its_examples(p, win_r, expected):
    assert float(kelly_risk_frac(p, win_r, fraction=1.0, cap_frac=1.0)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: wilson_interval(3, 2), "3 of 2"),
        (lambda: wilson_interval(0, 0), "0 of 0"),
        (lambda: false_discovery_p_values([0.1, 1.5]), "outside 0..1"),
        (lambda: mean_shift([1.0] * 20), "all 20 returns"),
        (lambda: mean_shift([1.0, 2.0]), "has 2 observations. At least 10"),
        (lambda: tail_risk([]), "has 0 observations"),
        (lambda: tail_risk([0.1], level=1.0), "level 1.0"),
        (lambda: tail_risk([0.1], horizon_bars=2), "At least 2"),
        (lambda: normal_tail_risk(0.0, -1.0), "sd -1.0"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(DataError, match=message):
        call()
