"""Volatility: its rank, its term structure, range estimators, jumps and asymmetry."""

from __future__ import annotations

import numpy as np
from numba import njit

from qml_plugin.features.kernels import FLAT, STILL, mid_rank, ratio, wilder_atr
from qml_plugin.features.series import Columns, Series
from qml_plugin.records import FloatArray


def compute(s: Series, columns: Columns) -> dict[str, FloatArray]:
    """Columns of this category."""
    bars = s.bars
    atr_frac = s.atr / bars.close
    atr_7 = wilder_atr(bars.high, bars.low, bars.close, 7)
    atr_21 = wilder_atr(bars.high, bars.low, bars.close, 21)
    sd_10, sd_20, sd_50, down, jump, skew = _return_windows(s.returns)
    parkinson, garman_klass, yang_zhang, range_ratio, ulcer = _bar_windows(bars.open, bars.high, bars.low, bars.close)
    return {
        "vol_atr_pctile_100": mid_rank(atr_frac, 100),
        "vol_atr_pctile_250": mid_rank(atr_frac, 250),
        "vol_atr_ratio_7_21": ratio(atr_7, atr_21, STILL * bars.close),
        "vol_realized_20": sd_20,
        "vol_realized_50": sd_50,
        "vol_rv_ratio_10_50": ratio(sd_10, sd_50, FLAT),
        "vol_parkinson_20": parkinson,
        "vol_gk_20": garman_klass,
        "vol_yz_20": yang_zhang,
        "vol_pk_rv_ratio_20": ratio(parkinson, sd_20, FLAT),
        "vol_jump_share_50": jump,
        "vol_semi_down_50": down,
        "vol_skew_100": skew,
        "vol_range_ratio_20": range_ratio,
        "vol_ulcer_14": ulcer,
    }


@njit(cache=True)
def _return_windows(returns: FloatArray) -> FloatArray:
    """Rows: sd over 10, 20, 50, down share over 50, jump share over 50, skewness over 100."""
    n = len(returns)
    out = np.full((6, n), np.nan)
    spans = (10, 20, 50)
    for t in range(10, n):
        for k in range(3):
            w = spans[k]
            if t < w:
                continue
            mean = 0.0
            for j in range(t - w + 1, t + 1):
                mean += returns[j] / w
            square = 0.0
            for j in range(t - w + 1, t + 1):
                square += (returns[j] - mean) ** 2
            out[k, t] = np.sqrt(square / (w - 1))
        if t >= 50:
            total = 0.0
            down = 0.0
            pairs = 0.0
            for j in range(t - 49, t + 1):
                square = returns[j] ** 2
                total += square
                if returns[j] < 0.0:
                    down += square
                if j > t - 49:
                    pairs += abs(returns[j] * returns[j - 1])
            if total > 50.0 * FLAT**2:
                out[3, t] = down / total
                out[4, t] = max(0.0, 1.0 - np.pi / 2.0 * (50.0 / 49.0) * pairs / total)
        if t >= 100:
            mean = 0.0
            for j in range(t - 99, t + 1):
                mean += returns[j] / 100.0
            square = 0.0
            cube = 0.0
            for j in range(t - 99, t + 1):
                gap = returns[j] - mean
                square += gap**2 / 100.0
                cube += gap**3 / 100.0
            if square > FLAT**2:
                out[5, t] = cube / square**1.5
    return out


@njit(cache=True)
def _bar_windows(open_: FloatArray, high: FloatArray, low: FloatArray, close: FloatArray) -> FloatArray:
    """Rows: Parkinson, Garman-Klass, Yang-Zhang, range ratio (all over 20), Ulcer index over 14."""
    n = len(close)
    out = np.full((5, n), np.nan)
    hl = np.log(high / low)
    co = np.log(close / open_)
    rs = np.log(high / close) * np.log(high / open_) + np.log(low / close) * np.log(low / open_)
    jump = np.zeros(n)
    below = np.zeros(n)
    w = 20
    for t in range(n):
        if t >= 1:
            jump[t] = np.log(open_[t] / close[t - 1])
        top = close[t]
        for j in range(max(0, t - 13), t):
            top = max(top, close[j])
        below[t] = 100.0 * (close[t] - top) / top
        if t >= w - 1:
            park = 0.0
            body = 0.0
            spread = 0.0
            for j in range(t - w + 1, t + 1):
                park += hl[j] ** 2 / w
                body += co[j] ** 2 / w
                spread += (high[j] - low[j]) / w
            out[0, t] = np.sqrt(park / (4.0 * np.log(2.0)))
            out[1, t] = np.sqrt(max(0.0, 0.5 * park - (2.0 * np.log(2.0) - 1.0) * body))
            if spread > FLAT * close[t]:
                out[3, t] = (high[t] - low[t]) / spread
        if t >= w:
            jump_mean = 0.0
            body_mean = 0.0
            inner = 0.0
            for j in range(t - w + 1, t + 1):
                jump_mean += jump[j] / w
                body_mean += co[j] / w
                inner += rs[j] / w
            jump_var = 0.0
            body_var = 0.0
            for j in range(t - w + 1, t + 1):
                jump_var += (jump[j] - jump_mean) ** 2 / (w - 1)
                body_var += (co[j] - body_mean) ** 2 / (w - 1)
            k = 0.34 / (1.34 + (w + 1) / (w - 1))
            out[2, t] = np.sqrt(max(0.0, jump_var + k * body_var + (1.0 - k) * inner))
        if t >= 26:
            square = 0.0
            for j in range(t - 13, t + 1):
                square += below[j] ** 2
            out[4, t] = np.sqrt(square / 14.0)
    return out
