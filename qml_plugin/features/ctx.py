"""Context of the bar: distance from averages, bands, oscillators and the shape of the candle."""

from __future__ import annotations

import numpy as np

from qml_plugin.features.catalogue import columns_of
from qml_plugin.features.compiled import kernel
from qml_plugin.features.kernels import FLAT, STILL, TIE, gap_to_mean, highest, lowest, over, sd, total
from qml_plugin.features.series import SERIES
from qml_plugin.records import FloatArray, IntArray

PLACE, C = columns_of("ctx")


@kernel
def fill(bars: FloatArray, series: FloatArray, rows: IntArray, age: int, out: FloatArray) -> None:
    """Features of this category at some bars.

    Parameters
    ----------
    bars : ndarray of shape (5, n)
    series : ndarray of shape (n_series, n)
    rows : ndarray of shape (n_rows,)
        Bars wanted.
    age : int
        Bars that came before column 0.
    out : ndarray of shape (n_rows, n_features)
        Rows of all features; this category's columns are written, all of them.

    Point in time
    -------------
    Row i reads columns up to ``rows[i]``.
    """
    high, low, close = bars[1], bars[2], bars[3]
    for i in range(len(rows)):
        t = rows[i]
        n = t + age  # bars before this one
        x = out[i, PLACE]
        x[:] = np.nan
        here = close[t]
        atr = series[SERIES.atr, t]
        _candle(bars, series, t, n, x)
        x[C.ctx_atr_14_pct] = 100.0 * series[SERIES.wilder_14, t] / here
        x[C.ctx_rsi_7] = series[SERIES.rsi_7, t]
        x[C.ctx_rsi_14] = series[SERIES.rsi_14, t]
        x[C.ctx_dist_ema_5_atr] = (here - series[SERIES.ema_5, t]) / atr
        x[C.ctx_dist_ema_10_atr] = (here - series[SERIES.ema_10, t]) / atr
        x[C.ctx_dist_ema_20_atr] = (here - series[SERIES.ema_20, t]) / atr
        x[C.ctx_dist_ema_50_atr] = (here - series[SERIES.ema_50, t]) / atr
        x[C.ctx_dist_ema_100_atr] = (here - series[SERIES.ema_100, t]) / atr
        x[C.ctx_dist_ema_200_atr] = (here - series[SERIES.ema_200, t]) / atr
        x[C.ctx_kama_dist_10_atr] = (here - series[SERIES.kama, t]) / atr
        x[C.ctx_macd_line_atr] = series[SERIES.macd, t] / atr
        x[C.ctx_macd_signal_atr] = series[SERIES.macd_signal, t] / atr
        x[C.ctx_macd_hist_atr] = (series[SERIES.macd, t] - series[SERIES.macd_signal, t]) / atr
        x[C.ctx_adx_14] = series[SERIES.adx, t]
        x[C.ctx_di_plus_14] = series[SERIES.di_plus, t]
        x[C.ctx_di_minus_14] = series[SERIES.di_minus, t]
        x[C.ctx_keltner_pos_20] = over(here - series[SERIES.ema_20, t], 2.0 * series[SERIES.wilder_10, t], STILL * here)
        if n >= 5:
            x[C.ctx_slope_ema_20_atr] = (series[SERIES.ema_20, t] - series[SERIES.ema_20, t - 5]) / (5.0 * atr)
            x[C.ctx_slope_ema_50_atr] = (series[SERIES.ema_50, t] - series[SERIES.ema_50, t - 5]) / (5.0 * atr)
        if n >= 19:
            _bands(bars, series, t, x)
        if n >= 13:
            bottom = lowest(low, t, 14)
            x[C.ctx_stoch_k_14] = 100.0 * over(here - bottom, highest(high, t, 14) - bottom, FLAT * here)
            top_rsi, bottom_rsi = highest(series[SERIES.rsi_14], t, 14), lowest(series[SERIES.rsi_14], t, 14)
            x[C.ctx_stochrsi_14] = over(series[SERIES.rsi_14, t] - bottom_rsi, top_rsi - bottom_rsi, 1e-6)
        if n >= 14:
            up = 0.0
            down = 0.0
            for j in range(t - 13, t + 1):
                up += abs(high[j] - low[j - 1])
                down += abs(low[j] - high[j - 1])
            x[C.ctx_vortex_diff_14] = over(up - down, total(series[SERIES.true_range], t, 14), FLAT * here)
        if n >= 24:
            x[C.ctx_slope_sma_20_atr] = _sma_step(close, t, 20) / (5.0 * atr)
        if n >= 25:
            x[C.ctx_aroon_osc_25] = _aroon(high, low, t)
            x[C.ctx_ichi_tk_diff_atr] = (_middle(high, low, t, 9) - _middle(high, low, t, 26)) / atr
        if n >= 28:
            x[C.ctx_ultosc] = _ultimate(low, close, series[SERIES.true_range], t)
        if n >= 49:
            x[C.ctx_dist_sma_50_atr] = gap_to_mean(close, t, 50) / atr
            x[C.ctx_psar_dist_atr] = (here - _parabolic(high, low, close, t)) / atr
        if n >= 54:
            x[C.ctx_slope_sma_50_atr] = _sma_step(close, t, 50) / (5.0 * atr)
        if n >= 77:
            x[C.ctx_ichi_cloud_dist_atr] = _cloud_gap(high, low, close, t) / atr
        if n >= 99:
            x[C.ctx_dist_sma_100_atr] = gap_to_mean(close, t, 100) / atr
        if n >= 199:
            x[C.ctx_dist_sma_200_atr] = gap_to_mean(close, t, 200) / atr
        if n >= 204:
            x[C.ctx_slope_sma_200_atr] = _sma_step(close, t, 200) / (5.0 * atr)


