"""The recursions: what a bar's features need of bars long gone, one column of numbers for each bar.

`advance` is the only code that carries anything from bar to bar. A backtest runs it over the whole series at once, a
live stream one bar at a time, and both get the same bits.
"""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np

from qml_plugin.features.compiled import kernel
from qml_plugin.features.kernels import FLAT, STILL, TIE, gap_to_mean, highest, sign, total
from qml_plugin.records import FloatArray, IntArray

BAR: Any = namedtuple("Bar", "open high low close volume")(*range(5))
"""Rows of the matrix of bars."""

_PLAIN = (
    "true_range", "log_high", "log_low", "log_close", "log_return", "log_high_low", "log_close_open", "log_open_gap", "rogers_satchell",
    "wilder_7", "wilder_10", "wilder_14", "wilder_21", "wilder_50",
    "atr", "atr_frac", "log_atr",
    "gain_7", "loss_7", "gain_14", "loss_14", "rsi_7", "rsi_14",
    "dm_range", "dm_plus", "dm_minus", "dx_mean", "di_plus", "di_minus", "adx",
    "ema_5", "ema_10", "ema_12", "ema_20", "ema_26", "ema_50", "ema_100", "ema_200", "macd", "macd_signal",
    "tsi_move", "tsi_move_2", "tsi_path", "tsi_path_2", "kama", "ewma_square",
    "log_volume", "impact", "ema_12_volume", "ema_26_volume", "pvo", "pvo_signal", "volume_age",
    "bb_width", "below_high_14", "er_20", "is_trending", "amihud_20", "spread_cs", "htf_4", "htf_16",
)  # fmt: skip
SERIES: Any = namedtuple("Series", _PLAIN)(*range(len(_PLAIN)))
"""Rows of the matrix of series. ``atr`` is ATR(14), NaN where it is not above 1e-6 of the close, so that dividing by
it never explodes; ``macd`` and the EMAs are in price units."""

_N_HTF = 20
_HTF = 4 + _N_HTF  # end of the higher bar under way, its close so far, number completed, their sign, ring of closes
N_STATE = 1 + 2 * _HTF
_BLOCK = 512
LOOKBACK = 640
"""Bars before t, with their series, that the features of bar t may read."""


@kernel
def advance(
    state: FloatArray,
    bars: FloatArray,
    known_at: IntArray,
    bar_us: int,
    series: FloatArray,
    start: int,
    stop: int,
) -> None:
    """Fill the series of bars start..stop-1 from the bars up to each and the series of the bar before.

    Parameters
    ----------
    state : ndarray of shape (N_STATE,)
        Zeros before the first bar; changed in place. The first element counts the bars seen.
    bars : ndarray of shape (5, n)
        Rows as in `BAR`.
    known_at : ndarray of shape (n,), UTC microseconds
    bar_us : int, microseconds
        Length of a bar; 0 where it is not known yet, which leaves the higher timeframes NaN.
    series : ndarray of shape (n_series, n)
        Rows as in `SERIES`; changed in place. NaN until a value can be formed; recursions begin with the first bar.

    Point in time
    -------------
    Column t reads bars 0..t.
    """
    for begin in range(start, stop, _BLOCK):  # the block's columns stay in the processor's cache from step to step
        _advance_block(state, bars, known_at, bar_us, series, begin, min(begin + _BLOCK, stop))


@kernel
def _advance_block(
    state: FloatArray,
    bars: FloatArray,
    known_at: IntArray,
    bar_us: int,
    series: FloatArray,
    start: int,
    stop: int,
) -> None:
    first = int(state[0])  # age of the first bar: how many came before it
    state[0] += stop - start
    series[:, start:stop] = np.nan
    _single_bars(first, series, start, stop, bars)
    _averages(first, series, start, stop, bars)
    _wilder(first, series, start, stop, bars)
    _directional_movement(first, series, start, stop, bars)
    _moves(first, series, start, stop, bars)
    _short_windows(first, series, start, stop, bars)
    _traded(first, series, start, stop, bars)
    if bar_us > 0:
        _higher_bars(state[1 : 1 + _HTF], known_at, 4 * bar_us, bars[3], start, stop, series[SERIES.htf_4])
        _higher_bars(state[1 + _HTF :], known_at, 16 * bar_us, bars[3], start, stop, series[SERIES.htf_16])


