"""Points of a grid: made, admitted, drawn, and their neighbours."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from qml_plugin import provenance
from qml_plugin.errors import DataError

Point = dict[str, Any]
Places = tuple[int, ...]
_MOST_POINTS = 1_000_000
_MOST_DRAWS_A_POINT = 20
_DRAWS_AT_ONCE = 1_000


class Named(dict[str, Any]):
    """A point whose parameters are attributes too, as constraints of the host take it."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the grid has no parameter {name!r}; it has {', '.join(sorted(self))}") from None


class Grid:
    """Values to try for each parameter.

    Parameters
    ----------
    values : mapping of str to sequence
        At least one parameter, each with at least one value and none twice.
    constraint : callable, optional
        Takes a point (``p.fast`` or ``p["fast"]``) and says whether it may be tried.

    Raises
    ------
    DataError
        If there is nothing to try, a value comes twice, or no point meets the constraint.
    """

    def __init__(self, values: Mapping[str, Any], constraint: Callable[[Any], bool] | None = None) -> None:
        if not isinstance(values, Mapping) or not values:
            raise DataError(
                "the grid is empty. Give values to try, such as grid={'fast': [10, 20], 'slow': [50, 100]}."
            )
        if constraint is not None and not callable(constraint):
            raise DataError(f"constraint is a {type(constraint).__name__}. Give a function of a point, or None.")
        self.values: dict[str, list[Any]] = {name: _tried(name, tried) for name, tried in values.items()}
        self.names = tuple(self.values)
        self.is_ordered = tuple(_is_ordered(tried) for tried in self.values.values())
        self.constraint = constraint

    def __len__(self) -> int:
        return math.prod(map(len, self.values.values()))

    def point(self, places: Places) -> Point:
        """The point at a place of the grid: a position among the values of each parameter."""
        return {name: tried[place] for (name, tried), place in zip(self.values.items(), places, strict=True)}

    def admits(self, places: Places) -> bool:
        """Whether the constraint lets a place be tried; DataError where it raises."""
        if self.constraint is None:
            return True
        point = Named(self.point(places))
        try:
            return bool(self.constraint(point))
        except Exception as error:
            raise DataError(
                f"the constraint raised {type(error).__name__}: {error}, of the point {dict(point)}."
            ) from error

    def places(self) -> list[Places]:
        """All places that may be tried, the last parameter changing fastest.

        Raises
        ------
        DataError
            If there is none, or the grid is beyond all patience.
        """
        if len(self) > _MOST_POINTS:
            raise DataError(
                f"the grid has {len(self):,} points, and {_MOST_POINTS:,} at most are walked through. Take fewer values."
            )
        found = [
            places
            for places in itertools.product(*(range(len(v)) for v in self.values.values()))
            if self.admits(places)
        ]
        if not found:
            raise DataError(f"none of the {len(self)} points of the grid meets the constraint. Widen one or the other.")
        return found

    @property
    def is_vast(self) -> bool:
        """Whether there are more points than are walked through."""
        return len(self) > _MOST_POINTS

    def drawn(self, n_points: int, seed: int) -> list[Places]:
        """So many places at random, without repetition, in order of the grid.

        Raises
        ------
        DataError
            If no place may be tried, or a constraint on a vast grid lets too few of the places drawn pass.
        """
        if self.is_vast:
            return self._drawn_unseen(n_points, seed)
        found = self.places()
        if n_points >= len(found):
            return found
        chosen = np.random.default_rng(seed).choice(len(found), n_points, replace=False)
        return [found[place] for place in sorted(chosen)]

    def _drawn_unseen(self, n_points: int, seed: int) -> list[Places]:
        """The same from a grid that is too large to be walked through: each draw is kept if it is new and admitted."""
        if n_points > _MOST_POINTS:
            raise DataError(f"n_points is {n_points:,}, and {_MOST_POINTS:,} at most are drawn. Take fewer.")
        rng = np.random.default_rng(seed)
        sizes = [len(tried) for tried in self.values.values()]
        found: set[Places] = set()
        n_draws, most = 0, _MOST_POINTS + _MOST_DRAWS_A_POINT * n_points
        while n_draws < most:
            for drawn in rng.integers(0, sizes, size=(_DRAWS_AT_ONCE, len(sizes))).tolist():
                places = tuple(drawn)
                if places not in found and self.admits(places):
                    found.add(places)
                    if len(found) == n_points:
                        return sorted(found)
            n_draws += _DRAWS_AT_ONCE
        raise DataError(
            f"{n_draws:,} draws from the {len(self):,} points of the grid found {len(found):,} that meet the constraint, and "
            f"n_points is {n_points:,}. Take fewer points, or a grid that fits the constraint better."
        )

    def neighbourhood(self, places: Places) -> Iterator[Places | None]:
        """The place itself and those at most one step away in each ordered parameter; None for steps off the grid.

        A parameter whose values are not numbers has no neighbours: one value is as far from another as any.
        """
        steps = [
            (-1, 0, 1) if is_ordered and len(tried) > 1 else (0,)
            for is_ordered, tried in zip(self.is_ordered, self.values.values(), strict=True)
        ]
        sizes = [len(tried) for tried in self.values.values()]
        for step in itertools.product(*steps):
            near = tuple(map(sum, zip(places, step, strict=True)))
            yield near if all(0 <= at < size for at, size in zip(near, sizes, strict=True)) else None


