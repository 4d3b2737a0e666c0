"""backtesting.py: a mixin that registers, scores and gates the entries of any ``Strategy``.

Importing this module wraps a few things of the host, without effect on strategies that do not use the mixin:
``Backtest.run``, because no strategy hook fires after the last bar; ``Backtest.optimize``, so that all its runs see
one snapshot of the registry; ``Order.cancel``, because an order that never fills has no outcome; and the tags of orders and trades, because the tag is the host's only link from an order
to its trades. The tag that a strategy set is the tag that it reads.
"""

from __future__ import annotations

import difflib
import functools
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import pandas as pd

from qml_plugin.adapters.backtesting_host import Backtest, Order, Strategy, Trade, _Broker
from qml_plugin.adapters.order_tags import EntryTag, user_tag
from qml_plugin.adapters.recorded_run import read_start, registry_of
from qml_plugin.adapters.run_memory import Host, RunMemory, current_host
from qml_plugin.errors import DataError, QmlError
from qml_plugin.records import BarrierRule

BUNDLED = {"EURUSD": "1h", "GOOG": "1d"}  # and the length of their bars
_SHORTEST_MISSPELT = 8  # letters; shorter names resemble settings by chance
_has_memory: ContextVar[bool] = ContextVar("has_memory", default=True)


