"""One traced call of a signal function: bars in, arrays with a row a bar out, as vectorbt takes them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from qml_plugin.audit.held import rows_of
from qml_plugin.audit.trace import Trace, note_patterns
from qml_plugin.errors import DataError
from qml_plugin.records import Setup, Signals

_USUAL = ("entries", "exits", "short_entries", "short_exits")
ASKING = ("side", "entries", "exits", "short_entries", "short_exits")


@dataclass(frozen=True, slots=True)
class SignalSubject:
    """A function of a frame of bars that returns `Signals`, arrays or Series, a frame, or a tuple or mapping of them.

    With ``is_gated`` its signals also go through `gate_signals`, with the options given, where that takes them.
    """

    function: Callable[..., Any]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    host: Mapping[str, Any] = field(default_factory=dict)
    is_gated: bool = True
    has_memory = False

    @property
    def name(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__)

    def run(
        self,
        frame: pd.DataFrame,
        *,
        through_bar: int | None = None,
        state_bars: Collection[int] = (),
    ) -> Trace:
        """The trace of one call; entries are gated up to a bar, where one is given."""
        trace = Trace(len(frame), first_bar=max(1, len(frame) // 10))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                returned = self.function(frame.copy(), **self.parameters)
            except Exception as error:  # noqa: BLE001 - the function is the user's: whatever it raises is part of the trace
                trace.error = (None, f"{type(error).__name__}: {error}")
                return trace
            parts = dict(_named(returned))
            for name, value in parts.items():
                _note(trace, name, value)
            if not trace.arrays:
                raise DataError(
                    f"{self.name} returned {_kind_of(returned)}, in which nothing has a row for each of the {len(frame)} "
                    "bars. Return Signals, arrays or Series as long as the bars, or a tuple or mapping of them."
                )
            if self.is_gated and isinstance(frame.index, pd.DatetimeIndex):
                self._gate(trace, frame, returned, parts, len(frame) - 1 if through_bar is None else through_bar)
        return trace

    def _gate(
        self, trace: Trace, frame: pd.DataFrame, returned: Any, parts: Mapping[str, Any], through_bar: int
    ) -> None:
        """Note what the memory makes of the entries up to a bar."""
        columns = {name: trace.arrays.get(("signal", name)) for name in (*_USUAL, "side")}
        options = {"strategy": self.name, **self.host}
        if isinstance(returned, Signals):
            side = np.where(np.arange(len(frame)) <= through_bar, returned.side, 0).astype(np.int8)
            setups = {bar: setup for bar, setup in returned.setups.items() if bar <= through_bar}
            entries: Any = replace(returned, side=side, setups=setups)
        elif "entries" in parts and all(
            part is None or (part.ndim == 1 and part.dtype == bool) for part in columns.values()
        ):
            cut = {
                name: part & (np.arange(len(frame)) <= through_bar)
                for name, part in columns.items()
                if part is not None and name in _USUAL
            }
            entries = cut.pop("entries")
            options = cut | options
        else:
            return
        from qml_plugin.adapters.vectorbt import gate_signals

        try:
            gated = gate_signals(frame, entries, **options)
        except DataError as error:
            trace.refused = str(error)
            return
        note_patterns(trace, gated.patterns, gated.decisions)


def _named(returned: Any) -> Iterator[tuple[str, Any]]:
    """The parts of what was returned, by the names that they have or usually have."""
    if isinstance(returned, Mapping):
        yield from ((str(name), value) for name, value in returned.items())
    elif is_dataclass(returned) and not isinstance(returned, type):
        yield from ((part.name, getattr(returned, part.name)) for part in fields(returned))
    elif isinstance(returned, tuple):
        names = getattr(returned, "_fields", _USUAL if len(returned) <= len(_USUAL) else ())
        yield from ((names[i] if i < len(names) else f"[{i}]", value) for i, value in enumerate(returned))
    else:
        yield "signals", returned


def _note(trace: Trace, name: str, value: Any) -> None:
    rows = rows_of(value, trace.n_bars)
    if rows is not None:
        trace.arrays["signal", name] = rows.copy()
        if isinstance(value, pd.DataFrame):
            trace.columns["signal", name] = tuple(map(str, value.columns))
        if name in ASKING and rows.dtype.kind in "bif":
            asks = np.nan_to_num(rows.astype(float)) != 0
            for bar in np.flatnonzero(asks.reshape(len(rows), -1).any(axis=1)).tolist():
                trace.add("order", bar, {name: shown_row(rows[bar])})
            trace.events.get("order", []).sort(key=lambda event: event[0])
    elif isinstance(value, Mapping) and all(isinstance(item, Setup) for item in value.values()):
        for bar in sorted(value):
            trace.add("setup", int(bar), asdict(value[bar]))


def shown_row(row: Any) -> Any:
    """A row of a signal as a plain value."""
    return tuple(row.tolist()) if isinstance(row, np.ndarray) and row.ndim else row.item()


def _kind_of(returned: Any) -> str:
    return "nothing" if returned is None else f"a {type(returned).__name__}"
