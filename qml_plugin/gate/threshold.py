"""The confidence from which an entry is worth taking."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qml_plugin.errors import DataError
from qml_plugin.records import FloatArray

BoolArray = NDArray[np.bool_]


def break_even_confidence(r_multiple: FloatArray, is_win: BoolArray) -> float:
    """The P(win) at which the expected R of an entry is zero.

    Parameters
    ----------
    r_multiple : ndarray of shape (n_entries,), R
        Outcomes of past entries; finite.
    is_win : ndarray of shape (n_entries,), bool
        Which of them count as wins.

    Returns
    -------
    float, 0 < value < 1
        ``L / (W + L)`` with W the mean R of wins and L the mean R lost on losses. 0.5 where the past cannot tell:
        without a win or without a loss, or where wins did not gain or losses did not cost on average.

    Point in time
    -------------
    Reads all rows given: pass only entries resolved by now.

    Raises
    ------
    DataError
        If lengths differ or a value is not finite.
    """
    r_multiple = np.asarray(r_multiple, dtype=np.float64)
    is_win = np.asarray(is_win, dtype=np.bool_)
    if r_multiple.shape != is_win.shape or not np.isfinite(r_multiple).all():
        raise DataError(
            f"got {r_multiple.size} r_multiple, {np.count_nonzero(~np.isfinite(r_multiple))} of them not finite, and "
            f"{is_win.size} outcomes. Each entry needs both, finite; leave unresolved ones out."
        )
    if is_win.all() or not is_win.any():
        return 0.5
    gain, cost = float(r_multiple[is_win].mean()), float(-r_multiple[~is_win].mean())
    return cost / (gain + cost) if gain > 0 and cost > 0 else 0.5


def expected_r(confidence: FloatArray, r_multiple: FloatArray, is_win: BoolArray) -> FloatArray:
    """What past entries of these confidences were worth: half what they brought, half what was promised.

    Parameters
    ----------
    confidence : ndarray of shape (n_entries,), 0..1
        P(win) as given at the time.
    r_multiple : ndarray of shape (n_entries,), R
        What each brought, net of costs; finite.
    is_win : ndarray of shape (n_entries,), bool
        Which of them count as wins.

    Returns
    -------
    ndarray of shape (n_entries,), R
        Mean of the R brought and of the R that the confidence promised at the mean win and the mean loss. The promise
        steadies what few outcomes say; the outcomes correct a promise that does not come true. Only what was brought
        where there is no win or no loss.

    Point in time
    -------------
    Reads all rows given: pass only entries resolved by now.
    """
    if is_win.all() or not is_win.any():
        return r_multiple
    gain, cost = float(r_multiple[is_win].mean()), float(-r_multiple[~is_win].mean())
    return np.asarray((r_multiple + confidence * gain - (1 - confidence) * cost) / 2)


def best_threshold(confidence: FloatArray, worth_r: FloatArray, fallback: float) -> float:
    """The threshold that would have earned most if entries of a lower confidence had been skipped.

    Parameters
    ----------
    confidence : ndarray of shape (n_entries,), 0..1
        P(win) as given at the time.
    worth_r : ndarray of shape (n_entries,), R
        What each entry was worth, such as `expected_r` times its weight.
    fallback : float, 0..1
        What to use where no threshold would have earned anything, such as `break_even_confidence`.

    Returns
    -------
    float
        One of the confidences, the lowest of equals, or the fallback.

    Point in time
    -------------
    Reads all rows given: pass only entries resolved by now.
    """
    order = np.argsort(confidence, kind="stable")
    ascending = confidence[order]
    earned = np.cumsum(worth_r[order][::-1])[::-1]
    # Equal confidences are kept or skipped together: only the first of them is a threshold.
    earned = np.where(np.concatenate([[True], np.diff(ascending) > 0])[: len(earned)], earned, -np.inf)
    if not len(earned) or not earned.max() > 0:
        return fallback
    return float(ascending[np.argmax(earned)])
