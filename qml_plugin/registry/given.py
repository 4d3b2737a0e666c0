"""A pattern described by a dictionary, as a person or another program gives it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from qml_plugin.clock import canonical_timeframe, known_at, to_micros
from qml_plugin.errors import DataError
from qml_plugin.records import Entry, FloatArray, Pattern, Point, Setup

_TEXTS = ("symbol", "timeframe", "pattern_type")
_PRICES = ("entry_price", "stop_loss", "take_profit")
_POINTS = ("left_shoulder", "head", "right_shoulder")
_GEOMETRY = tuple(f"{point}_{what}" for point in _POINTS for what in ("price", "idx"))
KEYS = (*_TEXTS, "detection_time", "detection_idx", *_PRICES, *_GEOMETRY, "validity_score")
_OPTIONAL = ("strategy",)
_LAST = 253_402_300_799_999_999  # microseconds to the end of the year 9999
# Numbers up to here are seconds or milliseconds of our days, taken for microseconds of 1970 to 1973.
_TOO_EARLY = 10**14
_LONGEST = 100
_RULE = f"pattern_data holds {', '.join(KEYS)}"


def given_pattern(
    pattern_data: Mapping[str, Any],
    features: Mapping[str, Any],
    confidence: float | None,
    feature_set: str,
    names: list[str],
) -> Pattern:
    """The pattern that a dictionary and its features describe; every value is checked under its own key."""
    if not isinstance(pattern_data, Mapping):
        raise DataError(f"pattern_data is a {type(pattern_data).__name__}. It must be a dictionary: {_RULE}.")
    if missing := [key for key in KEYS if key not in pattern_data]:
        raise DataError(
            f"pattern_data lacks {', '.join(map(repr, missing))}. {_RULE}; only the shoulders and the head (all six) and "
            "validity_score may be None."
        )
    if unknown := sorted(map(repr, set(pattern_data) - {*KEYS, *_OPTIONAL})):
        raise DataError(f"pattern_data has a key {unknown[0]} that is not known. {_RULE}, and may hold strategy.")
    entry = _entry(pattern_data)
    if confidence is not None:
        confidence = _number("ml_confidence", confidence, "a probability from 0 to 1")
        if not 0 <= confidence <= 1:
            raise DataError(f"ml_confidence is {confidence!r}. It must be a probability from 0 to 1, or None.")
    return Pattern(entry, feature_vector_of(features, names), feature_set, confidence=confidence)


def feature_vector_of(features: Mapping[str, Any], names: list[str]) -> FloatArray:
    """Features by name as a vector in the order of the catalogue; one left out has no value."""
    if not isinstance(features, Mapping):
        raise DataError(f"features is a {type(features).__name__}. It must be a dictionary of numbers by feature name.")
    known = set(names)
    if unknown := [name for name in features if name not in known]:
        raise DataError(
            f"feature {unknown[0]!r} is not in the catalogue. `qml features list` names the {len(names)} that are; a "
            "feature left out counts as missing."
        )
    if not features:
        raise DataError("features is empty. Give at least one feature of the catalogue by name.")
    return np.array([_feature(name, features.get(name)) for name in names], np.float64)


def moment(value: object, what: str) -> int:
    """UTC microseconds of a time in any usual form; a naive one is UTC."""
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool) and abs(int(value)) <= _LAST:
        return int(value)
    if isinstance(value, (str, datetime, pd.Timestamp, np.datetime64)):
        with suppress(ValueError, OverflowError):
            index = pd.DatetimeIndex([pd.Timestamp(value)])
            if not index.hasnans:
                return int(to_micros(index)[0])
    raise DataError(
        f"{what} is {value!r}. It must be a datetime, a text such as '2024-03-31 12:00' (UTC where it names no zone), "
        "or microseconds since 1970 in UTC."
    )


def _entry(data: Mapping[str, Any]) -> Entry:
    texts = {key: _text(key, data[key]) for key in _TEXTS}
    try:
        timeframe = canonical_timeframe(texts["timeframe"])
    except (DataError, OverflowError) as error:
        raise _wrong("timeframe", data["timeframe"], "a count and a unit, such as '4h'") from error
    given_at = data["detection_time"]
    if isinstance(given_at, (int, np.integer)) and 0 < given_at < _TOO_EARLY:
        raise _wrong(
            "detection_time",
            given_at,
            "microseconds since 1970, not seconds or milliseconds; pass a datetime or a text",
        )
    detection_at = moment(data["detection_time"], "'detection_time' of pattern_data")
    index = pd.DatetimeIndex([pd.Timestamp(detection_at, unit="us")])
    try:
        known = int(known_at(index, timeframe)[0])
    except OverflowError as error:
        raise _wrong("timeframe", data["timeframe"], "a count and a unit, such as '4h'") from error
    bar = _bar("detection_idx", data["detection_idx"])
    entry_px, stop_px, target_px = (_price(key, data[key]) for key in _PRICES)
    side = 1 if stop_px < entry_px else -1
    if not (side * (entry_px - stop_px) > 0):
        raise _wrong("stop_loss", data["stop_loss"], f"below entry_price {entry_px:g} (long) or above it (short)")
    if not side * (target_px - entry_px) > 0:
        where = "above" if side > 0 else "below"
        raise _wrong("take_profit", data["take_profit"], f"{where} entry_price {entry_px:g}, away from the stop")
    pattern_type = texts["pattern_type"]
    if pattern_type.startswith(("bullish", "long") if side < 0 else ("bearish", "short")):
        wanted = "below" if side < 0 else "above"
        raise _wrong("pattern_type", pattern_type, f"a side that agrees with a stop_loss {wanted} entry_price, or none")
    setup = _setup(data, pattern_type, side, bar, stop_px, target_px)
    return Entry(
        symbol=texts["symbol"],
        timeframe=timeframe,
        strategy=_text("strategy", data.get("strategy", "manual")),
        pattern_type=pattern_type,
        side=side,
        bar=bar,
        detection_at=detection_at,
        known_at=known,
        reference_px=entry_px,
        stop_px=stop_px,
        target_px=target_px,
        fill="close",
        setup=setup,
    )


def _setup(data: Mapping[str, Any], pattern_type: str, side: int, bar: int, stop_px: float, target_px: float) -> Setup:
    """The geometry: left shoulder, head and right shoulder, or no points where all six values are None."""
    score = data["validity_score"]
    if score is not None:
        score = _number("validity_score", score, "a number, or None")
    points: list[Point] = []
    if any(data[key] is not None for key in _GEOMETRY):
        for name in _POINTS:
            at = _bar(f"{name}_idx", data[f"{name}_idx"])
            if at > bar or (points and at <= points[-1].bar):
                raise _wrong(f"{name}_idx", at, "after the point before it and not after detection_idx")
            points.append(Point(at, _price(f"{name}_price", data[f"{name}_price"]), bar))
    return Setup(pattern_type, side, tuple(points), bar, stop_px, target_px, score)


def _text(key: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable() or len(value) > _LONGEST:
        shown = value[:_LONGEST] if isinstance(value, str) else value
        raise _wrong(key, shown, f"a printable text that is not empty, of at most {_LONGEST} characters")
    return value


def _number(key: str, value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise _wrong(key, value, what)
    with suppress(OverflowError):
        number = float(value)
        if math.isfinite(number):
            return number
    raise _wrong(key, value, what)


def _price(key: str, value: object) -> float:
    price = _number(key, value, "a price above 0")
    if price <= 0:
        raise _wrong(key, value, "a price above 0")
    return price


def _bar(key: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
        raise _wrong(key, value, "a whole number from 0: the position of the bar in its series")
    return int(value)


def _feature(name: str, value: object) -> float:
    if value is None:
        return math.nan
    if not isinstance(value, (bool, int, float, np.integer, np.floating, np.bool_)):
        raise DataError(f"feature {name!r} is {value!r}. It must be a number, or None where there is no value.")
    return float(value)


def _wrong(key: str, value: object, what: str) -> DataError:
    return DataError(f"{key!r} of pattern_data is {value!r}. It must be {what}; nothing was registered.")