@kernel
def _ema(series: FloatArray, row: int, t: int, value: float, span: int, is_first: bool) -> None:
    """An exponential average with weight 2 / (span + 1), seeded at its first value."""
    if is_first:
        series[row, t] = value
    else:
        series[row, t] = series[row, t - 1] + 2.0 / (span + 1.0) * (value - series[row, t - 1])


@kernel
def _single_bars(first: int, series: FloatArray, start: int, stop: int, bars: FloatArray) -> None:
    """What a bar and the close before it give."""
    open_, high, low, close, volume = bars[0], bars[1], bars[2], bars[3], bars[4]
    for t in range(start, stop):
        here = close[t]
        log_open, log_high, log_low, log_close = np.log(open_[t]), np.log(high[t]), np.log(low[t]), np.log(here)
        series[SERIES.log_high, t] = log_high
        series[SERIES.log_low, t] = log_low
        series[SERIES.log_close, t] = log_close
        series[SERIES.log_close_open, t] = log_close - log_open
        series[SERIES.log_high_low, t] = log_high - log_low
        series[SERIES.rogers_satchell, t] = (log_high - log_close) * (log_high - log_open) + (log_low - log_close) * (
            log_low - log_open
        )
        true_range = high[t] - low[t]
        if first + t - start > 0:
            before = close[t - 1]
            true_range = max(true_range, abs(high[t] - before), abs(low[t] - before))
            change = np.log(here / before)  # a difference of logs would lose the last digits of quiet bars
            series[SERIES.log_return, t] = change
            series[SERIES.log_open_gap, t] = log_open - series[SERIES.log_close, t - 1]
            series[SERIES.spread_cs, t] = _spread_cs(series, high, low, close, t)
            if volume[t] > 0.0:
                series[SERIES.impact, t] = abs(change) / (here * volume[t])
        series[SERIES.true_range, t] = true_range
        if volume[t] > 0.0:
            series[SERIES.log_volume, t] = np.log(volume[t])


@kernel
def _averages(first: int, series: FloatArray, start: int, stop: int, bars: FloatArray) -> None:
    close, volume = bars[3], bars[4]
    for t in range(start, stop):
        is_first = first + t - start == 0
        here = close[t]
        _ema(series, SERIES.ema_5, t, here, 5, is_first)
        _ema(series, SERIES.ema_10, t, here, 10, is_first)
        _ema(series, SERIES.ema_12, t, here, 12, is_first)
        _ema(series, SERIES.ema_20, t, here, 20, is_first)
        _ema(series, SERIES.ema_26, t, here, 26, is_first)
        _ema(series, SERIES.ema_50, t, here, 50, is_first)
        _ema(series, SERIES.ema_100, t, here, 100, is_first)
        _ema(series, SERIES.ema_200, t, here, 200, is_first)
        series[SERIES.macd, t] = series[SERIES.ema_12, t] - series[SERIES.ema_26, t]
        _ema(series, SERIES.macd_signal, t, series[SERIES.macd, t], 9, is_first)
        # a missing volume ends these averages, and the next one begins them anew
        is_new = is_first or np.isnan(series[SERIES.ema_12_volume, t - 1])
        series[SERIES.volume_age, t] = 0.0 if is_new else series[SERIES.volume_age, t - 1] + 1.0
        _ema(series, SERIES.ema_12_volume, t, volume[t], 12, is_new)
        _ema(series, SERIES.ema_26_volume, t, volume[t], 26, is_new)


@kernel
def _wilder(first: int, series: FloatArray, start: int, stop: int, bars: FloatArray) -> None:
    """Wilder's averages of the true range over five periods."""
    close = bars[3]
    for t in range(start, stop):
        age = first + t - start
        for k in range(5):
            period = (7, 10, 14, 21, 50)[k]
            row = SERIES.wilder_7 + k
            if age == period - 1:
                series[row, t] = total(series[SERIES.true_range], t, period) / period
            elif age >= period:
                series[row, t] = (series[row, t - 1] * (period - 1) + series[SERIES.true_range, t]) / period
        atr = series[SERIES.wilder_14, t]
        if atr > STILL * close[t]:
            series[SERIES.atr, t] = atr
            series[SERIES.atr_frac, t] = atr / close[t]
            series[SERIES.log_atr, t] = np.log(atr)