def _tried(name: str, tried: object) -> list[Any]:
    if isinstance(tried, (str, bytes)) or not isinstance(tried, (Sequence, range, np.ndarray)):
        tried = [tried]
    values = [value.item() if isinstance(value, np.generic) else value for value in tried]
    if not values:
        raise DataError(f"the grid has no values for {name!r}. Give at least one, or leave it out.")
    seen = [_key(value) for value in values]
    if len(set(seen)) < len(seen):
        twice = next(value for value, key in zip(values, seen, strict=True) if seen.count(key) > 1)
        raise DataError(f"the grid has {twice!r} twice for {name!r}. Give each value once.")
    return sorted(values) if _is_ordered(values) else values


def _key(value: object) -> bytes:
    return provenance.canonical_json(provenance.plain(value))


def _is_ordered(values: Sequence[object]) -> bool:
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) and value == value for value in values)


def shown(value: object) -> object:
    """A value of a point as a table and a file hold it."""
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(provenance.plain(value))


def parse_grid(texts: Sequence[str]) -> dict[str, list[Any]]:
    """A grid from the command line: ``name=10,14,20`` lists values, ``name=0.3:0.7:0.2`` is a range with both ends.

    Raises
    ------
    DataError
        If a text is neither.

    Examples
    --------
    >>> parse_grid(["atr_period=10,14,20", "min_depth_ratio=0.3:0.7:0.2", "mode=shadow,gate"])
    {'atr_period': [10, 14, 20], 'min_depth_ratio': [0.3, 0.5, 0.7], 'mode': ['shadow', 'gate']}
    """
    grid: dict[str, list[Any]] = {}
    for text in texts:
        name, equals, listed = text.partition("=")
        if not equals or not name.strip().isidentifier() or not listed.strip():
            raise DataError(f"--grid {text!r} is not understood. Write name=10,14,20 or name=0.3:0.7:0.2.")
        if name.strip() in grid:
            raise DataError(f"--grid names {name.strip()!r} twice. List all its values at once.")
        parts = listed.split(":")
        grid[name.strip()] = _range(text, parts) if len(parts) == 3 else [value_of(part) for part in listed.split(",")]
    return grid


def value_of(text: str) -> Any:
    """A value written on the command line: a number, true, false, none, or the text itself."""
    text = text.strip()
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def _range(text: str, parts: Sequence[str]) -> list[Any]:
    low, high, step = map(value_of, parts)
    if not _is_ordered([low, high, step]) or not all(map(math.isfinite, (low, high, step))) or step <= 0 or high < low:
        raise DataError(
            f"--grid {text!r} is no range. Write low:high:step with numbers, a positive step and low <= high."
        )
    n_steps = math.floor((high - low) / step + 1e-9)
    if n_steps >= _MOST_POINTS:
        raise DataError(f"--grid {text!r} has {n_steps + 1:,} values. Take a longer step.")
    digits = max(len(part.strip().partition(".")[2]) for part in parts)
    return [round(low + place * step, digits) if digits else low + place * step for place in range(n_steps + 1)]
