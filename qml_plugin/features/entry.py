"""Features of one entry: the geometry of its setup, the distances of its order, bars and volume at its points."""

from __future__ import annotations

import math
from collections import namedtuple
from typing import Any

import numpy as np

from qml_plugin.errors import DataError, LookAheadError
from qml_plugin.features.catalogue import CATALOGUE, N_BUILT_IN
from qml_plugin.features.compiled import kernel
from qml_plugin.features.kernels import FLAT, highest, lowest, over, total
from qml_plugin.features.market import MarketFeatures
from qml_plugin.features.series import SERIES
from qml_plugin.records import Entry, FloatArray, IntArray, Setup

ORDER_NAMES = tuple(f.name for f in CATALOGUE[:N_BUILT_IN] if f.needs == "order")
SETUP_NAMES = tuple(f.name for f in CATALOGUE[:N_BUILT_IN] if f.needs == "setup")
_NAMES = (*ORDER_NAMES, *SETUP_NAMES)
C: Any = namedtuple("Columns", _NAMES)(*range(len(_NAMES)))
_PLACES = np.array([CATALOGUE.place(name) for name in _NAMES])
_WARMUPS = np.array([CATALOGUE[name].warmup for name in _NAMES])
_RSI_WARMUP = CATALOGUE["geo_rsi_div_head"].warmup
_MACD_WARMUP = CATALOGUE["geo_macd_div_head_atr"].warmup
_NO_PX = np.empty(0)
_NO_BARS = np.empty(0, np.int64)


def entry_features(market: MarketFeatures, entry: Entry, *, last_entry_bar: int | None = None) -> FloatArray:
    """The market's features at the bar of an entry, completed by the features of the entry itself.

    Parameters
    ----------
    market : MarketFeatures
        Of the series the entry was made on; it may end at ``entry.bar`` or reach beyond it.
    entry : Entry
        Its setup gives the geometry; other than five points, or no setup, leave the geometry NaN. A stop or target
        that is infinite counts as none.
    last_entry_bar : int, optional
        Bar of the strategy's entry before this one.

    Returns
    -------
    ndarray of shape (n_features,)
        In the order of ``CATALOGUE``; NaN where a feature has no value for this entry.

    Point in time
    -------------
    Reads bars up to ``entry.bar``.

    Raises
    ------
    DataError
        If the entry, the entry before it, or a point of its setup lies outside the bars, or a point has no price.
    LookAheadError
        If the setup, or one of its points, was not known at the close of ``entry.bar``.
    """
    at, side, n_bars = int(entry.bar), int(entry.side), len(market.bars)  # other integers would be compiled anew
    if not 0 <= at < n_bars:
        raise DataError(f"entry at bar {at} lies outside the {n_bars} bars. Pass the bars it was made on.")
    if last_entry_bar is not None and not 0 <= last_entry_bar <= at:
        raise DataError(
            f"the last entry is at bar {last_entry_bar}, this one at bar {at}. It must come before or with it."
        )
    points_bar, points_px = _NO_BARS, _NO_PX
    if entry.setup is not None:
        _refuse_unknown(entry.setup, at)
        if len(entry.setup.points) == 5:
            points_bar = np.array([point.bar for point in entry.setup.points], dtype=np.int64)
            points_px = np.array([point.px for point in entry.setup.points], dtype=np.float64)
    values = np.full(len(_NAMES), np.nan)
    prices = np.array([entry.reference_px, entry.stop_px, entry.target_px], dtype=np.float64)
    prices[np.isinf(prices)] = np.nan
    last = -1 if last_entry_bar is None else int(last_entry_bar)
    _order(market.matrix, market.series, at, side, prices, last, values)
    if len(points_bar):
        _setup(market.matrix, market.series, at, side, prices, points_bar, points_px, values)
    values[at < _WARMUPS] = np.nan
    out: FloatArray = market.rows([at])[0]
    out[_PLACES] = values
    return out


