"""Momentum: normalised returns, place in the range, trend fits, efficiency and memory of returns."""

from __future__ import annotations

import numpy as np

from qml_plugin.features.catalogue import columns_of
from qml_plugin.features.compiled import kernel
from qml_plugin.features.kernels import FLAT, STILL, TIE, gap_to_mean, highest, lowest, over, sd, sign, total
from qml_plugin.features.series import SERIES
from qml_plugin.records import FloatArray, IntArray

PLACE, C = columns_of("mom")


@kernel
def fill(bars: FloatArray, series: FloatArray, rows: IntArray, age: int, out: FloatArray) -> None:
    """Features of this category at some bars; arguments as in `ctx.fill`."""
    high, low, close = bars[1], bars[2], bars[3]
    returns = series[SERIES.log_return]
    for i in range(len(rows)):
        t = rows[i]
        n = t + age  # bars before this one
        x = out[i, PLACE]
        x[:] = np.nan
        here = close[t]
        flat = FLAT * here
        path = series[SERIES.tsi_path_2, t]
        x[C.mom_tsi] = 100.0 * over(series[SERIES.tsi_move_2, t], path, STILL * here)
        if n >= 10:
            x[C.mom_er_10] = _efficiency(close, t, 10)
            x[C.mom_streak] = _streak(close, t)
        if n >= 19:
            x[C.mom_position_20] = over(here - lowest(low, t, 20), highest(high, t, 20) - lowest(low, t, 20), flat)
            x[C.mom_slope_20_norm], x[C.mom_r2_20] = _trend(returns, t, 20, series[SERIES.atr_frac, t])
        if n >= 20:
            x[C.mom_er_20] = series[SERIES.er_20, t]
            x[C.mom_acf1_20] = _autocorrelation(returns, t, 20)
            ups = 0
            for j in range(t - 19, t + 1):
                ups += close[j] > close[j - 1]
            x[C.mom_up_frac_20] = ups / 20.0
        if n >= 33:
            x[C.mom_ao_atr] = _awesome(high, low, t) / series[SERIES.atr, t]
        if n >= 49:
            x[C.mom_zscore_50] = over(gap_to_mean(close, t, 50), sd(close, t, 50, 0), flat)
            x[C.mom_slope_50_norm], x[C.mom_r2_50] = _trend(returns, t, 50, series[SERIES.atr_frac, t])
            _extremes_50(high, low, close, t, x)
        if n >= 50:
            x[C.mom_er_50] = _efficiency(close, t, 50)
            falls = 0
            for j in range(t - 49, t + 1):
                falls += (close[j] < close[j - 1]) - (close[j] > close[j - 1])
            x[C.mom_discreteness_50] = sign(here - close[t - 50], TIE * here) * falls / 50.0
        if n >= 99:
            x[C.mom_zscore_100] = over(gap_to_mean(close, t, 100), sd(close, t, 100, 0), flat)
            x[C.mom_slope_100_norm], _ = _trend(returns, t, 100, series[SERIES.atr_frac, t])
        if n >= 100:
            _normalised(series, close, t, x)
            x[C.mom_acf1_100] = _autocorrelation(returns, t, 100)
        if n >= 199:
            bottom = lowest(low, t, 200)
            x[C.mom_position_200] = over(here - bottom, highest(high, t, 200) - bottom, flat)