class PatternMixin:
    """Gives a backtesting.py strategy a memory. Put it first: ``class Mine(PatternMixin, Strategy)``.

    Every ``buy`` and ``sell`` that would open a position is registered with its features, scored against the past
    entries whose outcome was known at that bar, and in mode ``"gate"`` skipped where the confidence is too low.
    Orders that only close a position pass untouched.

    Parameters are class attributes, and so may be given to ``Backtest.run`` and ``Backtest.optimize``:

    symbol, timeframe : str, optional
        What is traded. ``symbol`` is required with a registry; ``timeframe`` is read off the bars where it is None.
    registry : str, optional
        Database URL such as ``"sqlite:///experiments.db"``; None keeps this run's patterns in memory.
    mode : {"gate", "shadow", "record"}, default="gate"
        ``record`` registers only; ``shadow`` also scores, and takes every entry; ``gate`` skips. Until the gate has
        shown skill out of sample it abstains, and every entry passes.
    on_skip : {"flat", "hold"}, default="flat"
        With ``exclusive_orders``, what a skipped reversal does with the position that the order would have closed.
    barriers : BarrierRule
        Label rule for entries without a stop or target of their own.
    min_confidence : float, optional
        P(win) below which an entry is skipped; None chooses the threshold that would have earned most on past scores.
    on_abstain : {"fail_open", "fail_closed"}, default="fail_open"
        Whether an entry that the gate cannot judge is taken or skipped.
    teachers : {"shadow", "executed"}, default="shadow"
        Whether all entries of the run teach, or only those that were not skipped.
    cost_r : float, R, default=0
        Cost of an entry in units of planned risk, which barrier outcomes do not hold; the threshold is net of it.
    kelly_fraction : float, 0..1, optional
        Lets the size follow the confidence. An entry that the active gate takes, and whose order has a stop (``sl=``), puts
        at most this share of the Kelly stake of the equity at risk; its size is never above what the order asked for, and at
        least one unit. An entry that deserves no stake is skipped. Where the gate abstains, sizes stay the strategy's own.
        Such as 0.25; None, the default, never touches a size; NaN counts as None, because the host's optimizer turns one into
        the other.
    risk_cap_frac : float, 0..1, default=0.02
        The most of the equity that `kelly_fraction` ever puts at risk with one entry.
    gate_model : {"auto", "logistic", "xgboost", "frozen"}, default="auto"
        The ladder, a learner to insist on, or ``"frozen"``: the registry's active model for this strategy and timeframe
        decides, refuses entries from before its ``trained_through``, and the run does not start without it.
    n_neighbours : int, default=10
    seed : int, default=0
    bar_label : {"open", "close"}, default="open"
        Which end of a bar its stamp marks.

    A strategy passes geometry that it found as the order's tag: ``self.buy(sl=..., tp=..., tag=setup)`` with a
    `qml_plugin.Setup`. During and after a run ``self.qml`` holds the run's decisions and patterns.

    Point in time
    -------------
    A decision at bar i reads bars up to i and patterns whose outcome was known at the close of bar i.

    Raises
    ------
    DataError
        If an attribute above has an unknown value, or the bars are bad; nothing has been stored then.
    RegistryError
        If the registry cannot be opened.
    """

    symbol: str | None = None
    timeframe: str | None = None
    registry: str | None = None
    mode: str = "gate"
    on_skip: str = "flat"
    barriers: BarrierRule = BarrierRule()
    min_confidence: float | None = None
    on_abstain: str = "fail_open"
    teachers: str = "shadow"
    cost_r: float = 0.0
    kelly_fraction: float | None = None
    risk_cap_frac: float = 0.02
    gate_model: str = "auto"
    n_neighbours: int = 10
    seed: int = 0
    bar_label: str = "open"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        order = cls.__mro__
        if Strategy in order and order.index(PatternMixin) > order.index(Strategy):
            raise DataError(
                f"{cls.__name__} puts Strategy before PatternMixin, so its entries would pass the memory by. "
                f"Write: class {cls.__name__}(PatternMixin, Strategy)."
            )
        for base in order[order.index(PatternMixin) + 1 :]:
            if taken := sorted(SETTINGS & vars(base).keys()):
                raise DataError(
                    f"{base.__name__}.{taken[0]} would be hidden by the setting of that name of PatternMixin in "
                    f"{cls.__name__}. Rename it there, or set {taken[0]} on {cls.__name__} and remove it from {base.__name__}."
                )
        if "qml" in vars(cls):
            raise DataError(f"{cls.__name__}.qml hides the memory of the run, which has that name. Rename it.")
        _warn_of_misspelt_settings(cls)

    def __init__(self, broker: Any, data: Any, params: dict[str, Any]) -> None:
        super().__init__(broker, data, params)  # type: ignore[call-arg]
        if _has_memory.get():
            self._qml = RunMemory(self, broker, data.df, params, SETTINGS)

    @property
    def qml(self) -> RunMemory:
        """The run's decisions and patterns."""
        try:
            return self._qml
        except AttributeError:
            raise QmlError(
                f"{type(self).__name__} has no memory because PatternMixin.__init__ did not run. "
                "Call super().__init__(broker, data, params) in __init__."
            ) from None

    def buy(self, *args: Any, **order: Any) -> Any:
        """`Strategy.buy` through the memory; returns the host's order, or a falsy `SkippedOrder`."""
        if not _has_memory.get():
            return super().buy(*args, **order)  # type: ignore[misc]
        return self.qml.enter(+1, functools.partial(super().buy, *args), order)  # type: ignore[misc]

    def sell(self, *args: Any, **order: Any) -> Any:
        """`Strategy.sell` through the memory; returns the host's order, or a falsy `SkippedOrder`."""
        if not _has_memory.get():
            return super().sell(*args, **order)  # type: ignore[misc]
        return self.qml.enter(-1, functools.partial(super().sell, *args), order)  # type: ignore[misc]


def _warn_of_misspelt_settings(cls: type) -> None:
    """Warn of new attributes of `cls` that are nearly called as a setting, and would be ignored."""
    inherited = {name for base in cls.__mro__[1:] for name in vars(base)}
    for name, value in vars(cls).items():
        if name[0] == "_" or len(name) < _SHORTEST_MISSPELT or name in inherited:
            continue
        if callable(value) or hasattr(value, "__get__"):
            continue
        if near := difflib.get_close_matches(name, SETTINGS, n=1, cutoff=0.85):
            warnings.warn(
                f"{cls.__name__}.{name} is no setting of PatternMixin, which has {near[0]!r}. Rename it if you meant that; "
                "otherwise give it a name that is less alike.",
                UserWarning,
                stacklevel=3,
            )


SETTINGS = frozenset(name for name in vars(PatternMixin) if name[0] != "_" and name not in ("buy", "sell", "qml"))