def _refuse_unknown(setup: Setup, at: int) -> None:
    if setup.known_bar > at:
        raise LookAheadError(
            f"the setup of an entry at bar {at} is known at bar {setup.known_bar} only. Enter at its known_bar or later."
        )
    block = setup.order_block
    for name, bar in [(level.name, level.bar) for level in setup.levels] + (
        [("order block", block.bar)] if block else []
    ):
        if bar > at:
            raise LookAheadError(
                f"the {name} of a setup lies at bar {bar}, but the entry is at bar {at}. Geometry must be known by the close "
                "of the entry's bar."
            )
    for number, point in enumerate(setup.points, 1):
        if max(point.bar, point.confirmed_bar) > at:
            raise LookAheadError(
                f"P{number} lies at bar {point.bar}, confirmed at bar {point.confirmed_bar}, but the entry is at bar {at}. "
                "Points must be confirmed by the close of the entry's bar."
            )
        if point.bar < 0:
            raise DataError(f"P{number} lies at bar {point.bar}, before the first bar. Bars count from 0.")
        if not math.isfinite(point.px):
            raise DataError(
                f"P{number}, at bar {point.bar}, has the price {point.px}. Points lie at prices of the bars."
            )


@kernel
def _order(
    bars: FloatArray, series: FloatArray, at: int, side: int, prices: FloatArray, last_entry_bar: int, x: FloatArray
) -> None:
    atr, here = series[SERIES.atr, at], bars[3, at]
    reference, stop, target = prices
    risk = side * (reference - stop)
    reward = side * (target - reference)
    x[C.geo_risk_atr] = risk / atr
    x[C.geo_reward_atr] = reward / atr
    x[C.geo_rr_ratio] = over(reward, risk, FLAT * here)
    x[C.geo_entry_body_frac] = _body(bars, at, side)
    x[C.geo_is_bullish] = 1.0 if side > 0 else 0.0
    if last_entry_bar >= 0:
        x[C.temp_since_last_signal_log] = np.log1p(at - last_entry_bar)


@kernel
def _body(bars: FloatArray, t: int, side: int) -> float:
    return over(side * (bars[3, t] - bars[0, t]), bars[1, t] - bars[2, t], FLAT * bars[3, t])


