"""What one run saw and did, bar by bar, and where two runs part."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qml_plugin.features import CATALOGUE
from qml_plugin.records import Decision, Pattern

#: Kinds of things compared, causes before effects: the first that differs is the best explanation.
KINDS = (
    "error", "indicator", "attribute", "signal", "setup", "entry", "feature", "neighbour", "confidence", "decision",
    "order", "book",
)  # fmt: skip
NOTHING = "nothing"
_NEIGHBOURS = ("pattern_id", "distance", "resolved_at", "is_win", "r_multiple")


@dataclass(slots=True)
class Trace:
    """One run, as far as it went.

    ``arrays`` maps (kind, name) to what was as long as the bars when the run began, first axis bars. ``events`` maps a kind to
    (bar, fields) in time order. ``states`` maps a bar to what the strategy held at its close. ``error`` is (bar, text) of
    what it raised, bar None before the first. ``refused`` says why signals could not be gated.
    """

    n_bars: int
    arrays: dict[tuple[str, str], NDArray[Any]] = field(default_factory=dict)
    columns: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    events: dict[str, list[tuple[int, Mapping[str, Any]]]] = field(default_factory=dict)
    states: dict[int, dict[str, Any]] = field(default_factory=dict)
    error: tuple[int | None, str] | None = None
    first_bar: int = 0
    refused: str | None = None

    def add(self, kind: str, bar: int, fields: Mapping[str, Any]) -> None:
        """Note that something happened at the close of a bar."""
        self.events.setdefault(kind, []).append((bar, fields))


@dataclass(frozen=True, slots=True)
class Difference:
    """The first value of one object at which two runs part, and both values."""

    kind: str
    name: str
    bar: int
    field: str | None
    value: Any
    other: Any


def note_patterns(trace: Trace, patterns: Sequence[Pattern], decisions: Sequence[Decision]) -> None:
    """Entries with all that their decisions rested on; their outcomes came later and are left out."""
    for pattern, decision in zip(patterns, decisions, strict=True):
        entry = pattern.entry
        fields = {
            name: getattr(entry, name) for name in ("side", "pattern_type", "stop_px", "target_px", "plan", "setup")
        }
        trace.add("entry", entry.bar, fields)
        features = np.asarray(pattern.features, float).tolist()
        trace.add("feature", entry.bar, dict(zip(CATALOGUE.names, features, strict=True)))
        near = {
            f"neighbour {i + 1}": {name: getattr(neighbour, name) for name in _NEIGHBOURS}
            for i, neighbour in enumerate(decision.neighbours)
        }
        trace.add("neighbour", entry.bar, near | {"outcomes known": decision.n_known})
        said = ("confidence", "low", "high", "base_rate", "threshold", "model")
        values = {name: getattr(decision, name) for name in said}
        trace.add("confidence", entry.bar, values | {"contributions": tuple(decision.contributions)})
        trace.add("decision", entry.bar, {"action": decision.action, "reason": decision.reason})


def differences(
    one: Trace,
    other: Trace,
    through_bar: int,
    *,
    tolerance: float = 0.0,
    numbers: bool = True,
    skip: Collection[str] = (),
) -> list[Difference]:
    """The first difference of every object up to a bar, causes before effects, then the earliest.

    Parameters
    ----------
    one, other : Trace
    through_bar : int
        Nothing after it is compared.
    tolerance : float, fraction, default=0
        Numbers count as equal within this share of the largest magnitude of their object so far; 0 compares exactly.
    numbers : bool, default=True
        Whether single numbers that the strategy holds are compared too.
    skip : collection of str
        Names of objects that are left out.
    """
    found = [
        *_of_errors(one, other, through_bar),
        *_of_arrays(one, other, through_bar, tolerance),
        *_of_states(one, other, through_bar, tolerance, numbers),
        *_of_events(one, other, through_bar, tolerance),
    ]
    first: dict[tuple[str, str], Difference] = {}
    for difference in found:
        key = (difference.kind, difference.name)
        if difference.name not in skip and (key not in first or difference.bar < first[key].bar):
            first[key] = difference
    return sorted(first.values(), key=lambda found: (KINDS.index(found.kind), found.bar))


def is_same(one: Any, other: Any, tolerance: float = 0.0, scale: float = 0.0) -> bool:
    """Whether two values are the same: NaN is NaN, numbers within the tolerance of the scale or of themselves."""
    if isinstance(one, (float, np.floating)) and isinstance(other, (float, np.floating)):
        if math.isnan(one) or math.isnan(other):
            return math.isnan(one) and math.isnan(other)
        a, b = float(one), float(other)
        return a == b or abs(a - b) <= tolerance * max(scale, abs(a), abs(b))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(is_same(one[key], other[key], tolerance) for key in one)
    if isinstance(one, (tuple, list)) and isinstance(other, (tuple, list)):
        return len(one) == len(other) and all(is_same(a, b, tolerance) for a, b in zip(one, other, strict=True))
    try:
        return bool(one == other)
    except (TypeError, ValueError):  # an object of the user's that cannot be compared
        return repr(one) == repr(other)


def first_other_row(one: NDArray[Any], other: NDArray[Any], tolerance: float = 0.0) -> tuple[int, int | None] | None:
    """(row, column) of the first difference of two arrays of one shape, None where they are the same."""
    if one.dtype.kind in "fciub" and other.dtype.kind in "fciub":
        with np.errstate(invalid="ignore"):
            is_other = (one != other) & ~((one != one) & (other != other))
            if tolerance > 0 and is_other.any():
                finite = np.abs(one[np.isfinite(one)].astype(float))
                scale = float(finite.max()) if len(finite) else 0.0
                is_other &= ~(np.abs(one.astype(float) - other.astype(float)) <= tolerance * scale)
    elif one.dtype.kind in "mM" and other.dtype.kind in "mM":
        is_other = (one != other) & ~(np.isnat(one) & np.isnat(other))
    else:
        pairs = zip(one.reshape(-1).tolist(), other.reshape(-1).tolist(), strict=True)
        is_other = np.array([not is_same(a, b, tolerance) for a, b in pairs], bool).reshape(one.shape)
    if not is_other.any():
        return None
    flat = is_other.reshape(len(one), -1)
    row = int(flat.any(axis=1).argmax())
    return row, None if one.ndim == 1 else int(flat[row].argmax())


def _of_errors(one: Trace, other: Trace, through_bar: int) -> Iterator[Difference]:
    texts = [trace.error[1] if trace.error and _has_failed(trace, through_bar) else NOTHING for trace in (one, other)]
    if texts[0] != texts[1]:
        failed = other.error if texts[1] != NOTHING else one.error
        yield Difference("error", "the strategy raises", (failed[0] if failed else 0) or 0, None, *texts)


def _has_failed(trace: Trace, through_bar: int) -> bool:
    return trace.error is not None and (trace.error[0] or 0) <= through_bar


def _of_arrays(one: Trace, other: Trace, through_bar: int, tolerance: float) -> Iterator[Difference]:
    if _has_failed(one, through_bar) or _has_failed(other, through_bar):  # what a failed start left is no evidence
        return
    for key in one.arrays.keys() | other.arrays.keys():
        kind, name = key
        if key not in one.arrays or key not in other.arrays:
            yield Difference(kind, name, 0, None, *("there" if key in t.arrays else NOTHING for t in (one, other)))
            continue
        yield from _of_array(
            kind, name, one.arrays[key][: through_bar + 1], other.arrays[key][: through_bar + 1], tolerance,
            one.columns.get(key, ()),
        )  # fmt: skip


def _of_array(
    kind: str, name: str, a: NDArray[Any], b: NDArray[Any], tolerance: float, columns: tuple[str, ...] = ()
) -> Iterator[Difference]:
    if a.shape != b.shape:
        yield Difference(kind, name, min(len(a), len(b)), "shape", a.shape, b.shape)
        return
    place = first_other_row(a, b, tolerance)
    if place is not None:
        row, column = place
        label = None if column is None else columns[column] if column < len(columns) else f"column {column}"
        at: Any = row if column is None else (row, *np.unravel_index(column, a.shape[1:]))
        yield Difference(kind, name, row, label, a[at], b[at])


def _of_states(one: Trace, other: Trace, through_bar: int, tolerance: float, numbers: bool) -> Iterator[Difference]:
    for bar in sorted(one.states.keys() & other.states.keys()):
        if bar > through_bar:
            break
        a, b = one.states[bar], other.states[bar]
        for name in a.keys() | b.keys():
            value, changed = a.get(name, NOTHING), b.get(name, NOTHING)
            if isinstance(value, np.ndarray) and isinstance(changed, np.ndarray):
                yield from _of_array("attribute", name, value, changed, tolerance)
            elif numbers and not is_same(value, changed, tolerance):
                yield Difference("attribute", name, bar, None, value, changed)


def _of_events(one: Trace, other: Trace, through_bar: int, tolerance: float) -> Iterator[Difference]:
    for kind in one.events.keys() | other.events.keys():
        a, b = ([event for event in t.events.get(kind, ()) if event[0] <= through_bar] for t in (one, other))
        for i in range(max(len(a), len(b))):
            if i < len(a) and i < len(b) and a[i] == b[i]:
                continue
            found = _of_event(kind, a[i] if i < len(a) else None, b[i] if i < len(b) else None, tolerance)
            if found is not None:
                yield found
                break


def _of_event(
    kind: str, one: tuple[int, Mapping[str, Any]] | None, other: tuple[int, Mapping[str, Any]] | None, tolerance: float
) -> Difference | None:
    """Where two events part that should be the same one; None is no event."""
    if one is None or other is None or one[0] != other[0]:
        bar = min(event[0] for event in (one, other) if event is not None)
        values = (dict(e[1]) if e is not None and e[0] == bar else NOTHING for e in (one, other))
        return Difference(kind, kind, bar, None, *values)
    for label in one[1].keys() | other[1].keys():
        a, b = one[1].get(label, NOTHING), other[1].get(label, NOTHING)
        if not is_same(a, b, tolerance):
            named = [label for label in one[1] if not is_same(one[1][label], other[1].get(label, NOTHING), tolerance)]
            label = named[0] if named else label
            return Difference(kind, kind, one[0], label, one[1].get(label, NOTHING), other[1].get(label, NOTHING))
    return None