@kernel
def _candle(bars: FloatArray, series: FloatArray, t: int, n: int, x: FloatArray) -> None:
    open_, high, low, close = bars[0], bars[1], bars[2], bars[3]
    floor = FLAT * close[t]
    spread = high[t] - low[t]
    x[C.ctx_candle_body_frac] = over(close[t] - open_[t], spread, floor)
    x[C.ctx_candle_upper_frac] = over(high[t] - max(open_[t], close[t]), spread, floor)
    x[C.ctx_candle_lower_frac] = over(min(open_[t], close[t]) - low[t], spread, floor)
    x[C.ctx_close_loc_bar] = over(close[t] - low[t], spread, floor)
    x[C.ctx_range_bar] = series[SERIES.true_range, t] / series[SERIES.atr, t]
    if n >= 1:
        x[C.ctx_gap_bar] = (open_[t] - close[t - 1]) / series[SERIES.atr, t]
    if n >= 4:
        place = 0.0
        n_moved = 0.0
        for j in range(t - 4, t + 1):
            if high[j] - low[j] > FLAT * close[j]:
                place += (close[j] - low[j]) / (high[j] - low[j])
                n_moved += 1.0
        x[C.ctx_close_loc_5] = over(place, n_moved, 0.0)


@kernel
def _bands(bars: FloatArray, series: FloatArray, t: int, x: FloatArray) -> None:
    """Bollinger bands, the squeeze and CCI, all over 20 bars."""
    high, low, close = bars[1], bars[2], bars[3]
    here = close[t]
    floor = FLAT * here
    gap = gap_to_mean(close, t, 20)
    deviation = sd(close, t, 20, 0)
    x[C.ctx_dist_sma_20_atr] = gap / series[SERIES.atr, t]
    x[C.ctx_bb_20_pctb] = 0.5 + over(gap, 4.0 * deviation, 4.0 * floor)
    x[C.ctx_bb_20_width] = series[SERIES.bb_width, t]
    x[C.ctx_squeeze_20] = over(deviation, series[SERIES.wilder_10, t], STILL * here)
    # typical prices are taken as differences from the close of t, so that the level cancels exactly
    mean = 0.0
    for j in range(t - 19, t + 1):
        mean += ((high[j] - here) + (low[j] - here) + (close[j] - here)) / 60.0
    spread = 0.0
    for j in range(t - 19, t + 1):
        spread += abs(((high[j] - here) + (low[j] - here) + (close[j] - here)) / 3.0 - mean) / 20.0
    x[C.ctx_cci_20] = over(((high[t] - here) + (low[t] - here)) / 3.0 - mean, 0.015 * spread, 0.015 * floor)


