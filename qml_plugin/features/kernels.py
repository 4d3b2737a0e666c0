"""Recursions and window statistics shared by the categories.

Each value is computed from its own window, or by a recursion from the first bar on, never from running power sums,
so that a bar's value depends neither on later bars nor on an outlier that has left the window. Kernels do not call
kernels of other files: numba's cache notices changes of the file itself only.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from qml_plugin.records import FloatArray

FLAT = 1e-8
"""A spread of at most this share of the price is no movement: what divides by it has no value."""
STILL = 1e-6
"""The same for smoothed moves, such as ATR, which decay on flat prices until rounding is all that is left over them."""


@njit(cache=True)
def true_range(high: FloatArray, low: FloatArray, close: FloatArray) -> FloatArray:
    """True range per bar in price units; the first bar, which has no close before it, gives high - low.

    Parameters
    ----------
    high, low, close : ndarray of shape (n_bars,)
        Prices, oldest first.

    Returns
    -------
    ndarray of shape (n_bars,)
        In price units, never NaN.

    Point in time
    -------------
    Value t reads bars t-1 and t.
    """
    out = high - low
    for t in range(1, len(close)):
        out[t] = max(out[t], abs(high[t] - close[t - 1]), abs(low[t] - close[t - 1]))
    return out


@njit(cache=True)
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


@njit(cache=True)
def ema(values: FloatArray, span: int) -> FloatArray:
    """Exponential moving average with weight ``2 / (span + 1)``, seeded at the first value that is not NaN.

    Parameters
    ----------
    values : ndarray of shape (n,)
        Leading NaN are skipped; a NaN after that makes all later values NaN.
    span : int, bars
        At least 1.

    Returns
    -------
    ndarray of shape (n,)
        In the unit of `values`; NaN where `values` begins with NaN.

    Point in time
    -------------
    Value t reads values 0..t.
    """
    out = np.full(len(values), np.nan)
    alpha = 2.0 / (span + 1.0)
    start = 0
    while start < len(values) and np.isnan(values[start]):
        start += 1
    for t in range(start, len(values)):
        out[t] = values[t] if t == start else out[t - 1] + alpha * (values[t] - out[t - 1])
    return out


@njit(cache=True)
def log_returns(close: FloatArray) -> FloatArray:
    """Natural log returns, the first NaN; value t reads closes t-1 and t."""
    out = np.full(len(close), np.nan)
    for t in range(1, len(close)):
        out[t] = np.log(close[t] / close[t - 1])
    return out


@njit(cache=True)
def rsi(close: FloatArray, period: int) -> FloatArray:
    """Wilder's RSI, 0..100, seeded at zero on the first bar; NaN while the closes do not move.

    Parameters
    ----------
    close : ndarray of shape (n_bars,)
        Prices, oldest first.
    period : int, bars
        At least 1.

    Returns
    -------
    ndarray of shape (n_bars,)
        0..100; NaN where the smoothed gain and loss together are at most 1e-6 of the price.

    Point in time
    -------------
    Value t reads bars 0..t.

    References
    ----------
    Wilder (1978), New Concepts in Technical Trading Systems.
    """
    out = np.full(len(close), np.nan)
    gain = 0.0
    loss = 0.0
    for t in range(1, len(close)):
        change = close[t] - close[t - 1]
        gain = (gain * (period - 1) + max(change, 0.0)) / period
        loss = (loss * (period - 1) + max(-change, 0.0)) / period
        if gain + loss > STILL * close[t]:
            out[t] = 100.0 * gain / (gain + loss)
    return out


@njit(cache=True)
def directional_movement(high: FloatArray, low: FloatArray, close: FloatArray, period: int) -> FloatArray:
    """Rows ADX, +DI and -DI of Wilder's directional movement.

    Up and down moves closer to each other than 1e-9 of the price are a tie and count for neither side, so that
    rounding never decides. Sums are seeded by the mean over bars 1..period, ADX by the mean of the first `period` DX.

    Parameters
    ----------
    high, low, close : ndarray of shape (n_bars,)
        Prices, oldest first.
    period : int, bars
        At least 1.

    Returns
    -------
    ndarray of shape (3, n_bars)
        0..100; NaN before bar `period` (ADX: ``2 * period - 1``) and where the smoothed true range is at most 1e-6 of
        the price. Without directional movement DX counts as 0.

    Point in time
    -------------
    Value t reads bars 0..t.

    References
    ----------
    Wilder (1978), New Concepts in Technical Trading Systems.
    """
    n = len(close)
    out = np.full((3, n), np.nan)
    tr_mean = 0.0
    plus_mean = 0.0
    minus_mean = 0.0
    adx = 0.0
    for t in range(1, n):
        tr = max(high[t] - low[t], abs(high[t] - close[t - 1]), abs(low[t] - close[t - 1]))
        up = high[t] - high[t - 1]
        down = low[t - 1] - low[t]
        is_tie = abs(up - down) <= 1e-9 * close[t]
        plus = up if up > down and up > 0.0 and not is_tie else 0.0
        minus = down if down > up and down > 0.0 and not is_tie else 0.0
        seen = min(t, period)
        tr_mean += (tr - tr_mean) / seen
        plus_mean += (plus - plus_mean) / seen
        minus_mean += (minus - minus_mean) / seen
        if t < period:
            continue
        moved = plus_mean + minus_mean
        dx = 100.0 * abs(plus_mean - minus_mean) / moved if moved > 1e-12 * close[t] else 0.0
        adx += (dx - adx) / min(t - period + 1, period)
        if tr_mean > STILL * close[t]:
            out[1, t] = 100.0 * plus_mean / tr_mean
            out[2, t] = 100.0 * minus_mean / tr_mean
            if t >= 2 * period - 1:
                out[0, t] = adx
    return out


@njit(cache=True)
def mid_rank(values: FloatArray, window: int) -> FloatArray:
    """Share of the `window` values before t that lie below value t; equals, to 1e-9 relative, count half.

    Parameters
    ----------
    values : ndarray of shape (n,)
        Any unit.
    window : int
        Count of earlier values compared with.

    Returns
    -------
    ndarray of shape (n,)
        0..1; NaN where value t or one of the earlier ones is NaN or absent.

    Point in time
    -------------
    Value t reads values t-window..t.
    """
    out = np.full(len(values), np.nan)
    for t in range(window, len(values)):
        score = 0.0
        x = values[t]
        for j in range(t - window, t):
            gap = x - values[j]
            if np.isnan(gap):
                score = np.nan
                break
            if abs(gap) <= 1e-9 * abs(x):
                score += 0.5
            elif gap > 0.0:
                score += 1.0
        out[t] = score / window
    return out


def ratio(above: FloatArray, below: FloatArray, floor: FloatArray | float = 0.0) -> FloatArray:
    """``above / below`` where `below` exceeds `floor`, else NaN."""
    out: FloatArray = np.divide(above, below, out=np.full(len(above), np.nan), where=below > floor)
    return out
