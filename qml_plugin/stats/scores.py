"""How good probabilities are: calibration error with an interval, reliability, lift, precision and recall."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qml_plugin.errors import DataError
from qml_plugin.records import FloatArray, IntArray

BoolArray = NDArray[np.bool_]

_N_BINS = 10


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """Bins of nearly equal number, lowest confidence first: arrays of shape (n_bins,).

    ``confidence`` and ``win_frac`` are means within a bin; ``low`` and ``high`` the 90 % Wilson interval of the share.
    """

    confidence: FloatArray
    win_frac: FloatArray
    low: FloatArray
    high: FloatArray
    n: IntArray


def reliability(confidence: FloatArray, is_win: BoolArray, n_bins: int = _N_BINS) -> Reliability:
    """What was said against what came true, bin by bin.

    Parameters
    ----------
    confidence : ndarray of shape (n_events,), 0..1
        P(win) as given beforehand.
    is_win : ndarray of shape (n_events,), bool
        Outcomes.
    n_bins : int, >= 1, default=10

    Returns
    -------
    Reliability
        Fewer bins where there are fewer events.

    Point in time
    -------------
    Reads all rows given: it describes a finished run.

    Raises
    ------
    DataError
        If there are no events, lengths differ, or a confidence is no probability.

    References
    ----------
    Wilson (1927), Probable inference, the law of succession, and statistical inference, JASA 22(158).
    """
    confidence, is_win = _columns(confidence, is_win)
    bins = _bins(confidence, n_bins)
    n = np.array([len(rows) for rows in bins], dtype=np.int64)
    share = np.array([is_win[rows].mean() for rows in bins])
    z = 1.6448536269514722
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    margin = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return Reliability(np.array([confidence[rows].mean() for rows in bins]), share, centre - margin, centre + margin, n)


def calibration_error(confidence: FloatArray, is_win: BoolArray, n_bins: int = _N_BINS) -> float:
    """Expected calibration error: mean distance of confidence from share of wins over bins of nearly equal number.

    Parameters
    ----------
    confidence, is_win, n_bins
        As for `reliability`.

    Returns
    -------
    float, 0..1
        Biased upwards where there are few events: perfect confidences of 200 events give some 0.1.

    Point in time
    -------------
    Reads all rows given: it describes a finished run.

    Raises
    ------
    DataError
        As `reliability`.

    References
    ----------
    Naeini, Cooper & Hauskrecht (2015), Obtaining well calibrated probabilities using Bayesian binning, §4; differs in:
    bins of equal number, after Nixon et al. (2019), Measuring calibration in deep learning.
    """
    confidence, is_win = _columns(confidence, is_win)
    return _error(confidence, is_win, n_bins)


def calibration_error_interval(
    confidence: FloatArray, is_win: BoolArray, n_bins: int = _N_BINS, *, seed: int, n_resamples: int = 500
) -> tuple[float, float, float]:
    """The calibration error with a 90 % bootstrap interval, and what perfect confidences would show here.

    Parameters
    ----------
    confidence, is_win, n_bins
        As for `reliability`.
    seed : int
    n_resamples : int, default=500

    Returns
    -------
    (low, high, floor) : floats, 0..1
        ``low`` and ``high`` are the 5 % and 95 % quantiles over resamples of the events. ``floor`` is the mean error
        of outcomes drawn from the confidences themselves: an error no larger than it is no error.

    Point in time
    -------------
    Reads all rows given: it describes a finished run.

    Raises
    ------
    DataError
        As `reliability`.
    """
    confidence, is_win = _columns(confidence, is_win)
    rng = np.random.default_rng(seed)
    n = len(confidence)
    resampled, perfect = [], []
    for _ in range(n_resamples):
        rows = rng.integers(n, size=n)
        resampled.append(_error(confidence[rows], is_win[rows], n_bins))
        perfect.append(_error(confidence, rng.random(n) < confidence, n_bins))
    low, high = np.quantile(resampled, [0.05, 0.95])
    return float(low), float(high), float(np.mean(perfect))


def lift_curve(confidence: FloatArray, is_win: BoolArray, r_multiple: FloatArray) -> dict[str, FloatArray]:
    """Wins and R of the entries of highest confidence, for every share of them kept.

    Parameters
    ----------
    confidence, is_win
        As for `reliability`.
    r_multiple : ndarray of shape (n_events,), R
        Outcomes.

    Returns
    -------
    dict of ndarrays of shape (n_distinct,)
        ``kept_frac`` rising to 1 (entries of equal confidence are kept together), ``lift`` (share of wins among the
        kept over that of all; NaN where nothing won), ``mean_r`` of the kept, and ``recall`` (share of all wins kept).

    Point in time
    -------------
    Reads all rows given: it describes a finished run.

    Raises
    ------
    DataError
        As `reliability`.
    """
    confidence, is_win = _columns(confidence, is_win)
    order = np.argsort(-confidence, kind="stable")
    n_kept = np.flatnonzero(np.append(np.diff(-confidence[order]) > 0, True)) + 1
    wins = np.cumsum(is_win[order])[n_kept - 1]
    with np.errstate(invalid="ignore"):
        return {
            "kept_frac": n_kept / len(confidence),
            "lift": wins / n_kept / np.mean(is_win),
            "mean_r": np.cumsum(np.asarray(r_multiple, dtype=np.float64)[order])[n_kept - 1] / n_kept,
            "recall": wins / is_win.sum(),
        }


def average_precision(confidence: FloatArray, is_win: BoolArray) -> float:
    """Area under the precision-recall curve; that of confidences that know nothing is the base rate.

    Parameters
    ----------
    confidence, is_win
        As for `reliability`.

    Returns
    -------
    float, 0..1
        NaN where nothing won.

    Point in time
    -------------
    Reads all rows given: it describes a finished run.

    Raises
    ------
    DataError
        As `reliability`.
    """
    confidence, is_win = _columns(confidence, is_win)
    if not is_win.any():
        return float("nan")
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(is_win, confidence))


def _error(confidence: FloatArray, is_win: BoolArray, n_bins: int) -> float:
    return float(
        sum(len(rows) * abs(confidence[rows].mean() - is_win[rows].mean()) for rows in _bins(confidence, n_bins))
        / len(confidence)
    )


def _bins(confidence: FloatArray, n_bins: int) -> list[IntArray]:
    """Rows of each bin of nearly equal number, lowest first."""
    return list(np.array_split(np.argsort(confidence, kind="stable"), min(max(n_bins, 1), len(confidence))))


def _columns(confidence: FloatArray, is_win: BoolArray) -> tuple[FloatArray, BoolArray]:
    confidence, is_win = np.asarray(confidence, dtype=np.float64), np.asarray(is_win, dtype=np.bool_)
    if not len(confidence) or confidence.shape != is_win.shape:
        raise DataError(f"got {len(confidence)} confidences and {len(is_win)} outcomes. Each event needs both.")
    bad = np.flatnonzero(~((confidence >= 0) & (confidence <= 1)))
    if len(bad):
        raise DataError(f"confidence {bad[0]} is {confidence[bad[0]]}. It is a probability; leave unscored events out.")
    return confidence, is_win
