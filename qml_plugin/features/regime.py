"""Regime: trending, ranging or volatile, and how far prices are from a random walk."""

from __future__ import annotations

import numpy as np

from qml_plugin.features.catalogue import columns_of
from qml_plugin.features.compiled import kernel
from qml_plugin.features.kernels import FLAT, TIE, highest, lowest, mid_rank, over, sign, total
from qml_plugin.features.series import SERIES
from qml_plugin.records import FloatArray, IntArray

PLACE, C = columns_of("regime")


@kernel
def fill(bars: FloatArray, series: FloatArray, rows: IntArray, age: int, out: FloatArray) -> None:
    """Features of this category at some bars; arguments as in `ctx.fill`."""
    high, close, logs = bars[1], bars[3], series[SERIES.log_close]
    counts = np.empty(8)
    for i in range(len(rows)):
        t = rows[i]
        n = t + age  # bars before this one
        x = out[i, PLACE]
        x[:] = np.nan
        here = close[t]
        adx = series[SERIES.adx, t]
        x[C.regime_is_trending] = series[SERIES.is_trending, t]
        if not np.isnan(adx):
            x[C.regime_is_ranging] = 1.0 if adx < 20.0 else 0.0
            x[C.regime_trend_strength] = (
                sign(series[SERIES.ema_20, t] - series[SERIES.ema_50, t], TIE * here) * adx / 100.0
            )
        x[C.regime_ma_stack] = _stack(series, t, TIE * here)
        x[C.regime_htf_align_4] = series[SERIES.htf_4, t]
        x[C.regime_htf_align_16] = series[SERIES.htf_16, t]
        if n >= 14:
            x[C.regime_chop_14] = _choppiness(bars, series[SERIES.true_range], t)
        if n >= 49:
            x[C.regime_perm_entropy_50] = _permutation_entropy(close, t, counts)
            above = 0
            for j in range(t - 49, t + 1):
                above += close[j] - series[SERIES.ema_200, j] > TIE * close[j]
            x[C.regime_above_ema200_frac_50] = above / 50.0
        if n >= 100:
            _variance_ratios(logs, t, x)
        if n >= 127:
            x[C.regime_hurst_128] = _hurst(logs, t)
        if n >= 249:
            x[C.regime_dd_250_atr] = (here - highest(high, t, 250)) / series[SERIES.atr, t]
        if n >= 250:
            x[C.regime_adx_pctile_250] = mid_rank(series[SERIES.adx], t, 250, TIE * adx)
            x[C.regime_bars_in_log] = _log_bars_in(series[SERIES.is_trending], t)
            atr_frac = series[SERIES.atr_frac]
            rank = mid_rank(atr_frac, t, 250, TIE * atr_frac[t])
            if not np.isnan(rank):
                x[C.regime_is_volatile] = 1.0 if rank > 0.8 else 0.0


@kernel
def _stack(series: FloatArray, t: int, tie: float) -> float:
    rows = (SERIES.ema_10, SERIES.ema_20, SERIES.ema_50, SERIES.ema_100, SERIES.ema_200)
    out = 0.0
    for a in range(4):
        for b in range(a + 1, 5):
            out += sign(series[rows[a], t] - series[rows[b], t], tie)
    return out / 10.0


@kernel
def _choppiness(bars: FloatArray, true_range: FloatArray, t: int) -> float:
    high, low, close = bars[1], bars[2], bars[3]
    top = max(highest(high, t, 14), highest(close, t - 1, 14))
    bottom = min(lowest(low, t, 14), lowest(close, t - 1, 14))
    if not top - bottom > FLAT * close[t]:
        return np.nan
    return float(100.0 * np.log10(total(true_range, t, 14) / (top - bottom)) / np.log10(14.0))


@kernel
def _permutation_entropy(close: FloatArray, t: int, counts: FloatArray) -> float:
    """Bandt and Pompe (2002), order 3, over the log of the 3! orders."""
    counts[:] = 0.0
    for j in range(t - 47, t + 1):
        a, b, c = close[j - 2], close[j - 1], close[j]
        counts[4 * (a <= b) + 2 * (b <= c) + (a <= c)] += 1.0
    entropy = 0.0
    for k in range(8):
        if counts[k] > 0.0:
            entropy -= counts[k] / 48.0 * np.log(counts[k] / 48.0)
    return float(abs(entropy) / np.log(6.0))


@kernel
def _change_squares(logs: FloatArray, t: int, lag: int, m: int, mean: float) -> float:
    """Sum of the squares of the last `m` changes over `lag` bars about a mean."""
    # views from 0 on, and four sums, which the processor adds up side by side: half the time of indexing `logs`
    now, then = logs[t - m + 1 : t + 1], logs[t - m + 1 - lag : t + 1 - lag]
    a = b = c = d = 0.0
    fours = m // 4 * 4
    for j in range(0, fours, 4):
        a += (now[j] - then[j] - mean) ** 2
        b += (now[j + 1] - then[j + 1] - mean) ** 2
        c += (now[j + 2] - then[j + 2] - mean) ** 2
        d += (now[j + 3] - then[j + 3] - mean) ** 2
    for j in range(fours, m):
        a += (now[j] - then[j] - mean) ** 2
    return (a + b) + (c + d)


@kernel
def _variance_ratios(logs: FloatArray, t: int, x: FloatArray) -> None:
    """Lo and MacKinlay (1988), section 1.1, the unbiased estimators of overlapping changes, over 100 returns."""
    mean = (logs[t] - logs[t - 100]) / 100.0
    one = _change_squares(logs, t, 1, 100, mean) / 99.0
    for k in range(3):
        q = (2, 5, 10)[k]
        many = _change_squares(logs, t, q, 101 - q, q * mean) / (q * (101.0 - q) * (1.0 - q / 100.0))
        x[(C.regime_vr_2_100, C.regime_vr_5_100, C.regime_vr_10_100)[k]] = over(many, one, FLAT**2)


@kernel
def _hurst(logs: FloatArray, t: int) -> float:
    """Slope of log sd of the lagged changes on log lag; Di Matteo (2007), q = 2, but with moments about the mean."""
    cross = 0.0
    for k in range(5):
        lag = 2 << k
        m = 128 - lag
        mean = 0.0  # of the changes: all but the outermost closes cancel
        for j in range(lag):
            mean += logs[t - j] - logs[t - 127 + j]
        square = _change_squares(logs, t, lag, m, mean / m)
        if not square > m * FLAT**2:
            return np.nan
        cross += (k - 2) * 0.5 * np.log(square / m)
    return float(cross / (10.0 * np.log(2.0)))  # the squares of k - 2 add up to 10


@kernel
def _log_bars_in(flags: FloatArray, t: int) -> float:
    if np.isnan(flags[t]):
        return np.nan
    back = 1
    while back <= 250 and flags[t - back] == flags[t]:
        back += 1
    return float(np.log1p(back - 1.0))
