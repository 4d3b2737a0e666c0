"""Time: UTC conversion, bar durations and the moment at which a bar is known.

This is the only module that turns stamps into comparable times. Inside the package a time is an integer of
microseconds since 1970-01-01 UTC, the resolution of both pandas and SQLite's DATETIME text.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd

from qml_plugin.errors import DataError
from qml_plugin.records import IntArray

_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_TIMEFRAME = re.compile(r"([1-9]\d*)([smhdw])")
_EPOCH = datetime(1970, 1, 1)
_SPACINGS_READ = 100


def timeframe_seconds(timeframe: str) -> int:
    """Length of a bar in seconds.

    Raises
    ------
    DataError
        If `timeframe` is not a count and a unit of s, m, h, d, w.

    Examples
    --------
    >>> timeframe_seconds("4h")
    14400
    """
    match = _TIMEFRAME.fullmatch(timeframe.lower()) if isinstance(timeframe, str) else None
    if match is None:
        raise DataError(
            f"timeframe {timeframe!r} is not understood. Write a count and a unit of s, m, h, d, w, such as '15m', '4h' or '1d'."
        )
    return int(match[1]) * _UNIT_SECONDS[match[2]]


def infer_timeframe(index: pd.DatetimeIndex) -> str:
    """Timeframe of a series from the median spacing of its first 100 bars, so that later bars cannot change it."""
    spacings_s = np.diff(to_micros(index[: _SPACINGS_READ + 1])) // 1_000_000
    if len(spacings_s) == 0:
        raise DataError("one bar has no timeframe. Pass timeframe=, such as '1h', or at least two bars.")
    seconds = max(1, int(np.median(spacings_s)))
    for unit in ("d", "h", "m", "s"):
        if seconds % _UNIT_SECONDS[unit] == 0:
            return f"{seconds // _UNIT_SECONDS[unit]}{unit}"
    raise AssertionError("every whole number of seconds is a multiple of one second")


def to_micros(index: pd.DatetimeIndex) -> IntArray:
    """UTC microseconds of each stamp; naive stamps are taken as UTC."""
    utc = index.tz_convert("UTC").tz_localize(None) if index.tz is not None else index
    return utc.as_unit("us").asi8


def known_at(index: pd.DatetimeIndex, timeframe: str, bar_label: str = "open") -> IntArray:
    """When each bar's close is known, in UTC microseconds.

    Parameters
    ----------
    index : DatetimeIndex of shape (n_bars,)
        Bar stamps, strictly increasing; naive is UTC.
    timeframe : str
        Length of a bar, such as ``"1h"``.
    bar_label : {"open", "close"}, default="open"
        What the stamp marks.

    Returns
    -------
    ndarray of shape (n_bars,), int64
        The stamp plus one timeframe for ``"open"``, the stamp itself for ``"close"``. Bars of whole days with a
        time zone are lengthened in local time, so that a day with a clock change is still one day.

    Point in time
    -------------
    Entry t reads index[t] only.

    Raises
    ------
    DataError
        If `bar_label` is unknown, or two bars lie closer together than `timeframe`: a bar would then be known only
        after the next one had begun.
    """
    if bar_label not in ("open", "close"):
        raise DataError(
            f"bar_label {bar_label!r} is unknown. Use 'open' (the stamp is the bar's open time) or 'close'."
        )
    seconds = timeframe_seconds(timeframe)
    stamps = to_micros(index)
    if bar_label == "close":
        return stamps
    if index.tz is not None and seconds % 86_400 == 0:
        closes = (index.tz_localize(None) + pd.Timedelta(seconds, "s")).tz_localize(
            index.tz, ambiguous=True, nonexistent="shift_forward"
        )
        ends = to_micros(closes)
    else:
        ends = stamps + seconds * 1_000_000
    early = np.flatnonzero(ends[:-1] > stamps[1:])
    if len(early):
        row = int(early[0]) + 1
        gap = timedelta(microseconds=int(stamps[row] - stamps[row - 1]))
        raise DataError(
            f"bar {row} ({index[row]}) begins {gap} after the bar before it, but timeframe is {timeframe!r}. "
            "Bars may not be closer together than their timeframe; pass the true timeframe=, or resample."
        )
    return ends


def to_datetime(at: int) -> datetime:
    """Naive UTC datetime, as the registry stores it."""
    return _EPOCH + timedelta(microseconds=int(at))


def from_datetime(moment: datetime) -> int:
    """UTC microseconds of a datetime; a naive one is taken as UTC.

    >>> from_datetime(to_datetime(1_700_000_000_123_456))
    1700000000123456
    """
    naive = moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
    return (naive - _EPOCH) // timedelta(microseconds=1)


def isoformat(at: int) -> str:
    """UTC text for people: minutes, or seconds where there are any.

    >>> isoformat(1_700_000_040_000_000)
    '2023-11-14 22:14'
    """
    moment = to_datetime(at)
    return moment.isoformat(" ", "minutes" if moment.second == 0 and moment.microsecond == 0 else "seconds")
