"""Volume relative to its own past; NaN throughout where the market reports none."""

from __future__ import annotations

import numpy as np
from numba import njit

from qml_plugin.features.kernels import FLAT, mid_rank
from qml_plugin.features.series import Columns, Series
from qml_plugin.records import FloatArray

_WINDOW_NAMES = (
    "vol_relative_20",
    "vol_relative_50",
    "vol_relative_z_20",
    "vol_relative_trend_5_20",
    "vol_relative_obv_slope_20",
    "vol_relative_cmf_20",
    "vol_relative_mfi_14",
    "vol_relative_vwap_dist_20_atr",
)


def compute(s: Series, columns: Columns) -> dict[str, FloatArray]:
    """Columns of this category that need no entry."""
    bars = s.bars
    rows = _windows(bars.high, bars.low, bars.close, bars.volume, s.atr)
    return {
        "vol_relative_pctile_100": mid_rank(bars.volume, 100),
        **dict(zip(_WINDOW_NAMES, rows, strict=True)),
    }


@njit(cache=True)
def _windows(high: FloatArray, low: FloatArray, close: FloatArray, volume: FloatArray, atr: FloatArray) -> FloatArray:
    """Rows in the order of `_WINDOW_NAMES`."""
    n = len(close)
    out = np.full((8, n), np.nan)
    for t in range(14, n):
        floor = FLAT * close[t]
        if t >= 49:
            total = 0.0
            for j in range(t - 49, t + 1):
                total += volume[j]
            if total > 0.0:
                out[1, t] = volume[t] / (total / 50.0)
        # money flow compares typical prices; differences below 1e-9 of the price are rounding, not moves
        gain = 0.0
        loss = 0.0
        for j in range(t - 13, t + 1):
            step = ((high[j] - high[j - 1]) + (low[j] - low[j - 1]) + (close[j] - close[j - 1])) / 3.0
            flow = (high[j] + low[j] + close[j]) / 3.0 * volume[j]
            if np.isnan(flow):
                gain = np.nan
            elif step > 1e-9 * close[j]:
                gain += flow
            elif step < -1e-9 * close[j]:
                loss += flow
        if gain + loss > 0.0:
            out[6, t] = 100.0 * gain / (gain + loss)
        if t < 19:
            continue
        total = 0.0
        for j in range(t - 19, t + 1):
            total += volume[j]
        if not total > 0.0:
            continue
        mean = total / 20.0
        recent = 0.0
        accumulated = 0.0
        weighted = 0.0
        log_mean = 0.0
        for j in range(t - 19, t + 1):
            if j > t - 5:
                recent += volume[j] / 5.0
            spread = high[j] - low[j]
            if spread > FLAT * close[j]:
                accumulated += ((close[j] - low[j]) - (high[j] - close[j])) / spread * volume[j]
            weighted += ((close[t] - high[j]) + (close[t] - low[j]) + (close[t] - close[j])) / 3.0 * volume[j]
            log_mean += np.log1p(volume[j] / mean) / 20.0
        square = 0.0
        for j in range(t - 19, t + 1):
            square += (np.log1p(volume[j] / mean) - log_mean) ** 2 / 20.0
        out[0, t] = volume[t] / mean
        if np.sqrt(square) > FLAT:
            out[2, t] = (np.log1p(volume[t] / mean) - log_mean) / np.sqrt(square)
        out[3, t] = recent / mean
        out[5, t] = accumulated / total
        if atr[t] > floor:
            out[7, t] = weighted / total / atr[t]
        if t >= 20:
            signed = 0.0
            for j in range(t - 19, t + 1):
                signed += np.sign(close[j] - close[j - 1]) * volume[j]
            out[4, t] = signed / total
    return out
