"""What a strategy holds: arrays as long as the bars, single numbers, setups; in attributes, containers and own objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd

from qml_plugin.records import Setup, Signals

_DEEPEST = 4
_MOST_ITEMS = 100_000
_OF_THE_HOST = frozenset({"_broker", "_data", "_params", "_indicators", "_qml"})
_FOREIGN = ("backtesting.", "qml_plugin.", "pandas.", "numpy.", "builtins.")


def held_by(strategy: Any, n_bars: int) -> Iterator[tuple[str, Any]]:
    """(name, value) of every array with a row a bar, float and `Setup` that hangs on a strategy, but for indicators.

    Arrays that are not as long as the bars are passed over, integers too: what they count is not the bars', and the list
    of all events of a series may be made beforehand by one who uses each in its time.
    """
    indicators = {id(indicator) for indicator in strategy._indicators}
    seen: set[int] = set()
    for name, value in vars(strategy).items():
        if name not in _OF_THE_HOST and not _is_indicator(value, indicators):
            yield from _held(value, name, n_bars, 0, seen)


def rows_of(value: Any, n_bars: int) -> np.ndarray | None:
    """The values of an array, Series, DataFrame or list with a row (or else a column) a bar, bars first."""
    if isinstance(value, (pd.Series, pd.DataFrame, np.ndarray)):
        found = np.asarray(value)
    elif isinstance(value, (list, tuple)) and len(value) == n_bars and n_bars > 2:
        try:
            found = np.asarray(value)
        except ValueError:  # rows of different lengths
            return None
    else:
        return None
    if found.ndim and found.shape[0] == n_bars:
        return found
    return np.moveaxis(found, -1, 0) if found.ndim == 2 and found.shape[-1] == n_bars else None


def _is_indicator(value: Any, indicators: set[int]) -> bool:
    """Whether it is an indicator of the host, which cuts them to the bars so far while the strategy runs."""
    return id(value) in indicators or type(value).__name__ == "_Indicator"


def _held(value: Any, name: str, n_bars: int, depth: int, seen: set[int]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, (Setup, float, np.floating)):
        yield name, value
        return
    if isinstance(value, Signals):
        for part in fields(value):
            yield from _held(getattr(value, part.name), f"{name}.{part.name}", n_bars, depth + 1, seen)
        return
    rows = rows_of(value, n_bars)
    if rows is not None:
        yield name, rows
        return
    if depth >= _DEEPEST or id(value) in seen:
        return
    if isinstance(value, Mapping):
        seen.add(id(value))
        for key, item in list(value.items())[:_MOST_ITEMS]:
            if isinstance(key, str) or not isinstance(item, (float, np.floating)):
                yield from _held(item, f"{name}[{key!r}]", n_bars, depth + 1, seen)
    elif isinstance(value, (list, tuple)):
        seen.add(id(value))
        for i, item in enumerate(value[:_MOST_ITEMS]):
            if not isinstance(item, (int, float, str, np.generic)):
                yield from _held(item, f"{name}[{i}]", n_bars, depth + 1, seen)
    elif _is_own_object(value):
        seen.add(id(value))
        for key, item in list(vars(value).items()):
            yield from _held(item, f"{name}.{key}", n_bars, depth + 1, seen)


def _is_own_object(value: Any) -> bool:
    """Whether it is an object of the user's, to look into."""
    is_plain = hasattr(value, "__dict__") and not isinstance(value, type) and not callable(value)
    return is_plain and not f"{type(value).__module__}.".startswith(_FOREIGN)
