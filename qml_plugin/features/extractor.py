"""Features of one pattern that is described by a dictionary: the one-call form."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from decimal import Decimal
from difflib import get_close_matches
from numbers import Real
from typing import Any

import pandas as pd

from qml_plugin.bars import Bars, bars_from_frame
from qml_plugin.errors import DataError, LookAheadError
from qml_plugin.features.catalogue import CATALOGUE
from qml_plugin.features.entry import entry_features
from qml_plugin.features.market import MarketFeatures
from qml_plugin.records import BarrierRule, Entry, Point, Setup

_SIDES = {"bullish_qml": 1, "bearish_qml": -1}
_SHOULDERS_AND_HEAD = ("left_shoulder", "head", "right_shoulder")


class PatternFeatureExtractor:
    """Features of patterns that come as dictionaries, such as those of another detector.

    Every call computes the series of the whole frame up to the decision: where many patterns lie in one frame, make
    Entry records and call `entry_features`.

    Parameters
    ----------
    timeframe : str, optional
        Length of a bar; inferred from the frame unless given.
    bar_label : {"open", "close"}, default="open"
        What the frame's stamps mark.
    """

    def __init__(self, *, timeframe: str | None = None, bar_label: str = "open") -> None:
        self._timeframe = timeframe
        self._bar_label = bar_label

    def extract_pattern_features(
        self, pattern_data: Mapping[str, Any], market_df: pd.DataFrame, bar_idx: int
    ) -> dict[str, float]:
        """Features of one pattern at the bar of its decision.

        Parameters
        ----------
        pattern_data : mapping
            ``pattern_type`` (``"bullish_qml"``, ``"bearish_qml"``, or another with a ``side`` of +1 or -1);
            ``left_shoulder_price``, ``left_shoulder_idx`` (P1), ``head_price``, ``head_idx`` (P3),
            ``right_shoulder_price``, ``right_shoulder_idx`` (P5); ``entry_price``, ``stop_loss``, ``take_profit``;
            ``detection_idx``, the bar at whose close the pattern was known; ``validity_score``, 0..1. Optional:
            ``choch_price``, ``choch_idx`` (P2) and ``bos_price``, ``bos_idx`` (P4), which are otherwise the lowest low
            (of a bearish pattern; highest high of a bullish one) of the bars strictly between shoulder and head, the
            first of equals; and ``last_signal_idx``, bar of the strategy's entry before. Positions count from 0 at the
            first row. Other keys are not read.
        market_df : DataFrame
            Bars that `read_bars` accepts; rows after `bar_idx` are not looked at.
        bar_idx : int
            Row of the decision.

        Returns
        -------
        dict of feature name to float
            In the order of ``CATALOGUE``, the same numbers as `entry_features` gives; NaN where there is no value.

        Point in time
        -------------
        Reads rows 0..bar_idx.

        Raises
        ------
        DataError
            If a key is missing or its value impossible; the message names it.
        LookAheadError
            If the pattern, or one of its points, lies after `bar_idx`.
        """
        if not isinstance(market_df, pd.DataFrame):
            raise DataError(f"market_df is a {type(market_df).__name__}. Pass a DataFrame of bars, as for read_bars.")
        if not isinstance(pattern_data, Mapping):
            raise DataError(
                f"pattern_data is a {type(pattern_data).__name__}. Pass a dictionary that describes one pattern."
            )
        bar_idx = _row_of(bar_idx, len(market_df))
        bars = bars_from_frame(
            market_df.iloc[: bar_idx + 1], symbol="", timeframe=self._timeframe, bar_label=self._bar_label
        )
        entry = _entry(pattern_data, bars, int(bar_idx))
        last_bar = None
        if pattern_data.get("last_signal_idx") is not None:
            last_bar = _position(pattern_data, "last_signal_idx")
            if last_bar > bar_idx:
                raise LookAheadError(
                    f"last_signal_idx is {last_bar}, after bar_idx {bar_idx}. Give the entry before this one."
                )
        values = entry_features(MarketFeatures(bars), entry, last_entry_bar=last_bar)
        return dict(zip(CATALOGUE.names, values.tolist(), strict=True))


def _entry(data: Mapping[str, Any], bars: Bars, at: int) -> Entry:
    known = _position(data, "detection_idx")
    if known > at:
        raise LookAheadError(
            f"the pattern's detection_idx is {known}, the decision is at bar {at}. Ask for features at {known} or later."
        )
    side = _side(data)
    setup = Setup(
        pattern_type=str(data["pattern_type"]),
        side=side,
        points=_points(data, bars, side, known),
        known_bar=known,
        stop_px=_price(data, "stop_loss"),
        target_px=_price(data, "take_profit"),
        validity_score=_validity(data),
    )
    return Entry(
        symbol=bars.symbol,
        timeframe=bars.timeframe,
        strategy="",
        pattern_type=setup.pattern_type,
        side=side,
        bar=at,
        detection_at=int(bars.opened_at[at]),
        known_at=int(bars.known_at[at]),
        reference_px=_price(data, "entry_price"),
        stop_px=_price(data, "stop_loss"),
        target_px=_price(data, "take_profit"),
        rule=BarrierRule(),
        setup=setup,
    )


def _points(data: Mapping[str, Any], bars: Bars, side: int, known: int) -> tuple[Point, ...]:
    p1, p3, p5 = ((_position(data, f"{name}_idx"), _price(data, f"{name}_price")) for name in _SHOULDERS_AND_HEAD)
    for name, (bar, _) in zip(_SHOULDERS_AND_HEAD, (p1, p3, p5), strict=True):
        if bar > known:
            raise LookAheadError(
                f"{name}_idx is {bar}, but the pattern was known at bar {known} (detection_idx). "
                "Points lie at or before the bar that confirms them."
            )
    if not p1[0] < p3[0] < p5[0]:
        raise DataError(
            f"left_shoulder_idx {p1[0]}, head_idx {p3[0]}, right_shoulder_idx {p5[0]} are not in this order. "
            "The head lies between the shoulders."
        )
    p2 = _between(data, "choch", bars, side, p1[0], p3[0])
    p4 = _between(data, "bos", bars, side, p3[0], p5[0])
    return tuple(Point(bar, px, known) for bar, px in (p1, p2, p3, p4, p5))


def _between(data: Mapping[str, Any], name: str, bars: Bars, side: int, first: int, last: int) -> tuple[int, float]:
    """The point given, or the extreme of the bars between first and last on the other side of the head."""
    if data.get(f"{name}_idx") is not None or data.get(f"{name}_price") is not None:
        bar = _position(data, f"{name}_idx")
        if not first <= bar <= last:
            raise DataError(
                f"{name}_idx is {bar}, but shoulder and head lie at bars {first} and {last}. The point lies between them."
            )
        return bar, _price(data, f"{name}_price")
    if last - first < 2:
        raise DataError(
            f"no bar lies between bars {first} and {last}, so there is no extreme to take as {name!r}. "
            f"Give {name}_price and {name}_idx."
        )
    values = bars.high[first + 1 : last] if side > 0 else bars.low[first + 1 : last]
    bar = first + 1 + int(values.argmax() if side > 0 else values.argmin())
    return bar, float(bars.high[bar] if side > 0 else bars.low[bar])


def _side(data: Mapping[str, Any]) -> int:
    kind = _value(data, "pattern_type")
    side: Any = data.get("side")
    if not isinstance(kind, str):
        raise DataError(f"pattern_type is {kind!r}. Use {', '.join(_SIDES)}, or a name of your own and a side.")
    if kind not in _SIDES and side is None:
        raise DataError(
            f"pattern_type {kind!r} has no known side. Use {', '.join(_SIDES)}, or give 'side': +1 (long) or -1 (short)."
        )
    side = _SIDES[kind] if side is None else side
    if not _is_number(side) or side not in (1, -1):
        raise DataError(f"side is {side!r}. Use +1 (long) or -1 (short).")
    if side != _SIDES.get(kind, side):
        raise DataError(f"side is {side!r}, but pattern_type {kind!r} has side {_SIDES[kind]:+d}. Leave side out.")
    return int(side)


def _row_of(bar_idx: Any, n_rows: int) -> int:
    try:
        row = operator.index(bar_idx)
    except TypeError:
        raise DataError(f"bar_idx is {bar_idx!r}. It must be a row number, 0 for the first bar.") from None
    if not 0 <= row < n_rows:
        raise DataError(f"bar_idx {row} lies outside the {n_rows} rows. Rows count from 0.")
    return row


def _value(data: Mapping[str, Any], key: str) -> Any:
    if data.get(key) is None:
        near = get_close_matches(key, map(str, data), n=1)
        hint = f"Rename {near[0]!r}, if that is meant." if near else "Add it."
        raise DataError(f"the pattern has no {key!r}, which it needs. {hint}")
    return data[key]


def _price(data: Mapping[str, Any], key: str) -> float:
    value = _value(data, key)
    if not _is_number(value) or not 0.0 < float(value) < math.inf:
        raise DataError(f"{key} is {value!r}. It must be a positive, finite price.")
    return float(value)


def _position(data: Mapping[str, Any], key: str) -> int:
    value = _value(data, key)
    if not _is_number(value) or not float(value).is_integer() or value < 0:
        raise DataError(f"{key} is {value!r}. It must be a row number, 0 for the first bar.")
    return int(value)


def _validity(data: Mapping[str, Any]) -> float:
    value = _value(data, "validity_score")
    if not _is_number(value) or not 0.0 <= float(value) <= 1.0:
        raise DataError(f"validity_score is {value!r}. It must lie between 0 and 1.")
    return float(value)


def _is_number(value: Any) -> bool:
    """Whether it is a number of Python or numpy, whole or not; booleans and text are none."""
    return isinstance(value, (Real, Decimal)) and not isinstance(value, bool)