@kernel
def _sma_step(close: FloatArray, t: int, w: int) -> float:
    """SMA(w) less the SMA(w) of five bars ago."""
    out = 0.0
    for j in range(t - 4, t + 1):
        out += close[j] - close[j - w]
    return out / w


@kernel
def _middle(high: FloatArray, low: FloatArray, t: int, w: int) -> float:
    return float((highest(high, t, w) + lowest(low, t, w)) / 2.0)


@kernel
def _cloud_gap(high: FloatArray, low: FloatArray, close: FloatArray, t: int) -> float:
    """Close above (+) or below (-) the Ichimoku cloud that was drawn 26 bars ago for this bar; 0 inside."""
    then = t - 26
    lead = (_middle(high, low, then, 9) + _middle(high, low, then, 26)) / 2.0
    base = _middle(high, low, then, 52)
    return float(max(close[t] - max(lead, base), 0.0) + min(close[t] - min(lead, base), 0.0))


@kernel
def _aroon(high: FloatArray, low: FloatArray, t: int) -> float:
    at_top = t - 25
    at_bottom = t - 25
    for j in range(t - 24, t + 1):
        if high[j] >= high[at_top]:
            at_top = j
        if low[j] <= low[at_bottom]:
            at_bottom = j
    return 4.0 * (at_top - at_bottom)


@kernel
def _ultimate(low: FloatArray, close: FloatArray, true_range: FloatArray, t: int) -> float:
    pressure = 0.0
    path = 0.0
    out = 0.0
    for back in range(28):
        j = t - back
        pressure += close[j] - min(low[j], close[j - 1])
        path += true_range[j]
        if back == 6:
            out += 4.0 * over(pressure, path, FLAT * close[t])
        elif back == 13:
            out += 2.0 * over(pressure, path, FLAT * close[t])
    return float(100.0 * (out + over(pressure, path, FLAT * close[t])) / 7.0)


@kernel
def _parabolic(high: FloatArray, low: FloatArray, close: FloatArray, t: int) -> float:
    """Parabolic SAR of bar t, started 49 bars before in the direction of the first step. Wilder (1978), section II."""
    first = t - 49
    is_long = high[first + 1] + low[first + 1] >= high[first] + low[first] - TIE * close[t]
    stop = low[first] if is_long else high[first]
    extreme = high[first] if is_long else low[first]
    pace = 0.02
    for j in range(first + 1, t + 1):
        stop += pace * (extreme - stop)
        if is_long:
            stop = min(stop, low[j - 1], low[max(j - 2, first)])
            is_turned = low[j] < stop - TIE * close[t]
        else:
            stop = max(stop, high[j - 1], high[max(j - 2, first)])
            is_turned = high[j] > stop + TIE * close[t]
        if is_turned:
            is_long = not is_long
            stop = extreme
            extreme = high[j] if is_long else low[j]
            pace = 0.02
        elif is_long and high[j] > extreme + TIE * close[t]:
            extreme = high[j]
            pace = min(pace + 0.02, 0.2)
        elif not is_long and low[j] < extreme - TIE * close[t]:
            extreme = low[j]
            pace = min(pace + 0.02, 0.2)
    return float(stop)
