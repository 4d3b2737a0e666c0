"""Volume relative to its own past; NaN throughout where the market reports none."""

from __future__ import annotations

import numpy as np

from qml_plugin.features.catalogue import CATALOGUE, columns_of
from qml_plugin.features.compiled import kernel
from qml_plugin.features.kernels import FLAT, TIE, mid_rank, over, sign, total
from qml_plugin.features.series import SERIES
from qml_plugin.records import FloatArray, IntArray

PLACE, C = columns_of("vol_relative")
_PVO_WARMUP = CATALOGUE["vol_relative_pvo_line"].warmup


@kernel
def fill(bars: FloatArray, series: FloatArray, rows: IntArray, age: int, out: FloatArray) -> None:
    """Features of this category at some bars; arguments as in `ctx.fill`."""
    close, volume = bars[3], bars[4]
    log_volume = series[SERIES.log_volume]
    for i in range(len(rows)):
        t = rows[i]
        n = t + age  # bars before this one
        x = out[i, PLACE]
        x[:] = np.nan
        atr = series[SERIES.atr, t]
        if series[SERIES.volume_age, t] >= _PVO_WARMUP:  # a missing volume begins the averages anew
            x[C.vol_relative_pvo_line] = series[SERIES.pvo, t]
            x[C.vol_relative_pvo_hist] = series[SERIES.pvo, t] - series[SERIES.pvo_signal, t]
        if n >= 9:
            x[C.vol_relative_10] = over(volume[t], total(volume, t, 10) / 10.0, 0.0)
        if n >= 14:
            x[C.vol_relative_mfi_14] = _money_flow_index(bars, t)
        if n >= 19:
            total_20 = total(volume, t, 20)
            _shares_of_20(bars, t, total_20, x)
            x[C.vol_relative_z_20] = _log_score(log_volume, t, 20)
            x[C.vol_relative_vwap_dist_20_atr] = _gap_to_vwap(bars, t, 20, total_20) / atr
            if n >= 20:
                x[C.vol_relative_obv_slope_20] = over(_signed_volume(close, volume, t, 20), total_20, 0.0)
                _correlations(series[SERIES.log_return], volume, t, total_20 / 20.0, x)
        if n >= 49:
            total_50 = total(volume, t, 50)
            x[C.vol_relative_50] = over(volume[t], total_50 / 50.0, 0.0)
            x[C.vol_relative_vwap_dist_50_atr] = _gap_to_vwap(bars, t, 50, total_50) / atr
            if n >= 50:
                x[C.vol_relative_obv_slope_50] = over(_signed_volume(close, volume, t, 50), total_50, 0.0)
        if n >= 99:
            x[C.vol_relative_z_100] = _log_score(log_volume, t, 100)
        if n >= 100:
            x[C.vol_relative_pctile_100] = mid_rank(volume, t, 100, TIE * volume[t])
        if n >= 120:
            amihud = series[SERIES.amihud_20]
            x[C.vol_relative_amihud_pctile_100] = mid_rank(amihud, t, 100, TIE * amihud[t])


@kernel
def _shares_of_20(bars: FloatArray, t: int, traded: float, x: FloatArray) -> None:
    """What 20 bars say as shares of their volume, `traded`."""
    high, low, close, volume = bars[1], bars[2], bars[3], bars[4]
    if not traded > 0.0:
        return
    x[C.vol_relative_20] = volume[t] / (traded / 20.0)
    x[C.vol_relative_trend_5_20] = 4.0 * total(volume, t, 5) / traded
    accumulated = 0.0
    rise = 0.0
    uneven = 0.0
    for j in range(t - 19, t + 1):
        share = volume[j] / traded
        spread = high[j] - low[j]
        place = ((close[j] - low[j]) - (high[j] - close[j])) / spread if spread > FLAT * close[j] else 0.0
        accumulated += place * share
        rise += (j - t + 9.5) * share
        uneven += (share - 0.05) * (share - 0.05)
    x[C.vol_relative_cmf_20] = accumulated
    x[C.vol_relative_slope_20] = 20.0 * 20.0 * rise / 665.0  # 665 = sum of the squared distances from the middle bar
    x[C.vol_relative_hhi_20] = uneven / 0.95  # the sum of squared shares less 1/20 is that of squared gaps from 1/20


