"""Context of the bar: distance from averages, bands, oscillators and the shape of the candle."""

from __future__ import annotations

import numpy as np
from numba import njit

from qml_plugin.features.kernels import FLAT, directional_movement, ema, ratio, rsi, wilder_atr
from qml_plugin.features.series import Columns, Series
from qml_plugin.records import FloatArray


def compute(s: Series, columns: Columns) -> dict[str, FloatArray]:
    """Columns of this category."""
    bars, close, atr = s.bars, s.bars.close, s.atr
    adx, di_plus, di_minus = directional_movement(bars.high, bars.low, close, 14)
    macd = ema(close, 12) - ema(close, 26)
    signal = ema(macd, 9)
    gap_20, gap_50, gap_200, step_50, pctb, width, cci, stoch, aroon = _windows(bars.high, bars.low, close)
    floor = FLAT * close
    spread = bars.high - bars.low
    return {
        "ctx_atr_14_pct": 100.0 * wilder_atr(bars.high, bars.low, close, 14) / close,
        "ctx_rsi_7": rsi(close, 7),
        "ctx_rsi_14": rsi(close, 14),
        "ctx_dist_sma_20_atr": gap_20 / atr,
        "ctx_dist_sma_50_atr": gap_50 / atr,
        "ctx_dist_sma_200_atr": gap_200 / atr,
        "ctx_dist_ema_10_atr": (close - ema(close, 10)) / atr,
        "ctx_dist_ema_20_atr": (close - s.ema_20) / atr,
        "ctx_dist_ema_50_atr": (close - s.ema_50) / atr,
        "ctx_slope_sma_50_atr": step_50 / atr,
        "ctx_slope_ema_20_atr": (s.ema_20 - _lagged(s.ema_20, 5)) / (5.0 * atr),
        "ctx_bb_20_pctb": pctb,
        "ctx_bb_20_width": width,
        "ctx_macd_line_atr": macd / atr,
        "ctx_macd_signal_atr": signal / atr,
        "ctx_macd_hist_atr": (macd - signal) / atr,
        "ctx_adx_14": adx,
        "ctx_di_plus_14": di_plus,
        "ctx_di_minus_14": di_minus,
        "ctx_cci_20": cci,
        "ctx_stoch_k_14": stoch,
        "ctx_aroon_osc_25": aroon,
        "ctx_candle_body_frac": ratio(close - bars.open, spread, floor),
        "ctx_candle_upper_frac": ratio(bars.high - np.maximum(bars.open, close), spread, floor),
        "ctx_candle_lower_frac": ratio(np.minimum(bars.open, close) - bars.low, spread, floor),
        "ctx_close_loc_bar": ratio(close - bars.low, spread, floor),
        "ctx_range_bar": s.true_range / atr,
        "ctx_gap_bar": (bars.open - _lagged(close, 1)) / atr,
    }


def _lagged(values: FloatArray, bars: int) -> FloatArray:
    out = np.full(len(values), np.nan)
    out[bars:] = values[:-bars]
    return out


@njit(cache=True)
def _windows(high: FloatArray, low: FloatArray, close: FloatArray) -> FloatArray:
    """Rows: close - SMA of 20, 50, 200, step of SMA(50), %B, band width, CCI, %K, Aroon oscillator."""
    n = len(close)
    out = np.full((9, n), np.nan)
    spans = (20, 50, 200)
    for t in range(n):
        here = close[t]
        floor = FLAT * here
        for k in range(3):
            if t >= spans[k] - 1:
                total = 0.0
                for j in range(t - spans[k] + 1, t + 1):
                    total += here - close[j]
                out[k, t] = total / spans[k]
        if t >= 54:
            total = 0.0
            for j in range(t - 4, t + 1):
                total += close[j] - close[j - 50]
            out[3, t] = total / 250.0
        if t >= 19:
            gap = out[0, t]
            square = 0.0
            for j in range(t - 19, t + 1):
                square += (close[j] - here + gap) ** 2
            sd = np.sqrt(square / 20.0)
            out[5, t] = 4.0 * sd / (here - gap)
            if sd > floor:
                out[4, t] = 0.5 + gap / (4.0 * sd)
            # deviations of the typical price are taken from the close of t, so that the level cancels exactly
            mean = 0.0
            for j in range(t - 19, t + 1):
                mean += ((high[j] - here) + (low[j] - here) + (close[j] - here)) / 60.0
            deviation = 0.0
            for j in range(t - 19, t + 1):
                deviation += abs(((high[j] - here) + (low[j] - here) + (close[j] - here)) / 3.0 - mean) / 20.0
            if deviation > floor:
                out[6, t] = (((high[t] - here) + (low[t] - here)) / 3.0 - mean) / (0.015 * deviation)
        if t >= 13:
            top = high[t]
            bottom = low[t]
            for j in range(t - 13, t):
                top = max(top, high[j])
                bottom = min(bottom, low[j])
            if top - bottom > floor:
                out[7, t] = 100.0 * (here - bottom) / (top - bottom)
        if t >= 25:
            at_top = t - 25
            at_bottom = t - 25
            for j in range(t - 24, t + 1):
                if high[j] >= high[at_top]:
                    at_top = j
                if low[j] <= low[at_bottom]:
                    at_bottom = j
            out[8, t] = 4.0 * (at_top - at_bottom)
    return out
