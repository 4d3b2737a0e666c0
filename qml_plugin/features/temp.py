"""Time of the bar's stamp in UTC, and gaps between bars."""

from __future__ import annotations

import numpy as np
from numba import njit

from qml_plugin.clock import timeframe_seconds
from qml_plugin.features.series import Columns, Series
from qml_plugin.records import FloatArray, IntArray

_DAY_S = 86_400
_NAMES = (
    "temp_hour_sin",
    "temp_hour_cos",
    "temp_is_weekend",
    "temp_is_asia",
    "temp_is_europe",
    "temp_is_us",
    "temp_dow_sin",
    "temp_dow_cos",
    "temp_gap_ratio",
)


def compute(s: Series, columns: Columns) -> dict[str, FloatArray]:
    """Columns of this category that need no entry."""
    return dict(zip(_NAMES, _calendar(s.bars.opened_at, int(timeframe_seconds(s.bars.timeframe))), strict=True))


@njit(cache=True)
def _calendar(opened_at: IntArray, bar_s: int) -> FloatArray:
    """Rows in the order of `_NAMES`."""
    n = len(opened_at)
    out = np.full((9, n), np.nan)
    gaps = np.empty(n)
    for t in range(n):
        second = (opened_at[t] // 1_000_000) % _DAY_S
        weekday = (opened_at[t] // (1_000_000 * _DAY_S) + 3) % 7
        if bar_s < _DAY_S:
            hour = second / 3600.0
            angle = 2.0 * np.pi * second / _DAY_S
            out[0, t] = np.sin(angle)
            out[1, t] = np.cos(angle)
            out[2, t] = 1.0 if weekday >= 5 else 0.0
            out[3, t] = 1.0 if hour < 8.0 else 0.0
            out[4, t] = 1.0 if 7.0 <= hour < 16.0 else 0.0
            out[5, t] = 1.0 if 13.0 <= hour < 22.0 else 0.0
        if bar_s <= _DAY_S:
            angle = 2.0 * np.pi * weekday / 7.0
            out[6, t] = np.sin(angle)
            out[7, t] = np.cos(angle)
        if t >= 1:
            gaps[t] = opened_at[t] - opened_at[t - 1]
        if t >= 100:
            out[8, t] = gaps[t] / np.median(gaps[t - 99 : t + 1])
    return out
