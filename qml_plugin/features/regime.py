"""Regime: trending, ranging or volatile, and how far prices are from a random walk."""

from __future__ import annotations

import numpy as np
from numba import njit

from qml_plugin.features.kernels import FLAT
from qml_plugin.features.series import Columns, Series
from qml_plugin.records import FloatArray

_WINDOW_NAMES = ("regime_vr_2_100", "regime_vr_5_100", "regime_perm_entropy_50", "regime_chop_14")


def compute(s: Series, columns: Columns) -> dict[str, FloatArray]:
    """Columns of this category, some of them from the columns of others."""
    adx, efficiency, rank = columns["ctx_adx_14"], columns["mom_er_20"], columns["vol_atr_pctile_250"]
    rows = _windows(s.bars.high, s.bars.low, s.bars.close, s.returns, s.true_range)
    # the cross of two averages closer than rounding has no sign
    cross = s.ema_20 - s.ema_50
    sign = np.where(np.abs(cross) > 1e-9 * s.bars.close, np.sign(cross), 0.0)
    # on ticks an efficiency is often 3/10 exactly, which rounding must not push over the line
    return {
        "regime_is_trending": _flag((adx > 25.0) & (efficiency > 0.3 + 1e-9), adx + efficiency),
        "regime_is_ranging": _flag(adx < 20.0, adx),
        "regime_is_volatile": _flag(rank > 0.8, rank),
        "regime_trend_strength": sign * adx / 100.0,
        **dict(zip(_WINDOW_NAMES, rows, strict=True)),
    }


def _flag(is_set: np.ndarray, source: FloatArray) -> FloatArray:
    return np.where(np.isnan(source), np.nan, is_set.astype(np.float64))


@njit(cache=True)
def _windows(high: FloatArray, low: FloatArray, close: FloatArray, returns: FloatArray, tr: FloatArray) -> FloatArray:
    """Rows in the order of `_WINDOW_NAMES`."""
    n = len(close)
    out = np.full((4, n), np.nan)
    order = np.zeros(n, np.int64)
    for t in range(2, n):
        a, b, c = close[t - 2], close[t - 1], close[t]
        order[t] = (4 if a <= b else 0) + (2 if b <= c else 0) + (1 if a <= c else 0)
        if t >= 100:
            mean = 0.0
            for j in range(t - 99, t + 1):
                mean += returns[j] / 100.0
            square = 0.0
            for j in range(t - 99, t + 1):
                square += (returns[j] - mean) ** 2 / 99.0
            lags = (2, 5)
            for k in range(2):
                q = lags[k]
                total = 0.0
                for j in range(t - 100 + q, t + 1):
                    step = -q * mean
                    for i in range(j - q + 1, j + 1):
                        step += returns[i]
                    total += step * step
                if square > FLAT**2:
                    out[k, t] = total / (q * (101.0 - q) * (1.0 - q / 100.0)) / square
        if t >= 49:
            counts = np.zeros(8)
            for j in range(t - 47, t + 1):
                counts[order[j]] += 1.0
            entropy = 0.0
            for k in range(8):
                if counts[k] > 0.0:
                    entropy -= counts[k] / 48.0 * np.log(counts[k] / 48.0)
            out[2, t] = entropy / np.log(6.0)
        if t >= 14:
            path = 0.0
            top = high[t]
            bottom = low[t]
            for j in range(t - 13, t + 1):
                path += tr[j]
                top = max(top, high[j], close[j - 1])
                bottom = min(bottom, low[j], close[j - 1])
            if top - bottom > FLAT * close[t]:
                out[3, t] = 100.0 * np.log10(path / (top - bottom)) / np.log10(14.0)
    return out