@kernel
def _setup(
    bars: FloatArray,
    series: FloatArray,
    at: int,
    side: int,
    prices: FloatArray,
    bar: IntArray,
    px: FloatArray,
    x: FloatArray,
) -> None:
    close = bars[3]
    atr, here = series[SERIES.atr, at], close[at]
    floor = FLAT * here
    p1, p2, p3, p4, p5 = px[0], px[1], px[2], px[3], px[4]
    b1, b2, b3, b4, b5 = bar[0], bar[1], bar[2], bar[3], bar[4]
    # legs count along the setup: positive where the points lie as in a regular one of this side
    leg1 = side * (p2 - p1)
    leg2 = -side * (p3 - p2)
    leg3 = side * (p4 - p3)
    leg4 = -side * (p5 - p4)
    left = -side * (p3 - p1)
    right = -side * (p3 - p5)
    x[C.geo_head_depth_atr] = left / atr
    x[C.geo_leg1_atr] = leg1 / atr
    x[C.geo_leg2_atr] = leg2 / atr
    x[C.geo_leg3_atr] = leg3 / atr
    x[C.geo_leg4_atr] = leg4 / atr
    x[C.geo_leg_ratio_21] = over(leg2, leg1, floor)
    x[C.geo_leg_ratio_32] = over(leg3, leg2, floor)
    x[C.geo_bos_depth_atr] = side * (p4 - p2) / atr
    x[C.geo_retrace_p5] = over(leg4, leg3, floor)
    x[C.geo_shoulder_diff_atr] = -side * (p5 - p1) / atr
    if min(left, right) > floor:
        x[C.geo_shoulder_sym] = min(left, right) / max(left, right)
    x[C.geo_entry_neck_dist_atr] = side * (here - p2) / atr
    x[C.geo_stop_head_gap_atr] = side * (p3 - prices[1]) / atr
    x[C.geo_neckline_slope_atr] = over(side * (p4 - p2) / atr, float(b4 - b2), 0.0)
    x[C.geo_speed_choch_atr] = over(leg1 / atr, float(b2 - b1), 0.0)
    x[C.geo_speed_bos_atr] = over(leg3 / atr, float(b4 - b3), 0.0)
    length = float(b5 - b1)
    x[C.geo_time_leg1_frac] = over(float(b2 - b1), length, 0.0)
    x[C.geo_time_leg2_frac] = over(float(b3 - b2), length, 0.0)
    x[C.geo_time_leg3_frac] = over(float(b4 - b3), length, 0.0)
    x[C.geo_time_ratio] = over(float(b3 - b1), float(b5 - b3), 0.0)
    x[C.geo_choch_body_frac] = _body(bars, b2, side)
    x[C.geo_bos_body_frac] = _body(bars, b4, side)
    if b3 >= b1:
        x[C.geo_area_ratio] = over(_area(close, b1, b3, p2), _area(close, b3, b5, p2), floor)
    x[C.geo_noise_ratio] = _noise(bars, b1, at)
    if b5 >= b1:
        x[C.temp_bars_pattern_log] = np.log1p(b5 - b1)
    x[C.temp_bars_since_head_log] = np.log1p(at - b3)
    x[C.temp_bars_since_bos_log] = np.log1p(at - b4)
    x[C.temp_bars_since_choch_log] = np.log1p(at - b2)
    path = 0.0
    for j in range(b1 + 1, b5 + 1):
        path += abs(close[j] - close[j - 1])
    x[C.geo_path_eff] = over(abs(close[b5] - close[b1]), path, floor)
    if b1 >= 20:
        x[C.geo_prior_trend_20_atr] = -side * (close[b1] - close[b1 - 20]) / atr
    if b1 >= 50:
        x[C.geo_prior_trend_50_atr] = -side * (close[b1] - close[b1 - 50]) / atr
    if b1 >= 100:
        ahead = highest(bars[1], b1 - 1, 100) if side > 0 else lowest(bars[2], b1 - 1, 100)
        x[C.geo_sr_dist_atr] = side * (ahead - here) / atr
    earlier = min(b1, b3)
    if earlier >= _RSI_WARMUP:
        x[C.geo_rsi_div_head] = side * (series[SERIES.rsi_14, b3] - series[SERIES.rsi_14, b1])
    if earlier >= _MACD_WARMUP:
        head = series[SERIES.macd, b3] - series[SERIES.macd_signal, b3]
        shoulder = series[SERIES.macd, b1] - series[SERIES.macd_signal, b1]
        x[C.geo_macd_div_head_atr] = side * (head - shoulder) / atr
    volume = bars[4]
    x[C.vol_relative_at_head] = _burst(volume, b3)
    x[C.vol_relative_at_bos] = _burst(volume, b4)
    x[C.vol_relative_at_choch] = _burst(volume, b2)
    x[C.vol_relative_pattern_slope] = _slope(volume, b1, b5)


@kernel
def _area(close: FloatArray, first: int, last: int, level: float) -> float:
    out = 0.0
    for j in range(first, last + 1):
        out += abs(close[j] - level)
    return out


@kernel
def _noise(bars: FloatArray, first: int, last: int) -> float:
    bodies = 0.0
    wicks = 0.0
    for j in range(first, last + 1):
        body = abs(bars[3, j] - bars[0, j])
        bodies += body
        wicks += bars[1, j] - bars[2, j] - body
    return over(wicks, bodies, FLAT * bars[3, last])


@kernel
def _burst(volume: FloatArray, t: int) -> float:
    if t < 20:
        return np.nan
    return over(volume[t], total(volume, t - 1, 20) / 20.0, 0.0)


@kernel
def _slope(volume: FloatArray, first: int, last: int) -> float:
    """Change of the OLS line from end to end of the bars, in mean volumes."""
    n = last - first + 1
    if n < 2:
        return np.nan
    middle = (n - 1) / 2.0
    traded = 0.0
    cross = 0.0
    for k in range(n):
        traded += volume[first + k]
        cross += (k - middle) * volume[first + k]
    return over(cross / (n * (n * n - 1.0) / 12.0) * n, traded / n, 0.0)
