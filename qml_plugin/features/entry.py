"""Features of one entry: the geometry of its setup, the distances of its order, bars and volume at its points."""

from __future__ import annotations

import numpy as np
from numba import njit

from qml_plugin.bars import Bars
from qml_plugin.errors import DataError, LookAheadError
from qml_plugin.features.catalogue import CATALOGUE
from qml_plugin.features.kernels import FLAT, STILL
from qml_plugin.records import Entry, FloatArray, IntArray, Setup

ORDER_NAMES = ("geo_risk_atr", "geo_reward_atr", "geo_rr_ratio", "geo_is_bullish")
SETUP_NAMES = (
    "geo_head_depth_atr",
    "geo_leg1_atr",
    "geo_leg2_atr",
    "geo_leg3_atr",
    "geo_leg4_atr",
    "geo_leg_ratio_21",
    "geo_leg_ratio_32",
    "geo_bos_depth_atr",
    "geo_retrace_p5",
    "geo_shoulder_diff_atr",
    "geo_shoulder_sym",
    "geo_neckline_slope_atr",
    "geo_time_ratio",
    "geo_entry_neck_dist_atr",
    "geo_stop_head_gap_atr",
    "geo_path_eff",
    "geo_prior_trend_50_atr",
    "temp_bars_pattern_log",
    "temp_bars_since_head_log",
    "temp_bars_since_bos_log",
    "temp_bars_since_choch_log",
    "vol_relative_at_head",
    "vol_relative_at_bos",
    "vol_relative_at_choch",
)
_PLACE = {feature.name: i for i, feature in enumerate(CATALOGUE)}
_ORDER_PLACES = np.array([_PLACE[name] for name in ORDER_NAMES])
_SETUP_PLACES = np.array([_PLACE[name] for name in SETUP_NAMES])
_WARMUPS = np.array([feature.warmup for feature in CATALOGUE])
_ATR_PLACE = _PLACE["ctx_atr_14_pct"]
_NO_PX = np.empty(0)
_NO_BARS = np.empty(0, np.int64)


def entry_features(bars: Bars, row: FloatArray, entry: Entry) -> FloatArray:
    """The market's features at the bar of an entry, completed by the features of the entry itself.

    Parameters
    ----------
    bars : Bars
        The series the entry was made on; it may end at ``entry.bar`` or reach beyond it.
    row : ndarray of shape (n_features,)
        Row ``entry.bar`` of `market_features`.
    entry : Entry
        Its setup gives the geometry; other than five points, or no setup, leave the geometry NaN.

    Returns
    -------
    ndarray of shape (n_features,)
        A copy in the order of ``CATALOGUE``; NaN where a feature has no value for this entry.

    Point in time
    -------------
    Reads bars up to ``entry.bar``.

    Raises
    ------
    DataError
        If the row has another length than the catalogue, or the entry or a point of its setup lies outside the bars.
    LookAheadError
        If the setup, or one of its points, was not known at the close of ``entry.bar``.
    """
    if row.shape != (len(CATALOGUE),):
        raise DataError(
            f"a row of shape {row.shape} is not a row of features; the catalogue has {len(CATALOGUE)}. "
            "Pass one row of market_features(bars)."
        )
    if not 0 <= entry.bar < len(bars):
        raise DataError(f"entry at bar {entry.bar} lies outside the {len(bars)} bars. Pass the bars it was made on.")
    at = entry.bar
    points_bar, points_px = _NO_BARS, _NO_PX
    if entry.setup is not None:
        _refuse_unknown(entry.setup, at)
        if len(entry.setup.points) == 5:
            points_bar = np.array([point.bar for point in entry.setup.points])
            points_px = np.array([point.px for point in entry.setup.points])
    values = _entry_values(
        bars.close, bars.volume, points_bar, points_px, at, entry.side, float(entry.reference_px),
        float(entry.stop_px), float(entry.target_px), row[_ATR_PLACE] * bars.close[at] / 100.0,
    )  # fmt: skip
    out = row.copy()
    out[_ORDER_PLACES] = values[:4]
    out[_SETUP_PLACES] = values[4:]
    out[at < _WARMUPS] = np.nan
    return out


