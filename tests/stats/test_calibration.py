import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import logit

from qml_plugin.errors import DataError
from qml_plugin.stats.calibration import brier_score, brier_skill, fit_sigmoid, log_loss, sigmoid, sigmoid_covariance


def naive_sigmoid(scores, is_win, weight):
    """The same likelihood, maximised by a general method."""
    wins, losses = weight[is_win].sum(), weight[~is_win].sum()
    target = np.where(is_win, (wins + 1) / (wins + 2), 1 / (losses + 2))

    def loss(beta):
        z = beta[0] * scores + beta[1]
        return (weight * (target * np.logaddexp(0, -z) + (1 - target) * np.logaddexp(0, z))).sum()

    return minimize(loss, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 4000}).x


def test_two_scores_have_a_closed_form():
    # 12 wins of 40 at score -1 and 45 wins of 60 at score 3: the fit passes through the mean smoothed targets.
    scores = np.repeat([-1.0, 3.0], [40, 60])
    is_win = np.concatenate([np.arange(40) < 12, np.arange(60) < 45])
    high, low = 58 / 59, 1 / 45  # (57 + 1) / (57 + 2) and 1 / (43 + 2)
    left = logit((12 * high + 28 * low) / 40)
    right = logit((45 * high + 15 * low) / 60)
    slope, intercept = fit_sigmoid(scores, is_win, np.ones(100))
    assert slope == pytest.approx((right - left) / 4, rel=1e-9)
    assert intercept == pytest.approx(left + (right - left) / 4, rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_equals_a_general_optimiser(seed):
    rng = np.random.default_rng(seed)
    scores = rng.normal(2, 3, 150)
    is_win = rng.random(150) < sigmoid(scores, 0.5, -1.0)
    weight = rng.uniform(0.2, 1.0, 150)
    np.testing.assert_allclose(fit_sigmoid(scores, is_win, weight), naive_sigmoid(scores, is_win, weight), atol=1e-6)


def test_recovers_the_sigmoid_that_made_the_outcomes():
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 1.5, 200_000)
    is_win = rng.random(200_000) < sigmoid(scores, 0.7, -0.4)
    np.testing.assert_allclose(fit_sigmoid(scores, is_win, np.ones(200_000)), [0.7, -0.4], atol=0.02)


def test_separable_scores_stay_finite_and_reversed_scores_have_a_negative_slope():
    scores = np.array([-1e3, -5.0, 1.0, 2.0, 1e4])
    is_win = scores > 0
    slope, intercept = fit_sigmoid(scores, is_win, np.ones(5))
    assert slope > 0
    assert np.isfinite(intercept)
    reversed_slope, _ = fit_sigmoid(-scores, is_win, np.ones(5))
    assert reversed_slope == pytest.approx(-slope)


def test_equal_scores_have_slope_zero_and_the_smoothed_share():
    slope, intercept = fit_sigmoid(np.full(10, 3.0), np.arange(10) < 4, np.ones(10))
    assert slope == 0.0
    assert sigmoid([3.0], slope, intercept)[0] == pytest.approx((4 * 5 / 6 + 6 / 8) / 10)


def test_the_unit_of_the_scores_does_not_matter():
    rng = np.random.default_rng(3)
    scores = rng.normal(size=80)
    is_win = rng.random(80) < 0.4
    slope, intercept = fit_sigmoid(scores, is_win, np.ones(80))
    scaled_slope, scaled_intercept = fit_sigmoid(1000 * scores + 7, is_win, np.ones(80))
    assert scaled_slope * 1000 == pytest.approx(slope)
    assert scaled_intercept + 7 * scaled_slope == pytest.approx(intercept)


def test_brier_by_hand():
    confidence, is_win = np.array([0.8, 0.4, 0.5]), np.array([True, False, True])
    assert brier_score(confidence, is_win) == pytest.approx((0.04 + 0.16 + 0.25) / 3)
    assert brier_score(confidence, is_win, np.array([1.0, 1.0, 2.0])) == pytest.approx((0.04 + 0.16 + 0.5) / 4)
    assert brier_skill(confidence, is_win, np.full(3, 0.5)) == pytest.approx(1 - 0.15 / 0.25)


def test_skill_is_zero_against_itself_and_missing_against_perfection():
    confidence, is_win = np.array([0.8, 0.4]), np.array([True, False])
    assert brier_skill(confidence, is_win, confidence) == 0.0
    assert np.isnan(brier_skill(confidence, is_win, is_win.astype(float)))


@pytest.mark.parametrize(
    ("scores", "is_win", "weight", "message"),
    [
        ([], [], [], "got 0 scores"),
        ([0.1, 0.2], [True], [1.0, 1.0], "got 2 scores, 1 outcomes"),
        ([0.1, np.nan], [True, False], [1.0, 1.0], "score 1 is nan"),
        ([0.1, 0.2], [True, False], [1.0, 0.0], "weight 1 is 0.0"),
        ([0.1, 0.2], [True, False], [np.nan, 1.0], "weight 0 is nan"),
    ],
)
@pytest.mark.parametrize("function", [fit_sigmoid, brier_score])
def test_refuses(function, scores, is_win, weight, message):
    with pytest.raises(DataError, match=message):
        function(np.array(scores), np.array(is_win, dtype=bool), np.array(weight))


def test_a_prior_holds_the_slope_where_events_are_few_and_yields_where_they_are_many():
    rng = np.random.default_rng(0)
    errors = {}
    for n in (40, 20_000):
        scores = rng.normal(size=n)
        is_win = rng.random(n) < sigmoid(scores, 0.3, -0.2)
        slope, _ = fit_sigmoid(scores, is_win, np.ones(n), slope_prior=(1.0, 0.5))
        free, _ = fit_sigmoid(scores, is_win, np.ones(n))
        errors[n] = slope, free
    assert min(errors[40][1], 1.0) < errors[40][0] < max(errors[40][1], 1.0)
    assert errors[20_000][0] == pytest.approx(0.3, abs=0.05)
    assert errors[20_000][0] == pytest.approx(errors[20_000][1], abs=0.01)
    scores, is_win = np.array([1.0, 2.0, -1.0]), np.array([True, False, False])
    assert fit_sigmoid(scores, is_win, np.ones(3), slope_prior=(1.0, 1e-6))[0] == pytest.approx(1.0, abs=1e-4)


def test_the_covariance_is_that_of_repeated_fits():
    rng = np.random.default_rng(1)
    scores = rng.normal(size=500)
    fits = [fit_sigmoid(scores, rng.random(500) < sigmoid(scores, 0.5, -0.3), np.ones(500)) for _ in range(400)]
    covariance = sigmoid_covariance(scores, np.ones(500), 0.5, -0.3)
    np.testing.assert_allclose(np.cov(np.array(fits).T), covariance, atol=0.002)
    assert sigmoid_covariance(scores, np.ones(500), 0.5, -0.3, slope_sd=0.01)[0, 0] < 1.01e-4


def test_log_loss_by_hand():
    confidence, is_win = np.array([0.5, 0.8, 0.8]), np.array([True, True, False])
    expected = -(np.log(0.5) + np.log(0.8) + np.log(0.2))
    assert log_loss(confidence, is_win) == pytest.approx(expected / 3)
    assert log_loss(confidence, is_win, np.array([1.0, 1.0, 2.0])) == pytest.approx((expected - np.log(0.2)) / 4)
    assert log_loss(np.array([1.0]), np.array([False])) == np.inf
