"""Compiled loops over trials. `tests/vrd/test_walk_forward.py` holds their slow twins."""

from __future__ import annotations

import numpy as np

from qml_plugin.compiling import kernel
from qml_plugin.records import FloatArray, IntArray


@kernel
def range_sums(
    returns: FloatArray, exposure: FloatArray, market: FloatArray, first: IntArray, end: IntArray, out: FloatArray
) -> None:
    """Adds to out[:, trial] the sums over bars first[trial]..end[trial] - 1 from which a Sharpe ratio of excess follows.

    Rows: return, its square, exposure, return * market, market, its square, bars with a position, bars.
    """
    for t in range(first.min(), end.max()):
        m = market[t]
        for j in range(returns.shape[1]):
            if first[j] <= t < end[j]:
                r, x = returns[t, j], exposure[t, j]
                out[0, j] += r
                out[1, j] += r * r
                out[2, j] += x
                out[3, j] += r * m
                out[4, j] += m
                out[5, j] += m * m
                out[6, j] += x != 0.0
                out[7, j] += 1.0


@kernel
def open_over(exposure: FloatArray, edge: int, first: IntArray, end: IntArray) -> None:
    """First bar, and the bar after the last, of the position that each trial carries over the edge; else the edge."""
    n = exposure.shape[0]
    for j in range(exposure.shape[1]):
        first[j] = end[j] = edge
        if 0 < edge < n:
            side = np.sign(exposure[edge, j])
            if side != 0.0 and side == np.sign(exposure[edge - 1, j]):
                while first[j] > 0 and np.sign(exposure[first[j] - 1, j]) == side:
                    first[j] -= 1
                while end[j] < n and np.sign(exposure[end[j], j]) == side:
                    end[j] += 1