@kernel
def _directional_movement(first: int, series: FloatArray, start: int, stop: int, bars: FloatArray) -> None:
    high, low, close = bars[1], bars[2], bars[3]
    for t in range(start, stop):
        age = first + t - start
        if age == 0:
            series[SERIES.dm_range : SERIES.dx_mean + 1, t] = 0.0
            continue
        up = high[t] - high[t - 1]
        down = low[t - 1] - low[t]
        is_tie = abs(up - down) <= TIE * close[t]
        plus = up if up > down and up > 0.0 and not is_tie else 0.0
        minus = down if down > up and down > 0.0 and not is_tie else 0.0
        seen = min(age, 14)
        spread = series[SERIES.dm_range, t - 1] + (series[SERIES.true_range, t] - series[SERIES.dm_range, t - 1]) / seen
        plus_mean = series[SERIES.dm_plus, t - 1] + (plus - series[SERIES.dm_plus, t - 1]) / seen
        minus_mean = series[SERIES.dm_minus, t - 1] + (minus - series[SERIES.dm_minus, t - 1]) / seen
        dx_mean = series[SERIES.dx_mean, t - 1]
        if age >= 14:
            moved = plus_mean + minus_mean
            dx = 100.0 * abs(plus_mean - minus_mean) / moved if moved > 1e-12 * close[t] else 0.0
            dx_mean += (dx - dx_mean) / min(age - 13, 14)
            if spread > STILL * close[t]:
                series[SERIES.di_plus, t] = 100.0 * plus_mean / spread
                series[SERIES.di_minus, t] = 100.0 * minus_mean / spread
                if age >= 27:
                    series[SERIES.adx, t] = dx_mean
        series[SERIES.dm_range, t] = spread
        series[SERIES.dm_plus, t] = plus_mean
        series[SERIES.dm_minus, t] = minus_mean
        series[SERIES.dx_mean, t] = dx_mean


@kernel
def _moves(first: int, series: FloatArray, start: int, stop: int, bars: FloatArray) -> None:
    """Recursions on the change of the close: RSI, TSI, and the RiskMetrics variance."""
    close = bars[3]
    for t in range(start, stop):
        age = first + t - start
        if age == 0:
            continue
        change = close[t] - close[t - 1]
        for k in range(2):
            period = (7, 14)[k]
            gain, loss = SERIES.gain_7 + 2 * k, SERIES.loss_7 + 2 * k
            old_gain = series[gain, t - 1] if age > 1 else 0.0
            old_loss = series[loss, t - 1] if age > 1 else 0.0
            series[gain, t] = (old_gain * (period - 1) + max(change, 0.0)) / period
            series[loss, t] = (old_loss * (period - 1) + max(-change, 0.0)) / period
            moved = series[gain, t] + series[loss, t]
            if moved > STILL * close[t]:
                series[SERIES.rsi_7 + k, t] = 100.0 * series[gain, t] / moved
        _ema(series, SERIES.tsi_move, t, change, 25, age == 1)
        _ema(series, SERIES.tsi_move_2, t, series[SERIES.tsi_move, t], 13, age == 1)
        _ema(series, SERIES.tsi_path, t, abs(change), 25, age == 1)
        _ema(series, SERIES.tsi_path_2, t, series[SERIES.tsi_path, t], 13, age == 1)
        square = series[SERIES.log_return, t] ** 2
        old = series[SERIES.ewma_square, t - 1] if age > 1 else square
        series[SERIES.ewma_square, t] = old + 0.06 * (square - old)


@kernel
def _short_windows(first: int, series: FloatArray, start: int, stop: int, bars: FloatArray) -> None:
    """Values of short windows of closes that features look back upon in turn."""
    close = bars[3]
    for t in range(start, stop):
        age = first + t - start
        here = close[t]
        path = 0.0
        if age >= 10:
            for j in range(t - 9, t + 1):
                path += abs(close[j] - close[j - 1])
            efficiency = abs(here - close[t - 10]) / path if path > FLAT * here else 0.0
            pace = (efficiency * (2.0 / 3.0 - 2.0 / 31.0) + 2.0 / 31.0) ** 2
            old = series[SERIES.kama, t - 1] if age > 10 else here
            series[SERIES.kama, t] = old + pace * (here - old)
        if age >= 13:
            series[SERIES.below_high_14, t] = 100.0 * (1.0 - here / highest(close, t, 14))
        if age >= 19:
            gap = gap_to_mean(close, t, 20)
            square = 0.0
            for j in range(t - 19, t + 1):
                square += (close[j] - here + gap) ** 2
            series[SERIES.bb_width, t] = 4.0 * np.sqrt(square / 20.0) / (here - gap)
        if age >= 20:
            for j in range(t - 19, t - 9):
                path += abs(close[j] - close[j - 1])
            if path > FLAT * here:
                efficiency = abs(here - close[t - 20]) / path
                series[SERIES.er_20, t] = efficiency
                adx = series[SERIES.adx, t]
                if not np.isnan(adx):
                    # on ticks an efficiency is often 3/10 exactly, which rounding must not push over the line
                    series[SERIES.is_trending, t] = 1.0 if adx > 25.0 and efficiency > 0.3 + 1e-9 else 0.0