def _refuse_unknown(setup: Setup, at: int) -> None:
    if setup.known_bar > at:
        raise LookAheadError(
            f"the setup of an entry at bar {at} is known at bar {setup.known_bar} only. Enter at its known_bar or later."
        )
    for number, point in enumerate(setup.points, 1):
        if max(point.bar, point.confirmed_bar) > at:
            raise LookAheadError(
                f"P{number} lies at bar {point.bar}, confirmed at bar {point.confirmed_bar}, but the entry is at bar {at}. "
                "Points must be confirmed by the close of the entry's bar."
            )
        if point.bar < 0:
            raise DataError(f"P{number} lies at bar {point.bar}, before the first bar. Bars count from 0.")


@njit(cache=True)
def _over(above: float, below: float, floor: float) -> float:
    return above / below if below > floor else np.nan


@njit(cache=True)
def _entry_values(
    close: FloatArray,
    volume: FloatArray,
    bar: IntArray,
    px: FloatArray,
    at: int,
    side: int,
    reference: float,
    stop: float,
    target: float,
    atr: float,
) -> FloatArray:
    """Values in the order of `ORDER_NAMES`, then `SETUP_NAMES`."""
    out = np.full(28, np.nan)
    floor = FLAT * close[at]
    still = STILL * close[at]
    risk = side * (reference - stop)
    reward = side * (target - reference)
    out[0] = _over(risk, atr, still)
    out[1] = _over(reward, atr, still)
    out[2] = _over(reward, risk, floor)
    out[3] = 1.0 if side > 0 else 0.0
    if len(bar) != 5:
        return out
    p1, p2, p3, p4, p5 = px
    b1, b2, b3, b4, b5 = bar
    # legs count along the setup: positive where the points lie as in a regular one of this side
    leg1 = side * (p2 - p1)
    leg2 = -side * (p3 - p2)
    leg3 = side * (p4 - p3)
    leg4 = -side * (p5 - p4)
    left = -side * (p3 - p1)
    right = -side * (p3 - p5)
    out[4] = _over(left, atr, still)
    out[5] = _over(leg1, atr, still)
    out[6] = _over(leg2, atr, still)
    out[7] = _over(leg3, atr, still)
    out[8] = _over(leg4, atr, still)
    out[9] = _over(leg2, leg1, floor)
    out[10] = _over(leg3, leg2, floor)
    out[11] = _over(side * (p4 - p2), atr, still)
    out[12] = _over(leg4, leg3, floor)
    out[13] = _over(-side * (p5 - p1), atr, still)
    if min(left, right) > 0.0:
        out[14] = _over(min(left, right), max(left, right), floor)
    if b4 > b2:
        out[15] = _over(side * (p4 - p2), atr, still) / (b4 - b2)
    out[16] = _over(float(b3 - b1), float(b5 - b3), 0.0)
    out[17] = _over(side * (close[at] - p2), atr, still)
    out[18] = _over(side * (p3 - stop), atr, still)
    path = 0.0
    for j in range(b1 + 1, b5 + 1):
        path += abs(close[j] - close[j - 1])
    out[19] = _over(abs(close[b5] - close[b1]), path, floor)
    if b1 >= 50:
        out[20] = _over(-side * (close[b1] - close[b1 - 50]), atr, still)
    if b5 >= b1:
        out[21] = np.log1p(b5 - b1)
    out[22] = np.log1p(at - b3)
    out[23] = np.log1p(at - b4)
    out[24] = np.log1p(at - b2)
    for k in range(3):
        point = (b3, b4, b2)[k]
        if point >= 20:
            before = 0.0
            for j in range(point - 20, point):
                before += volume[j] / 20.0
            out[25 + k] = _over(volume[point], before, 0.0)
    return out
