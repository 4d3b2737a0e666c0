"""Momentum: normalised returns, place in the range, trend fits, efficiency and memory of returns."""

from __future__ import annotations

import numpy as np
from numba import njit

from qml_plugin.features.kernels import FLAT, STILL, ema, ratio
from qml_plugin.features.series import Columns, Series
from qml_plugin.records import FloatArray

_WINDOW_NAMES = (
    "mom_return_1_norm",
    "mom_return_5_norm",
    "mom_return_20_norm",
    "mom_return_50_norm",
    "mom_acf1_100",
    "mom_zscore_50",
    "mom_position_20",
    "mom_position_50",
    "mom_since_high_50",
    "mom_since_low_50",
    "mom_slope_20_norm",
    "mom_slope_50_norm",
    "mom_r2_20",
    "mom_r2_50",
    "mom_er_10",
    "mom_er_20",
    "mom_er_50",
    "mom_up_frac_20",
    "mom_streak",
)


def compute(s: Series, columns: Columns) -> dict[str, FloatArray]:
    """Columns of this category."""
    close = s.bars.close
    change = np.diff(close, prepend=np.nan)
    moved = ema(ema(np.abs(change), 25), 13)
    tsi = 100.0 * ratio(ema(ema(change, 25), 13), moved, STILL * close)
    rows = _windows(s.bars.high, s.bars.low, close, s.returns, s.atr / close)
    return {"mom_tsi": tsi, **dict(zip(_WINDOW_NAMES, rows, strict=True))}


@njit(cache=True)
def _windows(
    high: FloatArray, low: FloatArray, close: FloatArray, returns: FloatArray, atr_frac: FloatArray
) -> FloatArray:
    """Rows in the order of `_WINDOW_NAMES`."""
    n = len(close)
    out = np.full((19, n), np.nan)
    for t in range(10, n):
        floor = FLAT * close[t]
        if t >= 100:
            mean = 0.0
            for j in range(t - 99, t + 1):
                mean += returns[j] / 100.0
            square = 0.0
            lagged = 0.0
            for j in range(t - 99, t + 1):
                square += (returns[j] - mean) ** 2
                if j > t - 99:
                    lagged += (returns[j] - mean) * (returns[j - 1] - mean)
            sd = np.sqrt(square / 99.0)
            if sd > FLAT:
                spans = (1, 5, 20, 50)
                for k in range(4):
                    out[k, t] = np.log(close[t] / close[t - spans[k]]) / (sd * np.sqrt(spans[k]))
                out[4, t] = lagged / square
        if t >= 49:
            mean = 0.0
            for j in range(t - 49, t + 1):
                mean += (close[j] - close[t]) / 50.0
            square = 0.0
            for j in range(t - 49, t + 1):
                square += (close[j] - close[t] - mean) ** 2 / 50.0
            if np.sqrt(square) > floor:
                out[5, t] = -mean / np.sqrt(square)
        ranges = (20, 50)
        for k in range(2):
            w = ranges[k]
            if t < w - 1:
                continue
            at_top = t - w + 1
            at_bottom = t - w + 1
            for j in range(t - w + 2, t + 1):
                if high[j] >= high[at_top]:
                    at_top = j
                if low[j] <= low[at_bottom]:
                    at_bottom = j
            if high[at_top] - low[at_bottom] > floor:
                out[6 + k, t] = (close[t] - low[at_bottom]) / (high[at_top] - low[at_bottom])
            if w == 50:
                out[8, t] = (t - at_top) / 50.0
                out[9, t] = (t - at_bottom) / 50.0
            # log closes relative to the last one, by summing returns backwards: no level, no cancellation
            middle = (w - 1) / 2.0
            y = 0.0
            y_sum = 0.0
            cross = 0.0
            square = 0.0
            for i in range(w):
                y_sum += y
                cross += (w - 1 - i - middle) * y
                square += y * y
                y -= returns[t - i]
            x_var = w * (w * w - 1.0) / 12.0
            y_var = square - y_sum * y_sum / w
            if atr_frac[t] > 0.0:
                out[10 + k, t] = cross / x_var * w / atr_frac[t]
            if y_var > w * FLAT**2:
                out[12 + k, t] = min(1.0, cross * cross / (x_var * y_var))
        paths = (10, 20, 50)
        for k in range(3):
            w = paths[k]
            if t >= w:
                path = 0.0
                for j in range(t - w + 1, t + 1):
                    path += abs(close[j] - close[j - 1])
                if path > floor:
                    out[14 + k, t] = abs(close[t] - close[t - w]) / path
        if t >= 20:
            ups = 0.0
            for j in range(t - 19, t + 1):
                if close[j] > close[j - 1]:
                    ups += 1.0
            out[17, t] = ups / 20.0
        run = 0
        direction = np.sign(close[t] - close[t - 1])
        while direction != 0.0 and run < 10 and np.sign(close[t - run] - close[t - run - 1]) == direction:
            run += 1
        out[18, t] = direction * run
    return out
