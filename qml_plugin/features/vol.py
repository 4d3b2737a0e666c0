"""Volatility: its rank, its term structure, range estimators, jumps, asymmetry and the spread it hides."""

from __future__ import annotations

import numpy as np

from qml_plugin.features.catalogue import columns_of
from qml_plugin.features.compiled import kernel
from qml_plugin.features.kernels import FLAT, STILL, TIE, mid_rank, over, sd, total
from qml_plugin.features.series import SERIES
from qml_plugin.records import FloatArray, IntArray

PLACE, C = columns_of("vol")


@kernel
def fill(bars: FloatArray, series: FloatArray, rows: IntArray, age: int, out: FloatArray) -> None:
    """Features of this category at some bars; arguments as in `ctx.fill`."""
    high, low, close = bars[1], bars[2], bars[3]
    for i in range(len(rows)):
        t = rows[i]
        n = t + age  # bars before this one
        x = out[i, PLACE]
        x[:] = np.nan
        floor = STILL * close[t]
        x[C.vol_atr_ratio_7_21] = over(series[SERIES.wilder_7, t], series[SERIES.wilder_21, t], floor)
        x[C.vol_atr_ratio_14_50] = over(series[SERIES.wilder_14, t], series[SERIES.wilder_50, t], floor)
        if n >= 6:
            x[C.vol_nr_rank_7] = _range_rank(high, low, close, t)
        if n >= 10:
            x[C.vol_realized_10] = sd(series[SERIES.log_return], t, 10, 1)
        if n >= 19:
            _ranges(bars, series, t, x)
        if n >= 20:
            _windows_of_20(series, t, x)
        if n >= 26:
            x[C.vol_ulcer_14] = _root_mean_square(series[SERIES.below_high_14], t, 14)
        if n >= 49:
            x[C.vol_parkinson_50] = _parkinson(series, t, 50)
            x[C.vol_maxdd_50] = _largest_fall(close, t) / series[SERIES.atr, t]
        if n >= 50:
            _windows_of_50(series, t, x)
        if n >= 100:
            _windows_of_100(series, t, x)
        _atr_ranks(series[SERIES.atr_frac], t, n, x)
        if n >= 119:
            width = series[SERIES.bb_width]
            x[C.vol_bbw_pctile_100] = mid_rank(width, t, 100, TIE * width[t])


@kernel
def _ranges(bars: FloatArray, series: FloatArray, t: int, x: FloatArray) -> None:
    """Range estimators that need no bar before their 20."""
    high, low, close = bars[1], bars[2], bars[3]
    body = _root_mean_square(series[SERIES.log_close_open], t, 20)
    x[C.vol_parkinson_20] = _parkinson(series, t, 20)
    # Garman and Klass (1980), the practical estimator: 2 ln 2 Parkinson's variance is half the mean squared range
    square = 2.0 * np.log(2.0) * x[C.vol_parkinson_20] ** 2 - (2.0 * np.log(2.0) - 1.0) * body**2
    x[C.vol_gk_20] = np.sqrt(max(0.0, square))
    x[C.vol_rs_20] = np.sqrt(max(0.0, total(series[SERIES.rogers_satchell], t, 20) / 20.0))
    spread = 0.0
    for j in range(t - 19, t + 1):
        spread += high[j] - low[j]
    x[C.vol_range_ratio_20] = over(high[t] - low[t], spread / 20.0, FLAT * close[t])


@kernel
def _windows_of_20(series: FloatArray, t: int, x: FloatArray) -> None:
    returns = series[SERIES.log_return]
    x[C.vol_realized_20] = sd(returns, t, 20, 1)
    x[C.vol_pk_rv_ratio_20] = over(x[C.vol_parkinson_20], x[C.vol_realized_20], FLAT)
    x[C.vol_yz_20] = _yang_zhang(series, t, 20)
    x[C.vol_jump_share_20], x[C.vol_semi_down_20] = _jumps_and_falls(returns, t, 20)
    x[C.vol_spread_cs_20] = total(series[SERIES.spread_cs], t, 20) / 20.0


