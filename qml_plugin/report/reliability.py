"""How often confidences came true, in bins of equal count."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qml_plugin.errors import DataError
from qml_plugin.records import FloatArray
from qml_plugin.stats.inference import wilson_interval

FEWEST_SCORES = 20
_MOST_BINS = 10
_FEWEST_PER_BIN = 10


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Entries of similar confidence: the mean confidence, the share that won, its 95 % interval and how many."""

    confidence: float
    win_share: float
    low: float
    high: float
    n: int


def reliability_bins(confidence: FloatArray, is_win: NDArray[np.bool_]) -> tuple[ReliabilityBin, ...]:
    """Bins of a reliability curve, lowest confidence first.

    Parameters
    ----------
    confidence : ndarray of shape (n_scores,), 0..1
        P(win) as given before the outcome; rows that are not finite are left out.
    is_win : ndarray of shape (n_scores,), bool
        Outcomes.

    Returns
    -------
    tuple of ReliabilityBin
        Of equal count as far as possible: ten of them, or fewer so that each holds at least ten scores. Equal
        confidences always share a bin. Empty below 20 scores, where a curve would say nothing.

    Point in time
    -------------
    Reads all rows given: a look back on scores whose outcomes are known.

    Raises
    ------
    DataError
        If the lengths differ.

    References
    ----------
    Wilson (1927), Probable inference, the law of succession, and statistical inference, JASA 22(158): the score
    interval, at 95 %.
    """
    if np.shape(confidence) != np.shape(is_win):
        raise DataError(
            f"got {np.size(confidence)} confidences and {np.size(is_win)} outcomes. Each score needs its outcome."
        )
    is_known = np.isfinite(confidence)
    order = np.argsort(confidence[is_known], kind="stable")
    ranked, won = confidence[is_known][order], is_win[is_known][order]
    if len(ranked) < FEWEST_SCORES:
        return ()
    n_bins = min(_MOST_BINS, len(ranked) // _FEWEST_PER_BIN)
    cuts = [round(len(ranked) * k / n_bins) for k in range(1, n_bins)]
    ends = sorted({int(np.searchsorted(ranked, ranked[cut - 1], side="right")) for cut in cuts} | {len(ranked)})
    starts = [0, *ends[:-1]]
    return tuple(_bin(ranked[a:b], won[a:b]) for a, b in zip(starts, ends, strict=True))


def _bin(confidence: FloatArray, is_win: NDArray[np.bool_]) -> ReliabilityBin:
    n_wins, n = int(is_win.sum()), len(is_win)
    low, high = wilson_interval(n_wins, n)
    return ReliabilityBin(float(confidence.mean()), n_wins / n, low, high, n)
