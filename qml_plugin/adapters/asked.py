"""What is asked for, read from arrays, Series and frames of signals: one `Asked` for each column."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from qml_plugin.bars import Bars, bars_from_frame
from qml_plugin.errors import DataError
from qml_plugin.records import FloatArray, Setup, Signals

BoolArray = NDArray[np.bool_]
_GIVEN = ("long_entries", "short_entries", "exits", "short_exits", "stop", "target")
_BESIDE_SIGNALS = ("long_entries", "short_exits")


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """The signals of one column, arrays of shape (n_bars,); row t is asked at the close of bar t.

    ``side`` is +1, -1 or 0; ``stop_px`` and ``target_px`` are NaN where an entry has none; ``exits_long`` and
    ``exits_short`` close what is open on that side.
    """

    label: Hashable
    bars: Bars
    side: NDArray[np.int8]
    stop_px: FloatArray
    target_px: FloatArray
    exits_long: BoolArray
    exits_short: BoolArray
    setups: Mapping[int, Setup] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Board:
    """All columns of one call: the index that they share, their labels, and whether they were given as a table."""

    index: pd.Index
    labels: pd.Index
    asked: tuple[Asked, ...]
    is_table: bool

    def shaped(self, values: NDArray[Any]) -> pd.Series | pd.DataFrame:
        """Values of shape (n_bars, n_columns) as they were given: a table, or a Series of the only column."""
        if self.is_table:
            return pd.DataFrame(values, index=self.index, columns=self.labels)
        return pd.Series(values[:, 0], index=self.index, name=self.labels[0])


def read_board(
    ohlcv: pd.DataFrame | Mapping[str, pd.DataFrame],
    long_entries: Any,
    short_entries: Any,
    exits: Any,
    short_exits: Any,
    stop: Any,
    target: Any,
    *,
    symbol: str | None,
    timeframe: str | None,
    bar_label: str,
) -> Board:
    """The columns of one call, checked against the bars they are about."""
    frames = {symbol or "UNKNOWN": ohlcv} if isinstance(ohlcv, pd.DataFrame) else _markets(ohlcv, symbol)
    if long_entries is None and short_entries is None:
        raise DataError(
            "neither long_entries nor short_entries was given. Give one of them; all False asks for nothing."
        )
    labels, is_table = _labels(long_entries, short_entries)
    if not len(labels):
        raise DataError("the entries have no columns. Give a Series, or a table with a column for each variant.")
    names = _symbols(labels, frames, is_given=not isinstance(ohlcv, pd.DataFrame))
    bars = {
        name: bars_from_frame(frames[name], symbol=name, timeframe=timeframe, bar_label=bar_label)
        for name in dict.fromkeys(names)
    }
    index = _common_index({name: frames[name] for name in bars}, bars)
    given = {
        "long_entries": long_entries, "short_entries": short_entries, "exits": exits, "short_exits": short_exits,
        "stop": stop, "target": target,
    }  # fmt: skip
    asked = []
    for place, (label, name) in enumerate(zip(labels, names, strict=True)):
        own = {what: _column(what, value, place, labels, index) for what, value in given.items()}
        asked.append(_asked(label, bars[name], index, own))
    return Board(index, labels, tuple(asked), is_table)


def asked_of(bars: Bars, index: pd.Index, given: Any) -> Asked:
    """The signals of one column as a function gives them: long entries, `Signals`, or a mapping by the names of `gate_signals`.

    Raises
    ------
    DataError
        If it gives something else, or signals that do not fit the bars.
    """
    if given is None or isinstance(given, tuple):
        raise DataError(
            f"the function gave {'nothing' if given is None else 'a tuple'}. Return the long entries, Signals, or a dictionary such "
            "as {'long_entries': up, 'exits': down}."
        )
    named = dict(given) if isinstance(given, Mapping) else {"long_entries": given}
    if unknown := sorted(map(str, named.keys() - set(_GIVEN))):
        raise DataError(f"the function gave {unknown[0]!r}. It may give {', '.join(_GIVEN)}.")
    label = pd.Index([0])
    for name, value in named.items():
        if isinstance(value, pd.DataFrame) and value.shape[1] == 1:
            named[name] = value.iloc[:, 0]
        elif isinstance(value, pd.DataFrame):
            raise DataError(f"the function gave {name} of {value.shape[1]} columns. A point is one column.")
    return _asked(0, bars, index, {name: _column(name, named.get(name), 0, label, index) for name in _GIVEN})


def _markets(ohlcv: Any, symbol: str | None) -> dict[str, pd.DataFrame]:
    if not isinstance(ohlcv, Mapping) or not ohlcv:
        raise DataError(
            f"ohlcv is a {type(ohlcv).__name__}. Give a frame of bars, or a dictionary of symbol to frame with one in it."
        )
    if symbol is not None:
        raise DataError(
            f"symbol={symbol!r} was given beside a dictionary of frames, whose keys are the symbols. Leave symbol out."
        )
    return dict(ohlcv)


def _labels(long_entries: Any, short_entries: Any) -> tuple[pd.Index, bool]:
    """Labels of the columns, and whether they come from a table."""
    for given in (long_entries, short_entries):
        if isinstance(given, pd.DataFrame):
            return given.columns, True
        if isinstance(given, Mapping):
            return pd.Index(list(given)), True
        if isinstance(given, np.ndarray) and given.ndim == 2:
            return pd.RangeIndex(given.shape[1]), True
    name = getattr(long_entries, "name", None)
    return pd.Index([name if name is not None else 0]), False


def _symbols(labels: pd.Index, frames: Mapping[str, pd.DataFrame], *, is_given: bool) -> list[str]:
    """The symbol of each column: the only one, or the label, or the part of it that names a market."""
    if not is_given:
        return list(frames) * len(labels)
    if len(labels) == 1 and len(frames) == 1:
        return list(frames)
    for level in range(labels.nlevels):
        values = labels.get_level_values(level)
        if all(value in frames for value in values):
            return [str(value) for value in values]
    unknown = next((label for label in labels if label not in frames), labels[0])
    raise DataError(
        f"column {unknown!r} names none of the markets {', '.join(sorted(map(str, frames))[:10])}. With a dictionary of "
        "frames, the columns of the entries, or one level of them, must be its keys."
    )


def _common_index(frames: Mapping[str, pd.DataFrame], bars: Mapping[str, Bars]) -> pd.Index:
    """The index of all frames, which must be the same one."""
    first, frame = next(iter(frames.items()))
    for name in frames:
        if not np.array_equal(bars[name].opened_at, bars[first].opened_at):
            raise DataError(
                f"the bars of {name} and {first} have different times. Columns of one call share their rows: keep the times "
                "that all have, or gate each market by itself."
            )
    if isinstance(frame.index, pd.DatetimeIndex):
        return frame.index
    return pd.DatetimeIndex(bars[first].opened_at.view("M8[us]"), tz="UTC")


def _column(what: str, given: Any, place: int, labels: pd.Index, index: pd.Index) -> Any:
    """One column of what was given: an array of shape (n_bars,), a number, Signals, or None."""
    if isinstance(given, Mapping):
        if labels[place] not in given:
            raise DataError(f"{what} has no {labels[place]!r}, which the entries have. Give one for each column.")
        given = given[labels[place]]
    if given is None or isinstance(given, (Signals, int, float)):
        return given
    if isinstance(given, (pd.Series, pd.DataFrame)) and not given.index.equals(index):
        raise DataError(
            f"{what} has another index than the bars: {_first_difference(given.index, index)}. Compute it from the same "
            "frame; rows are never aligned by guessing."
        )
    if isinstance(given, pd.DataFrame) and not given.columns.equals(labels):
        raise DataError(
            f"{what} has the columns {list(given.columns)[:5]}, the entries {list(labels)[:5]}. They must agree."
        )
    values = np.asarray(given)
    if values.ndim == 2 and values.shape[1] == len(labels):
        values = values[:, place]
    if values.shape != (len(index),):
        raise DataError(f"{what} has the shape {np.shape(given)}. Give one value for each of the {len(index)} bars.")
    return values


def _first_difference(given: pd.Index, index: pd.Index) -> str:
    """Where two indices part, in words."""
    row = next((i for i, (own, of_bar) in enumerate(zip(given, index, strict=False)) if own != of_bar), None)
    if row is not None:
        return f"row {row} is {given[row]}, the bar {index[row]}"
    row = min(len(given), len(index))
    if row < len(index):
        return f"it ends before the bar {row}, {index[row]}"
    return (
        f"it goes on with {given[row]} after the last bar" if row < len(given) else f"{given.dtype}, not {index.dtype}"
    )


def _asked(label: Hashable, bars: Bars, index: pd.Index, own: dict[str, Any]) -> Asked:
    signals = own["long_entries"]
    if isinstance(signals, Signals):
        return _of_signals(label, bars, index, signals, own)
    buys, sells = (
        _flags("long_entries", own["long_entries"], index),
        _flags("short_entries", own["short_entries"], index),
    )
    if (both := buys & sells).any():
        at = int(np.argmax(both))
        raise DataError(
            f"bar {at} ({index[at]}) asks to buy and to sell. Only one side can be opened at a bar: decide which."
        )
    side = buys.astype(np.int8) - sells.astype(np.int8)
    out = _flags("exits", own["exits"], index)
    out_short = out if own["short_exits"] is None else _flags("short_exits", own["short_exits"], index)
    stop = _barrier("stop", own["stop"], -1, bars, side, index)
    target = _barrier("target", own["target"], +1, bars, side, index)
    return Asked(label, bars, side, stop, target, out, out_short)


def _of_signals(label: Hashable, bars: Bars, index: pd.Index, signals: Signals, own: Mapping[str, Any]) -> Asked:
    if beside := [what for what, value in own.items() if what not in _BESIDE_SIGNALS and value is not None]:
        raise DataError(f"{beside[0]} was given beside Signals, which hold it already. Leave it out, or give arrays.")
    if len(signals) != len(index):
        raise DataError(
            f"the Signals have {len(signals)} rows, the bars {len(index)}. They must be of the same series."
        )
    if (odd := ~np.isin(signals.side, (-1, 0, 1))).any():
        at = int(np.argmax(odd))
        raise DataError(f"side is {signals.side[at]} at bar {at} ({index[at]}). Use +1, -1, or 0 for nothing.")
    side = side_in_force(signals, bars)
    stop = _barrier("stop", signals.stop_px, -1, bars, side, index)
    target = _barrier("target", signals.target_px, +1, bars, side, index)
    out = _flags("exits", signals.exits, index)
    out_short = out if own["short_exits"] is None else _flags("short_exits", own["short_exits"], index)
    return Asked(label, bars, side, stop, target, out, out_short, signals.setups)


def side_in_force(signals: Signals, bars: Bars) -> NDArray[np.int8]:
    """The side asked for at each bar, 0 where the close has passed its stop or target; a price that is NaN is none."""
    side = np.asarray(signals.side, np.int8)
    has_passed = (side * (bars.close - signals.stop_px) <= 0) | (side * (signals.target_px - bars.close) <= 0)
    return np.where(has_passed, np.int8(0), side)


def px_or_none(px: float) -> float | None:
    """A price as the records hold it: None where it is NaN."""
    return None if math.isnan(px) else float(px)


def _flags(what: str, values: Any, index: pd.Index) -> BoolArray:
    """True and False for each bar; all False where nothing was given."""
    if values is None:
        return np.zeros(len(index), np.bool_)
    array = np.asarray(values)
    if array.dtype != np.bool_:
        raise DataError(
            f"{what} holds {array.dtype}, not True and False. Write a comparison, and fill what is missing: "
            "signals.fillna(False).astype(bool)."
        )
    return array


def _barrier(what: str, given: Any, direction: int, bars: Bars, side: NDArray[np.int8], index: pd.Index) -> FloatArray:
    """Prices of the entries' stop (direction -1) or target (+1): of a fraction of the close, or as they are."""
    if given is None:
        return np.full(len(bars), np.nan)
    if isinstance(given, (int, float)):
        if not 0 < given < (1 if direction < 0 else np.inf):
            raise DataError(
                f"{what} is {given!r}. A number is a fraction of the close, such as 0.02; prices are given as an array."
            )
        return np.where(side != 0, bars.close * (1 + direction * side * float(given)), np.nan)
    prices = np.where(side != 0, np.asarray(given, np.float64), np.nan)
    ahead = direction * side * (prices - bars.close)
    with np.errstate(invalid="ignore"):
        wrong = (ahead <= 0) | (prices <= 0) | np.isinf(prices)
    if wrong.any():
        at = int(np.argmax(wrong))
        rule = "above" if direction * side[at] > 0 else "below"
        raise DataError(
            f"{what} {prices[at]:g} of the {'long' if side[at] > 0 else 'short'} entry at bar {at} ({index[at]}) does not lie "
            f"{rule} the close {bars.close[at]:g}. Arrays are prices: NaN means none; leave out entries that have passed it."
        )
    return prices
