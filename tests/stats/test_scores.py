import numpy as np
import pytest

from qml_plugin.errors import DataError
from qml_plugin.stats import (
    average_precision,
    calibration_error,
    calibration_error_interval,
    lift_curve,
    reliability,
)


def events(n=2000, seed=0, *, shift=0.0):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.2, 0.6, n)
    return truth + shift, rng.random(n) < truth


def test_calibration_error_by_hand():
    confidence, is_win = np.array([0.1, 0.3, 0.6, 0.8]), np.array([False, True, True, True])
    assert calibration_error(confidence, is_win, 2) == pytest.approx((abs(0.2 - 0.5) + abs(0.7 - 1.0)) / 2)
    assert calibration_error(confidence, is_win, 1) == pytest.approx(abs(0.45 - 0.75))


def test_perfect_confidences_err_no_more_than_the_floor():
    confidence, is_win = events()
    low, high, floor = calibration_error_interval(confidence, is_win, seed=1)
    assert floor == pytest.approx(calibration_error(confidence, is_win), abs=0.015)
    assert low < high
    shifted, is_win = events(shift=0.2)
    low, _, floor = calibration_error_interval(shifted, is_win, seed=1)
    assert low > 5 * floor


def test_reliability_holds_the_truth():
    confidence, is_win = events()
    bins = reliability(confidence, is_win)
    assert bins.n.sum() == 2000
    assert (np.diff(bins.confidence) > 0).all()
    assert np.mean((bins.low <= bins.confidence) & (bins.confidence <= bins.high)) >= 0.8
    np.testing.assert_allclose((bins.win_frac * bins.n).sum(), is_win.sum())
    assert len(reliability(confidence[:3], is_win[:3]).n) == 3


def test_lift_by_hand():
    curve = lift_curve(np.array([0.9, 0.5, 0.5, 0.1]), np.array([1, 1, 0, 0], bool), np.array([2.0, 1.0, -1.0, -1.0]))
    np.testing.assert_allclose(curve["kept_frac"], [0.25, 0.75, 1.0])
    np.testing.assert_allclose(curve["lift"], [2.0, 4 / 3, 1.0])
    np.testing.assert_allclose(curve["mean_r"], [2.0, 2 / 3, 0.25])
    np.testing.assert_allclose(curve["recall"], [0.5, 1.0, 1.0])


def test_average_precision_of_knowing_nothing_is_the_base_rate():
    _, is_win = events()
    assert average_precision(np.full(2000, 0.4), is_win) == pytest.approx(is_win.mean())
    assert average_precision(is_win.astype(float), is_win) == 1.0
    assert np.isnan(average_precision(np.full(3, 0.4), np.zeros(3, bool)))


def test_what_is_no_probability_is_refused():
    with pytest.raises(DataError, match=r"confidence 1 is 1\.5"):
        calibration_error(np.array([0.5, 1.5]), np.ones(2, bool))
    with pytest.raises(DataError, match="got 0 confidences and 0 outcomes"):
        reliability(np.empty(0), np.empty(0, bool))