@kernel
def _traded(first: int, series: FloatArray, start: int, stop: int, bars: FloatArray) -> None:
    """Values of short windows of volumes that features look back upon in turn."""
    volume = bars[4]
    for t in range(start, stop):
        age = first + t - start
        if age >= 20:
            impact = 0.0
            n_traded = 0
            for j in range(t - 19, t + 1):
                if volume[j] > 0.0:
                    impact += series[SERIES.impact, j]
                    n_traded += 1
            if n_traded > 0:
                series[SERIES.amihud_20, t] = impact / n_traded
        is_traded = age >= 25 and total(volume, t, 26) > 0.0
        pvo = 100.0 * (series[SERIES.ema_12_volume, t] / series[SERIES.ema_26_volume, t] - 1.0) if is_traded else 0.0
        if is_traded:
            series[SERIES.pvo, t] = pvo
        _ema(series, SERIES.pvo_signal, t, pvo, 9, age == 0)


@kernel
def _spread_cs(series: FloatArray, high: FloatArray, low: FloatArray, close: FloatArray, t: int) -> float:
    """Relative spread of two bars, negative ones as 0. Corwin and Schultz (2012), eqs. 14 and 18."""
    top, bottom = series[SERIES.log_high, t], series[SERIES.log_low, t]
    # a gap is no trading range: the bar after it is moved back to the close before
    if low[t] > close[t - 1]:
        top, bottom = np.log(high[t] - low[t] + close[t - 1]), series[SERIES.log_close, t - 1]
    elif high[t] < close[t - 1]:
        top, bottom = series[SERIES.log_close, t - 1], np.log(low[t] - high[t] + close[t - 1])
    top_before, bottom_before = series[SERIES.log_high, t - 1], series[SERIES.log_low, t - 1]
    beta = (top_before - bottom_before) ** 2 + (top - bottom) ** 2
    gamma = (max(top, top_before) - min(bottom, bottom_before)) ** 2
    scale = 3.0 - 2.0 * np.sqrt(2.0)
    alpha = (np.sqrt(2.0) - 1.0) / scale * np.sqrt(beta) - np.sqrt(gamma / scale)
    return float(2.0 * np.tanh(alpha / 2.0)) if alpha > 0.0 else 0.0


@kernel
def _higher_bars(
    state: FloatArray, known_at: IntArray, length_us: int, close: FloatArray, start: int, stop: int, out: FloatArray
) -> None:
    """Sign of close - SMA20 over the completed bars of a higher timeframe, at each bar's end."""
    for t in range(start, stop):
        if state[1] == 0.0 or known_at[t] > state[0]:  # beyond the end of the higher bar under way, or none is
            if state[1] > 0.0:
                # it had ended with the bar before, though nobody could say so then
                _complete(state, state[1])
            state[0] = ((known_at[t] - 1) // length_us + 1) * length_us
        state[1] = close[t]
        if known_at[t] == state[0]:
            _complete(state, close[t])
            state[1] = 0.0
        if state[2] >= _N_HTF:
            out[t] = state[3]


@kernel
def _complete(state: FloatArray, last: float) -> None:
    """Append a completed bar's close, count it, and renew the sign."""
    n_done = int(state[2])
    ring = state[4:]
    ring[n_done % _N_HTF] = last
    gap = 0.0
    for back in range(min(n_done + 1, _N_HTF)):
        gap += last - ring[(n_done - back) % _N_HTF]
    state[2] = n_done + 1
    state[3] = sign(gap / _N_HTF, TIE * last)