@kernel
def _normalised(series: FloatArray, close: FloatArray, t: int, x: FloatArray) -> None:
    """Returns over the sd of 100 of them; Moskowitz, Ooi and Pedersen (2012), eq. 1, with a window for their EWMA."""
    returns, logs = series[SERIES.log_return], series[SERIES.log_close]
    deviation = sd(returns, t, 100, 1)
    if not deviation > FLAT:
        return
    x[C.mom_return_1_norm] = returns[t] / deviation
    x[C.mom_return_5_norm] = (logs[t] - logs[t - 5]) / (deviation * np.sqrt(5.0))
    x[C.mom_return_10_norm] = (logs[t] - logs[t - 10]) / (deviation * np.sqrt(10.0))
    x[C.mom_return_20_norm] = (logs[t] - logs[t - 20]) / (deviation * np.sqrt(20.0))
    x[C.mom_return_50_norm] = (logs[t] - logs[t - 50]) / (deviation * np.sqrt(50.0))
    x[C.mom_return_100_norm] = (logs[t] - logs[t - 100]) / (deviation * 10.0)
    x[C.mom_accel_10] = (logs[t] - 2.0 * logs[t - 10] + logs[t - 20]) / (deviation * np.sqrt(20.0))
    x[C.mom_max_20_norm] = highest(returns, t, 20) / deviation
    x[C.mom_min_20_norm] = lowest(returns, t, 20) / deviation
    x[C.mom_overnight_20_norm] = total(series[SERIES.log_open_gap], t, 20) / (deviation * np.sqrt(20.0))


@kernel
def _efficiency(close: FloatArray, t: int, w: int) -> float:
    path = 0.0
    for j in range(t - w + 1, t + 1):
        path += abs(close[j] - close[j - 1])
    return over(abs(close[t] - close[t - w]), path, FLAT * close[t])


@kernel
def _streak(close: FloatArray, t: int) -> float:
    direction = np.sign(close[t] - close[t - 1])
    if direction == 0.0:
        return 0.0
    run = 1
    while run < 10 and np.sign(close[t - run] - close[t - run - 1]) == direction:
        run += 1
    return float(direction * run)


@kernel
def _trend(returns: FloatArray, t: int, w: int, atr_frac: float) -> tuple[float, float]:
    """Slope of the OLS line through the log closes, in ATR per window, and its R2.

    Log closes are taken relative to the last one, by summing returns backwards: no level, no cancellation.
    """
    middle = (w - 1) / 2.0
    y = 0.0
    y_sum = 0.0
    cross = 0.0
    square = 0.0
    for back in range(w):
        y_sum += y
        cross += (middle - back) * y
        square += y * y
        y -= returns[t - back] if back < w - 1 else 0.0
    x_var = w * (w * w - 1.0) / 12.0
    y_var = square - y_sum * y_sum / w
    r2 = min(1.0, cross * cross / (x_var * y_var)) if y_var > w * FLAT**2 else np.nan
    return over(cross / x_var * w, atr_frac, 0.0), r2


@kernel
def _autocorrelation(returns: FloatArray, t: int, w: int) -> float:
    """Lo and MacKinlay (1988), of which the variance ratio of 2 is one plus this."""
    mean = total(returns, t, w) / w
    square = (returns[t - w + 1] - mean) ** 2
    lagged = 0.0
    for j in range(t - w + 2, t + 1):
        square += (returns[j] - mean) ** 2
        lagged += (returns[j] - mean) * (returns[j - 1] - mean)
    return over(lagged, square, (w - 1) * FLAT**2)


@kernel
def _awesome(high: FloatArray, low: FloatArray, t: int) -> float:
    """SMA5 - SMA34 of the middles of the bars, which are taken from the last one, so that the level cancels."""
    top, bottom = high[t], low[t]
    fast = 0.0
    slow = 0.0
    for back in range(34):
        middle = ((high[t - back] - top) + (low[t - back] - bottom)) / 2.0
        slow += middle
        if back < 5:
            fast += middle
    return fast / 5.0 - slow / 34.0


@kernel
def _extremes_50(high: FloatArray, low: FloatArray, close: FloatArray, t: int, x: FloatArray) -> None:
    """Place between the extremes of 50 bars, and how long ago the last of each was."""
    top, bottom = highest(high, t, 50), lowest(low, t, 50)
    x[C.mom_position_50] = over(close[t] - bottom, top - bottom, FLAT * close[t])
    back = 0
    while high[t - back] < top:
        back += 1
    x[C.mom_since_high_50] = back / 50.0
    back = 0
    while low[t - back] > bottom:
        back += 1
    x[C.mom_since_low_50] = back / 50.0