@kernel
def _log_score(log_volume: FloatArray, t: int, w: int) -> float:
    """Z-score of the log volume among the bars of the window that traded."""
    here = log_volume[t]
    if np.isnan(here):
        return np.nan
    gap = 0.0
    n_traded = 0
    for j in range(t - w + 1, t + 1):
        if not np.isnan(log_volume[j]):
            gap += here - log_volume[j]
            n_traded += 1
    gap /= n_traded
    square = 0.0
    for j in range(t - w + 1, t + 1):
        if not np.isnan(log_volume[j]):
            square += (log_volume[j] - here + gap) ** 2
    return float(over(gap, np.sqrt(square / n_traded), FLAT))


@kernel
def _money_flow_index(bars: FloatArray, t: int) -> float:
    high, low, close, volume = bars[1], bars[2], bars[3], bars[4]
    rising = 0.0
    falling = 0.0
    for j in range(t - 13, t + 1):
        step = ((high[j] - high[j - 1]) + (low[j] - low[j - 1]) + (close[j] - close[j - 1])) / 3.0
        flow = (high[j] + low[j] + close[j]) / 3.0 * volume[j]
        rising += flow * (step > TIE * close[j])  # times 0, not left out: a missing volume shows
        falling += flow * (step < -TIE * close[j])
    return float(100.0 * over(rising, rising + falling, 0.0))


@kernel
def _gap_to_vwap(bars: FloatArray, t: int, w: int, traded: float) -> float:
    """Close less the volume-weighted typical price, summed as differences, so that the level cancels."""
    high, low, close, volume = bars[1], bars[2], bars[3], bars[4]
    here = close[t]
    out = 0.0
    for j in range(t - w + 1, t + 1):
        out += ((here - high[j]) + (here - low[j]) + (here - close[j])) * volume[j]
    return float(over(out / 3.0, traded, 0.0))


@kernel
def _signed_volume(close: FloatArray, volume: FloatArray, t: int, w: int) -> float:
    out = 0.0
    for j in range(t - w + 1, t + 1):
        out += sign(close[j] - close[j - 1], TIE * close[j]) * volume[j]
    return out


@kernel
def _correlations(returns: FloatArray, volume: FloatArray, t: int, mean: float, x: FloatArray) -> None:
    """Of 20 returns, and of their sizes, with volume, whose mean is given."""
    return_mean = total(returns, t, 20) / 20.0
    size_mean = 0.0
    for j in range(t - 19, t + 1):
        size_mean += abs(returns[j]) / 20.0
    return_square = 0.0
    size_square = 0.0
    volume_square = 0.0
    return_both = 0.0
    size_both = 0.0
    for j in range(t - 19, t + 1):
        return_gap = returns[j] - return_mean
        size_gap = abs(returns[j]) - size_mean
        volume_gap = volume[j] - mean
        return_square += return_gap * return_gap
        size_square += size_gap * size_gap
        volume_square += volume_gap * volume_gap
        return_both += return_gap * volume_gap
        size_both += size_gap * volume_gap
    if volume_square > 20.0 * (FLAT * mean) ** 2:
        floor = 20.0 * FLAT * FLAT * volume_square
        x[C.vol_relative_return_corr_20] = _correlation(return_both, return_square * volume_square, floor)
        x[C.vol_relative_pv_corr_20] = _correlation(size_both, size_square * volume_square, floor)


@kernel
def _correlation(both: float, squares: float, floor: float) -> float:
    return both / np.sqrt(squares) if squares > floor else np.nan
