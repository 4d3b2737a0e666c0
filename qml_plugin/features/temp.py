"""Time of the bar's stamp in UTC, and gaps between bars."""

from __future__ import annotations

import numpy as np

from qml_plugin.features.catalogue import columns_of
from qml_plugin.features.compiled import kernel
from qml_plugin.records import FloatArray, IntArray

PLACE, C = columns_of("temp")
_DAY_US = 86_400_000_000


@kernel
def fill(opened_at: IntArray, bar_us: int, rows: IntArray, age: int, out: FloatArray) -> None:
    """Features of this category at some bars.

    Parameters
    ----------
    opened_at : ndarray of shape (n,), UTC microseconds
        Stamps of the bars.
    bar_us : int, microseconds
        Length of a bar; 0 where it is not known yet.
    rows, age, out
        As in `ctx.fill`.

    Point in time
    -------------
    Row i reads stamps up to ``rows[i]``.
    """
    gaps = np.empty(100, np.int64)
    for i in range(len(rows)):
        t = rows[i]
        x = out[i, PLACE]
        x[:] = np.nan
        day = opened_at[t] // _DAY_US
        if 0 < bar_us < _DAY_US:
            _time_of_day((opened_at[t] - day * _DAY_US) / 3.6e9, day, x)
        if 0 < bar_us <= 31 * _DAY_US:
            month, day_of_month, n_days = _date(day)
            angle = 2.0 * np.pi * (month - 1) / 12.0
            x[C.temp_month_sin] = np.sin(angle)
            x[C.temp_month_cos] = np.cos(angle)
            if bar_us <= _DAY_US:
                angle = 2.0 * np.pi * _weekday(day) / 7.0
                x[C.temp_dow_sin] = np.sin(angle)
                x[C.temp_dow_cos] = np.cos(angle)
                x[C.temp_dom_frac] = (day_of_month - 1.0) / n_days
        if t + age >= 100:
            x[C.temp_gap_ratio] = (opened_at[t] - opened_at[t - 1]) / _median_gap(opened_at, t, gaps)


@kernel
def _time_of_day(hour: float, day: int, x: FloatArray) -> None:
    angle = 2.0 * np.pi * hour / 24.0
    x[C.temp_hour_sin] = np.sin(angle)
    x[C.temp_hour_cos] = np.cos(angle)
    x[C.temp_is_weekend] = 1.0 if _weekday(day) >= 5 else 0.0
    x[C.temp_is_asia] = 1.0 if hour < 8.0 else 0.0
    x[C.temp_is_europe] = 1.0 if 7.0 <= hour < 16.0 else 0.0
    x[C.temp_is_us] = 1.0 if 13.0 <= hour < 22.0 else 0.0
    x[C.temp_is_overlap] = 1.0 if 13.0 <= hour < 16.0 else 0.0


@kernel
def _weekday(day: int) -> int:
    """Monday 0, of a count of days since 1970."""
    return (day + 3) % 7


@kernel
def _date(day: int) -> tuple[int, int, int]:
    """Month, day of the month and days in that month of a day since 1970, in the Gregorian calendar."""
    shifted = day + 719_468  # days since 1 March of the year 0
    era = shifted // 146_097
    of_era = shifted - era * 146_097
    year = (of_era - of_era // 1_460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    from_march = (5 * of_year + 2) // 153
    day_of_month = of_year - (153 * from_march + 2) // 5 + 1
    month = from_march + 3 if from_march < 10 else from_march - 9
    if month != 2:
        return month, day_of_month, (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)[month - 1]
    year += 1  # February belongs to the year that began in March
    return month, day_of_month, 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28


@kernel
def _median_gap(opened_at: IntArray, t: int, gaps: IntArray) -> float:
    """Median of the last 100 gaps; most series have one gap in more than half of the places, and so as the median."""
    for back in (49, 0):
        usual = opened_at[t - back] - opened_at[t - back - 1]
        n_usual = 0
        for j in range(t - 99, t + 1):
            n_usual += opened_at[j] - opened_at[j - 1] == usual
        if n_usual > 50:
            return float(usual)
    for k in range(100):
        gap = opened_at[t - k] - opened_at[t - k - 1]
        j = k
        while j > 0 and gaps[j - 1] > gap:
            gaps[j] = gaps[j - 1]
            j -= 1
        gaps[j] = gap
    return float((gaps[49] + gaps[50]) / 2.0)
