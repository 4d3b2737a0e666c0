"""Statistics of the window that ends at bar t, shared by the categories, and Wilder's average true range.

Each value is computed from its own window, never from running power sums, so that it depends neither on later bars nor
on an outlier that has left the window, and is the same however the bars are fed. A window of w bars is t-w+1..t,
taken as a view from 0 on, in which the compiler need not think of negative places.
"""

from __future__ import annotations

import numpy as np

from qml_plugin.features.compiled import kernel
from qml_plugin.records import FloatArray

FLAT = 1e-8
"""A spread of at most this share of the price is no movement: what divides by it has no value."""
STILL = 1e-6
"""The same for smoothed moves, such as ATR, which decay on flat prices until rounding is all that is left over them."""
TIE = 1e-9
"""Differences of at most this share of the price are rounding, so that the unit of prices never decides."""


@kernel
def wilder_atr(high: FloatArray, low: FloatArray, close: FloatArray, period: int) -> FloatArray:
    """Wilder's average true range, seeded by the mean of the first `period` true ranges.

    Parameters
    ----------
    high, low, close : ndarray of shape (n_bars,)
        Prices, oldest first.
    period : int, bars
        At least 1.

    Returns
    -------
    ndarray of shape (n_bars,)
        In price units; NaN before bar ``period - 1``.

    Point in time
    -------------
    Value t reads bars 0..t.

    References
    ----------
    Wilder (1978), New Concepts in Technical Trading Systems.
    """
    n = len(close)
    out = np.full(n, np.nan)
    total = 0.0
    for t in range(n):
        tr = high[t] - low[t]
        if t > 0:
            tr = max(tr, abs(high[t] - close[t - 1]), abs(low[t] - close[t - 1]))
        if t < period:
            total += tr
            if t == period - 1:
                out[t] = total / period
        else:
            out[t] = (out[t - 1] * (period - 1) + tr) / period
    return out


@kernel
def over(above: float, below: float, floor: float) -> float:
    """``above / below`` where `below` exceeds `floor`, else NaN."""
    return above / below if below > floor else np.nan


@kernel
def total(values: FloatArray, t: int, w: int) -> float:
    """Sum over the window."""
    window = values[t - w + 1 : t + 1]
    out = 0.0
    for j in range(w):
        out += window[j]
    return out


@kernel
def gap_to_mean(values: FloatArray, t: int, w: int) -> float:
    """Value t less the mean of the window, summed as differences, so that the level cancels."""
    window = values[t - w + 1 : t + 1]
    here = values[t]
    out = 0.0
    for j in range(w):
        out += here - window[j]
    return out / w


@kernel
def sd(values: FloatArray, t: int, w: int, ddof: int) -> float:
    """Standard deviation over the window."""
    window = values[t - w + 1 : t + 1]
    here = values[t]
    gap = gap_to_mean(values, t, w)
    square = 0.0
    for j in range(w):
        square += (window[j] - here + gap) ** 2
    return float(np.sqrt(square / (w - ddof)))


@kernel
def highest(values: FloatArray, t: int, w: int) -> float:
    """Largest value of the window; NaN in it are passed over, unless value t is."""
    window = values[t - w + 1 : t + 1]
    # four chains of comparisons, which the processor follows side by side
    a = b = c = d = values[t]
    fours = w // 4 * 4
    for j in range(0, fours, 4):
        a = window[j] if window[j] > a else a
        b = window[j + 1] if window[j + 1] > b else b
        c = window[j + 2] if window[j + 2] > c else c
        d = window[j + 3] if window[j + 3] > d else d
    for j in range(fours, w):
        a = window[j] if window[j] > a else a
    return float(max(max(a, b), max(c, d)))


@kernel
def lowest(values: FloatArray, t: int, w: int) -> float:
    """Smallest value of the window; NaN in it are passed over, unless value t is."""
    window = values[t - w + 1 : t + 1]
    a = b = c = d = values[t]
    fours = w // 4 * 4
    for j in range(0, fours, 4):
        a = window[j] if window[j] < a else a
        b = window[j + 1] if window[j + 1] < b else b
        c = window[j + 2] if window[j + 2] < c else c
        d = window[j + 3] if window[j + 3] < d else d
    for j in range(fours, w):
        a = window[j] if window[j] < a else a
    return float(min(min(a, b), min(c, d)))


@kernel
def mid_rank(values: FloatArray, t: int, w: int, tie: float) -> float:
    """Share of the `w` values before t below value t, those within `tie` counting half; NaN if one of them is."""
    window = values[t - w : t]
    x = values[t]
    twice_below = 0
    n_nan = 0
    for j in range(w):
        gap = x - window[j]
        twice_below += (gap > tie) + (gap >= -tie)
        n_nan += gap != gap
    return np.nan if n_nan else 0.5 * twice_below / w


@kernel
def sign(value: float, tie: float) -> float:
    """-1, 0 or 1; 0 within `tie` of zero."""
    return float((value > tie) - (value < -tie))