@kernel
def _windows_of_50(series: FloatArray, t: int, x: FloatArray) -> None:
    returns = series[SERIES.log_return]
    x[C.vol_realized_50], x[C.vol_skew_50], x[C.vol_kurt_50] = _shape(returns, t, 50)
    x[C.vol_rv_ratio_10_50] = over(x[C.vol_realized_10], x[C.vol_realized_50], FLAT)
    x[C.vol_yz_50] = _yang_zhang(series, t, 50)
    x[C.vol_jump_share_50], x[C.vol_semi_down_50] = _jumps_and_falls(returns, t, 50)
    x[C.vol_of_vol_50] = _sd_of_changes(series[SERIES.log_atr], t, 50)
    x[C.vol_spread_roll_50] = _roll_spread(returns, t, 50)


@kernel
def _windows_of_100(series: FloatArray, t: int, x: FloatArray) -> None:
    returns = series[SERIES.log_return]
    deviation, x[C.vol_skew_100], x[C.vol_kurt_100] = _shape(returns, t, 100)
    x[C.vol_rv_ratio_20_100] = over(x[C.vol_realized_20], deviation, FLAT)
    x[C.vol_ewma94_ratio] = over(np.sqrt(series[SERIES.ewma_square, t]), deviation, FLAT)
    x[C.vol_abs_acf1_100], x[C.vol_leverage_100] = _clustering(returns, t, 100)


@kernel
def _atr_ranks(atr_frac: FloatArray, t: int, n: int, x: FloatArray) -> None:
    tie = TIE * atr_frac[t]
    if n >= 100:
        x[C.vol_atr_pctile_100] = mid_rank(atr_frac, t, 100, tie)
    if n >= 250:
        x[C.vol_atr_pctile_250] = mid_rank(atr_frac, t, 250, tie)
    if n >= 500:
        x[C.vol_atr_pctile_500] = mid_rank(atr_frac, t, 500, tie)


@kernel
def _root_mean_square(values: FloatArray, t: int, w: int) -> float:
    square = 0.0
    for j in range(t - w + 1, t + 1):
        square += values[j] * values[j]
    return float(np.sqrt(square / w))


@kernel
def _parkinson(series: FloatArray, t: int, w: int) -> float:
    return float(_root_mean_square(series[SERIES.log_high_low], t, w) / np.sqrt(4.0 * np.log(2.0)))


@kernel
def _yang_zhang(series: FloatArray, t: int, w: int) -> float:
    """Overnight, open-to-close and Rogers-Satchell variance, mixed for the least variance. Yang and Zhang (2000)."""
    k = 0.34 / (1.34 + (w + 1.0) / (w - 1.0))
    overnight = sd(series[SERIES.log_open_gap], t, w, 1)
    body = sd(series[SERIES.log_close_open], t, w, 1)
    inner = total(series[SERIES.rogers_satchell], t, w) / w
    return float(np.sqrt(max(0.0, overnight**2 + k * body**2 + (1.0 - k) * inner)))


@kernel
def _range_rank(high: FloatArray, low: FloatArray, close: FloatArray, t: int) -> float:
    """Mid-rank of the bar's range among the six before it."""
    here = high[t] - low[t]
    twice_below = 0
    for j in range(t - 6, t):
        gap = here - (high[j] - low[j])
        twice_below += (gap > TIE * close[t]) + (gap >= -TIE * close[t])
    return twice_below / 12.0


@kernel
def _largest_fall(close: FloatArray, t: int) -> float:
    """Largest fall from a close to a later one within 50."""
    top = close[t - 49]
    fall = 0.0
    for j in range(t - 48, t + 1):
        top = max(top, close[j])
        fall = max(fall, top - close[j])
    return fall