def bundled_data(name: str) -> pd.DataFrame:
    """Market data that backtesting.py ships: ``"GOOG"`` (daily, 2004-2013) or ``"EURUSD"`` (hourly, 2017-2018)."""
    import backtesting.test

    if name not in BUNDLED:
        raise DataError(f"no bundled data called {name!r}. Use one of {', '.join(BUNDLED)}.")
    frame: pd.DataFrame = getattr(backtesting.test, name)
    return frame


def run_backtest(
    strategy: type, frame: pd.DataFrame, *, parameters: Mapping[str, Any], **host_options: Any
) -> pd.Series:
    """The host's statistics of one run; the memory of a mixin strategy is at ``stats["_strategy"].qml``."""
    assert issubclass(strategy, PatternMixin)
    stats: pd.Series = Backtest(frame, strategy, **host_options).run(**parameters)
    return stats


@contextmanager
def without_memory() -> Iterator[None]:
    """Within the block strategies run as if they had no memory: nothing is registered, scored or skipped."""
    token = _has_memory.set(False)
    try:
        yield
    finally:
        _has_memory.reset(token)


def _run_with_memory(original: Any) -> Any:
    """`Backtest.run`, followed by the commit of what the strategy's memory holds."""

    @functools.wraps(original)
    def run(self: Any, **kwargs: Any) -> pd.Series:
        if not issubclass(self._strategy, PatternMixin) or not _has_memory.get():
            return original(self, **kwargs)  # type: ignore[no-any-return]
        host = Host(self)
        token = current_host.set(host)
        try:
            stats: pd.Series = original(self, **kwargs)
        except BaseException as error:
            if host.memory is not None:
                try:
                    host.memory.finish(None, error)
                except QmlError as second:
                    error.add_note(f"The run could not be recorded either: {second}")
            raise
        finally:
            current_host.reset(token)
        stats["_strategy"].qml.finish(stats)
        return stats

    return run


def _optimize_on_one_snapshot(original: Any) -> Any:
    """`Backtest.optimize`, all of whose runs see the registry as it is now, and so do not influence one another."""

    @functools.wraps(original)
    def optimize(self: Any, **kwargs: Any) -> Any:
        registry = kwargs.get("registry", getattr(self._strategy, "registry", None))
        is_record = kwargs.get("mode", getattr(self._strategy, "mode", None)) == "record"
        if not issubclass(self._strategy, PatternMixin) or not isinstance(registry, str) or is_record:
            return original(self, **kwargs)
        opened = registry_of(registry)
        if opened is None:
            return original(self, **kwargs)
        self._qml_start = read_start(opened)
        try:
            return original(self, **kwargs)
        finally:
            del self._qml_start

    return optimize


def _while_filling(original: Any) -> Any:
    """The broker's order processing, marked: there an order hands its whole tag on to the trade."""

    @functools.wraps(original)
    def process_orders(self: Any) -> None:
        self._qml_is_filling = True
        try:
            original(self)
        finally:
            self._qml_is_filling = False

    return process_orders


def _cancel_with_memory(original: Any) -> Any:
    """`Order.cancel`, of which the memory is told: an entry that never fills has no outcome."""

    @functools.wraps(original)
    def cancel(self: Any) -> None:
        original(self)
        host, tag = current_host.get(), self._Order__tag
        if host is not None and host.memory is not None and isinstance(tag, EntryTag) and self.parent_trade is None:
            host.memory.cancelled(tag.pattern_id)

    return cancel


def _order_tag(order: Any) -> object:
    tag = order._Order__tag
    return tag if order._Order__broker._qml_is_filling else user_tag(tag)


if not hasattr(_Broker, "_qml_is_filling"):  # importing again must not wrap again
    _Broker._qml_is_filling = False
    Backtest.run = _run_with_memory(Backtest.run)
    Backtest.optimize = _optimize_on_one_snapshot(Backtest.optimize)
    _Broker._process_orders = _while_filling(_Broker._process_orders)
    Order.cancel = _cancel_with_memory(Order.cancel)
    Order.tag = property(_order_tag, doc=Order.tag.__doc__)
    Trade.tag = property(lambda trade: user_tag(trade._Trade__tag), doc=Trade.tag.__doc__)
