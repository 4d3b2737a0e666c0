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

_UNIT_MICROS = {
    "w": 604_800_000_000,
    "d": 86_400_000_000,
    "h": 3_600_000_000,
    "m": 60_000_000,
    "s": 1_000_000,
    "ms": 1_000,
}
_MONTHS = "mo"
_TIMEFRAME = re.compile(r"([1-9]\d*)(ms|mo|[smhdw])")
_EPOCH = datetime(1970, 1, 1)
_SPACINGS_READ = 100
_DAYS_OF_MONTHS = {1: (28, 31), 3: (90, 92), 6: (181, 184), 12: (365, 366)}


def parse_timeframe(timeframe: str) -> tuple[int, str]:
    """Count and unit of a timeframe.

    Raises
    ------
    DataError
        If `timeframe` is not a count and a unit of ms, s, m, h, d, w, mo.

    Examples
    --------
    >>> parse_timeframe("4h")
    (4, 'h')
    """
    if isinstance(timeframe, str) and re.fullmatch(r"\d+M", timeframe):
        raise DataError(
            f"timeframe {timeframe!r} may mean months or minutes. Write {timeframe[:-1]}mo or {timeframe[:-1]}m."
        )
    match = _TIMEFRAME.fullmatch(timeframe.lower()) if isinstance(timeframe, str) else None
    if match is None:
        raise DataError(
            f"timeframe {timeframe!r} is not understood. Write a count and a unit of ms, s, m, h, d, w, mo, "
            "such as '15m', '4h', '1d' or '1mo'."
        )
    return int(match[1]), match[2]


def timeframe_seconds(timeframe: str) -> float:
    """Length of a bar in seconds; a month counts 30 days.

    >>> timeframe_seconds("4h")
    14400.0
    """
    count, unit = parse_timeframe(timeframe)
    return count * (30 * _UNIT_MICROS["d"] if unit == _MONTHS else _UNIT_MICROS[unit]) / 1_000_000


def canonical_timeframe(timeframe: str) -> str:
    """One spelling of each timeframe, in the largest unit that divides it.

    >>> [canonical_timeframe(text) for text in ("24h", "1D", "60m", "7d", "90s", "1mo")]
    ['1d', '1d', '1h', '1w', '90s', '1mo']
    """
    count, unit = parse_timeframe(timeframe)
    return f"{count}{unit}" if unit == _MONTHS else _spelled(count * _UNIT_MICROS[unit])


def _spelled(micros: int) -> str:
    unit = next(unit for unit, size in _UNIT_MICROS.items() if micros % size == 0)
    return f"{micros // _UNIT_MICROS[unit]}{unit}"


def infer_timeframe(index: pd.DatetimeIndex) -> str:
    """Timeframe of a series from the median spacing of its first 100 bars, so that later bars cannot change it."""
    spacings = np.diff(to_micros(index[: _SPACINGS_READ + 1]))
    if len(spacings) == 0:
        raise DataError("one bar has no timeframe. Pass timeframe=, such as '1h', or at least two bars.")
    days = spacings / _UNIT_MICROS["d"]
    for n_months, (fewest, most) in _DAYS_OF_MONTHS.items():
        if spacings.min() < spacings.max() and fewest <= days.min() and days.max() <= most:
            return f"{n_months}{_MONTHS}"
    return _spelled(max(1_000, int(np.median(spacings)) // 1_000 * 1_000))


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
    count, unit = parse_timeframe(timeframe)
    stamps = to_micros(index)
    if bar_label == "close":
        return stamps
    if unit == _MONTHS or (index.tz is not None and count * _UNIT_MICROS[unit] % _UNIT_MICROS["d"] == 0):
        length = pd.DateOffset(months=count) if unit == _MONTHS else pd.Timedelta(count * _UNIT_MICROS[unit], "us")
        closes = index.tz_localize(None) + length
        if index.tz is not None:
            closes = closes.tz_localize(index.tz, ambiguous=True, nonexistent="shift_forward")
        ends = to_micros(closes)
    else:
        ends = stamps + count * _UNIT_MICROS[unit]
    shortest = int(np.diff(stamps[: _SPACINGS_READ + 1]).min(initial=np.iinfo(np.int64).max))
    if len(stamps) > 2 and shortest > 1.5 * timeframe_seconds(timeframe) * 1_000_000:
        raise DataError(
            f"timeframe is {timeframe!r}, but no two of the first bars lie closer together than {timedelta(microseconds=shortest)}. "
            "A bar would count as known long before its close; pass the true timeframe=."
        )
    early = np.flatnonzero(ends[:-1] > stamps[1:])
    if len(early):
        row = int(early[0]) + 1
        gap = timedelta(microseconds=int(stamps[row] - stamps[row - 1]))
        raise DataError(
            f"bar {row} ({index[row]}) begins {gap} after the bar before it, but timeframe is {timeframe!r}. "
            "Bars may not be closer together than their timeframe: pass the true timeframe=, resample, drop an unfinished "
            "last bar, or give days of a market with clock changes their time zone (tz_convert)."
        )
    return ends


def bar_end(stamp: int | pd.Timestamp, timeframe: str, bar_label: str = "open") -> int:
    """`known_at` of one bar, in UTC microseconds.

    Parameters
    ----------
    stamp : int, UTC microseconds, or Timestamp
        A Timestamp with a time zone lengthens days in local time.
    timeframe : str
    bar_label : {"open", "close"}, default="open"

    Examples
    --------
    >>> bar_end(0, "1h")
    3600000000
    """
    count, unit = parse_timeframe(timeframe)
    is_local = isinstance(stamp, pd.Timestamp) and count * _UNIT_MICROS.get(unit, 0) % _UNIT_MICROS["d"] == 0
    if unit == _MONTHS or is_local:
        moment = stamp if isinstance(stamp, pd.Timestamp) else pd.Timestamp(stamp, unit="us")
        return int(known_at(pd.DatetimeIndex([moment]), timeframe, bar_label)[0])
    at = from_datetime(stamp) if isinstance(stamp, pd.Timestamp) else stamp
    return at if bar_label == "close" else at + count * _UNIT_MICROS[unit]


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
