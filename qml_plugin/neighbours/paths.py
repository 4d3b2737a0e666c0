"""Prices around entries, aligned at the decision and in ATR of that moment, so that all markets can be laid on one another."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from qml_plugin.bars import Bars
from qml_plugin.features.kernels import wilder_atr
from qml_plugin.records import FloatArray, IntArray
from qml_plugin.report.views import PathView

QUANTILES = (0.10, 0.25, 0.50, 0.75, 0.90)
N_BEFORE = 30
N_AFTER = 50
_FEWEST_PATHS = 3
_ATR_BARS = 14


def aligned_path(bars: Bars, bar: int, side: int, *, as_of: int, resolved_at: int | None = None) -> PathView | None:
    """Closes from 30 bars before a decision to 50 after it, as far as they were known.

    Parameters
    ----------
    bars : Bars
    bar : int
        The decision bar.
    side : {+1, -1}
    as_of : int, UTC microseconds
        Bars that closed later are left out.
    resolved_at : int, UTC microseconds, optional
        When the outcome became known.

    Returns
    -------
    PathView or None
        None where the decision bar was not closed, or the market had not moved at all, so that there is no unit.

    Point in time
    -------------
    Reads bars with ``known_at <= as_of`` only. What came after the decision is for a person's eye.
    """
    end = int(np.searchsorted(bars.known_at, as_of, side="right"))
    if bar >= end:
        return None
    low, high, close = bars.low[: bar + 1], bars.high[: bar + 1], bars.close
    atr_px = float(wilder_atr(high, low, close[: bar + 1], _ATR_BARS)[bar])
    if not math.isfinite(atr_px):
        atr_px = float(np.mean(high - low))  # as the label rule does while the average warms up
    if not atr_px > 0:
        return None
    first, last = max(0, bar - N_BEFORE), min(bar + 1 + N_AFTER, end)
    exit_bar = None
    if resolved_at is not None:
        found = int(np.searchsorted(bars.known_at[:end], resolved_at))
        is_inside = bar < found < last and bars.known_at[found] == resolved_at
        exit_bar = found - bar if is_inside else None
    return PathView(first - bar, side * (close[first:last] - close[bar]) / atr_px, exit_bar)


def fan_of(paths: Sequence[PathView]) -> tuple[FloatArray, IntArray]:
    """Quantiles of the paths at each bar after the decision, and of how many paths they are.

    Parameters
    ----------
    paths : sequence of PathView

    Returns
    -------
    fan : ndarray of shape (5, n_bars), ATR
        Rows as in `QUANTILES`, from bar 0 on; NaN where fewer than 3 paths reach. No bars where fewer than 3 paths are.
    n_paths : ndarray of shape (n_bars,)
    """
    after = [path.after for path in paths]
    n_bars = max(map(len, after), default=0) if len(paths) >= _FEWEST_PATHS else 0
    fan, n_paths = np.full((len(QUANTILES), n_bars), np.nan), np.zeros(n_bars, np.int64)
    for bar in range(n_bars):
        moves = [float(path[bar]) for path in after if bar < len(path)]
        n_paths[bar] = len(moves)
        if len(moves) >= _FEWEST_PATHS:
            fan[:, bar] = np.quantile(moves, QUANTILES)
    return fan, n_paths
