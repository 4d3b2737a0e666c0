"""One traced run of a backtesting.py strategy: what it held when it began, and what it did at each bar."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from qml_plugin.adapters.backtesting_host import Backtest, Strategy, no_progress_bars
from qml_plugin.adapters.backtesting_py import PatternMixin
from qml_plugin.audit.held import held_by
from qml_plugin.audit.trace import Trace, note_patterns
from qml_plugin.records import Pattern, Run, Setup


class _ReachedTheCut(BaseException):
    """The bar was reached after which nothing is compared."""


@dataclass(frozen=True, slots=True)
class StrategySubject:
    """A strategy of backtesting.py, with the options under which it is run."""

    cls: type
    parameters: Mapping[str, Any] = field(default_factory=dict)
    host: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.cls.__name__

    @property
    def has_memory(self) -> bool:
        """Whether it registers its entries, and so may see those of others."""
        return issubclass(self.cls, PatternMixin)

    def run(
        self,
        frame: pd.DataFrame,
        *,
        through_bar: int | None = None,
        state_bars: Collection[int] = (),
        **parameters: Any,
    ) -> Trace:
        """The trace of one run, up to a bar where one is given; no registry is read or written unless one is named."""
        return self.run_with_memory(frame, through_bar=through_bar, state_bars=state_bars, **parameters)[0]

    def run_with_memory(
        self,
        frame: pd.DataFrame,
        *,
        through_bar: int | None = None,
        state_bars: Collection[int] = (),
        **parameters: Any,
    ) -> tuple[Trace, Run | None, list[Pattern]]:
        """The trace, and of a strategy with a memory the run's record and its patterns."""
        recorder = _Recorder(Trace(len(frame)), through_bar, frozenset(state_bars))
        settings = {**self.parameters, **({"registry": None} if self.has_memory else {}), **parameters}
        with warnings.catch_warnings(), no_progress_bars():
            warnings.simplefilter("ignore")
            try:
                Backtest(frame, _traced(self.cls, recorder), **self.host).run(**settings)
            except _ReachedTheCut:
                pass
            except Exception as error:  # noqa: BLE001 - the strategy is the user's: whatever it raises is part of the trace
                recorder.trace.error = (recorder.bar, f"{type(error).__name__}: {error}")
        run, patterns = None, []
        if self.has_memory and recorder.strategy is not None and hasattr(recorder.strategy, "_qml"):
            memory = recorder.strategy.qml
            run, patterns = memory.run, memory.patterns
            note_patterns(recorder.trace, patterns, memory.decisions)
        return recorder.trace, run, patterns


class _Order(NamedTuple):
    size: float
    limit: float | None
    stop: float | None
    sl: float | None
    tp: float | None
    is_contingent: bool


class _Trade(NamedTuple):
    size: float
    entry_price: float
    entry_bar: int
    sl: float | None
    tp: float | None


class _Recorder:
    """Fills a trace while the host runs."""

    def __init__(self, trace: Trace, through_bar: int | None, state_bars: frozenset[int]) -> None:
        self.trace = trace
        self.strategy: Any = None
        self.bar: int | None = None
        self._last_bar = math.inf if through_bar is None else through_bar
        self._state_bars = state_bars
        self._book: tuple[Any, ...] = ((), ())

    def began(self, strategy: Any) -> None:
        trace, n_bars = self.trace, self.trace.n_bars
        attributes = {id(value): name for name, value in vars(strategy).items()}
        for i, indicator in enumerate(strategy._indicators):
            labels = [indicator.name] if isinstance(indicator.name, str) else list(indicator.name or ())
            name = attributes.get(id(indicator)) or "/".join(map(str, labels)) or f"I[{i}]"
            key = ("indicator", name if ("indicator", name) not in trace.arrays else f"{name} ({i})")
            values = np.array(indicator)
            trace.arrays[key] = values if values.ndim == 1 else values.T
            trace.columns[key] = tuple(map(str, labels))
        setups = []
        for name, value in held_by(strategy, n_bars):
            if isinstance(value, np.ndarray):
                trace.arrays["attribute", name] = value.copy()
            elif isinstance(value, Setup):
                setups.append(value)
        for setup in sorted(setups, key=lambda setup: (setup.known_bar, repr(setup))):
            trace.add("setup", setup.known_bar, asdict(setup))

    def before(self, strategy: Any) -> None:
        self.bar = len(strategy.data) - 1
        if self.bar > self._last_bar:
            raise _ReachedTheCut
        self.trace.first_bar = self.trace.first_bar or self.bar

    def asked(self, side: int, args: tuple[Any, ...], order: Mapping[str, Any]) -> None:
        size = order.get("size", args[0] if args else None)
        fields: dict[str, Any] = {"side": side, "size": None if size is None else float(size)}
        fields |= {name: _number(order.get(name)) for name in ("limit", "stop", "sl", "tp")}
        tag = order.get("tag")
        if isinstance(tag, (str, int, float)):
            fields["tag"] = tag
        self.trace.add("order", self.bar or 0, fields)

    def after(self, strategy: Any) -> None:
        bar, broker = self.bar or 0, strategy._broker
        book = (
            tuple(_Order(o.size, o.limit, o.stop, o.sl, o.tp, o.is_contingent) for o in broker.orders),
            tuple(_Trade(t.size, t.entry_price, t.entry_bar, t.sl, t.tp) for t in broker.trades),
        )
        if book != self._book:
            self._book = book
            self.trace.add("book", bar, {"waiting orders": book[0], "open trades": book[1]})
        if bar in self._state_bars:
            self.trace.states[bar] = self._held_now(strategy, bar)
        if bar >= self._last_bar:
            raise _ReachedTheCut

    def _held_now(self, strategy: Any, bar: int) -> dict[str, Any]:
        state: dict[str, Any] = {}
        for n_rows in {self.trace.n_bars, bar + 1}:
            for name, value in held_by(strategy, n_rows):
                if isinstance(value, np.ndarray):
                    state[name] = value[: bar + 1].copy()
                elif not isinstance(value, Setup):
                    state[name] = float(value)
        return state


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, (int, float, np.number)) else value


def _traced(cls: type, recorder: _Recorder) -> type:
    """A subclass that tells the recorder, and is the class itself to all who ask for its name."""
    base: Any = cls

    class Traced(base):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            recorder.strategy = self
            super().__init__(*args, **kwargs)

        def init(self) -> None:
            super().init()
            recorder.began(self)

        def next(self) -> None:
            recorder.before(self)
            super().next()
            recorder.after(self)

        def buy(self, *args: Any, **order: Any) -> Any:
            recorder.asked(+1, args, order)
            return super().buy(*args, **order)

        def sell(self, *args: Any, **order: Any) -> Any:
            recorder.asked(-1, args, order)
            return super().sell(*args, **order)

    Traced.__name__, Traced.__qualname__, Traced.__module__ = cls.__name__, cls.__qualname__, cls.__module__
    Traced.__doc__ = cls.__doc__
    return Traced


def is_strategy(subject: object) -> bool:
    """Whether it is a class that backtesting.py can run."""
    return isinstance(subject, type) and issubclass(subject, Strategy)