@kernel
def _shape(returns: FloatArray, t: int, w: int) -> tuple[float, float, float]:
    """Standard deviation (ddof 1), skewness and excess kurtosis (both ddof 0)."""
    mean = total(returns, t, w) / w
    square = 0.0
    cube = 0.0
    fourth = 0.0
    for j in range(t - w + 1, t + 1):
        gap = returns[j] - mean
        square += gap * gap
        cube += gap * gap * gap
        fourth += gap * gap * gap * gap
    deviation = np.sqrt(square / (w - 1))
    variance = square / w
    if variance <= FLAT * FLAT:
        return deviation, np.nan, np.nan
    return deviation, cube / w / (variance * np.sqrt(variance)), fourth / w / (variance * variance) - 3.0


@kernel
def _jumps_and_falls(returns: FloatArray, t: int, w: int) -> tuple[float, float]:
    """Share of jumps, from bipower variation, and of falls in the realized variance."""
    square = returns[t - w + 1] ** 2
    down = square if returns[t - w + 1] < 0.0 else 0.0
    pairs = 0.0
    for j in range(t - w + 2, t + 1):
        here = returns[j] * returns[j]
        square += here
        down += here if returns[j] < 0.0 else 0.0
        pairs += abs(returns[j] * returns[j - 1])
    if square <= w * FLAT * FLAT:
        return np.nan, np.nan
    bipower = np.pi / 2.0 * w / (w - 1.0) * pairs
    return max(0.0, 1.0 - bipower / square), down / square


@kernel
def _sd_of_changes(values: FloatArray, t: int, w: int) -> float:
    """Standard deviation (ddof 1) of the last `w` changes."""
    mean = (values[t] - values[t - w]) / w
    square = 0.0
    for j in range(t - w + 1, t + 1):
        gap = values[j] - values[j - 1] - mean
        square += gap * gap
    return float(np.sqrt(square / (w - 1)))


@kernel
def _clustering(returns: FloatArray, t: int, w: int) -> tuple[float, float]:
    """Lag-1 autocorrelation of sizes, and correlation of sizes with the return before."""
    first = t - w + 1
    size_sum = 0.0  # of all but the first
    past_sum = 0.0
    for j in range(first + 1, t + 1):
        size_sum += abs(returns[j])
        past_sum += returns[j - 1]
    mean = (size_sum + abs(returns[first])) / w
    size_mean = size_sum / (w - 1)
    past_mean = past_sum / (w - 1)
    old = abs(returns[first]) - mean
    square = old * old
    lagged = 0.0
    size_square = 0.0
    past_square = 0.0
    both = 0.0
    for j in range(first + 1, t + 1):
        size = abs(returns[j])
        gap = size - mean
        square += gap * gap
        lagged += gap * (abs(returns[j - 1]) - mean)
        size_gap = size - size_mean
        past_gap = returns[j - 1] - past_mean
        size_square += size_gap * size_gap
        past_square += past_gap * past_gap
        both += size_gap * past_gap
    acf = over(lagged, square, w * FLAT * FLAT)
    if size_square <= (w - 1) * FLAT * FLAT or past_square <= (w - 1) * FLAT * FLAT:
        return acf, np.nan
    return acf, both / np.sqrt(size_square * past_square)


@kernel
def _roll_spread(returns: FloatArray, t: int, w: int) -> float:
    """Relative spread that would make returns bounce as they do. Roll (1984)."""
    inner = total(returns, t - 1, w - 2)
    mean = (inner + returns[t]) / (w - 1)
    past_mean = (inner + returns[t - w + 1]) / (w - 1)
    both = 0.0
    for j in range(t - w + 2, t + 1):
        both += (returns[j] - mean) * (returns[j - 1] - past_mean)
    covariance = both / (w - 1)
    return float(2.0 * np.sqrt(-covariance)) if covariance < -FLAT * FLAT else 0.0
