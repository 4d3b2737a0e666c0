"""backtesting.py: a mixin that registers, scores and gates the entries of any ``Strategy``.

Importing this module wraps two things of the host, both without effect on strategies that do not use the mixin:
``Backtest.run``, because no strategy hook fires after the last bar, and ``Trade.tag``, because the tag is the host's
only link from an order to its trades. The tag that a strategy set is the tag that it reads.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import pandas as pd

from qml_plugin.adapters.backtesting_host import Backtest, Strategy, Trade
from qml_plugin.adapters.order_tags import user_tag
from qml_plugin.adapters.run_memory import Host, RunMemory, current_host
from qml_plugin.errors import DataError
from qml_plugin.records import BarrierRule

_BUNDLED = ("EURUSD", "GOOG")


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
        P(win) below which an entry is skipped; None uses the break-even of past wins and losses.
    gate_model : {"auto", "logistic", "xgboost"}, default="auto"
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
    gate_model: str = "auto"
    n_neighbours: int = 10
    seed: int = 0
    bar_label: str = "open"

    qml: RunMemory

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if issubclass(cls, Strategy) and cls.__mro__.index(PatternMixin) > cls.__mro__.index(Strategy):
            raise DataError(
                f"{cls.__name__} puts Strategy before PatternMixin, so its entries would pass the memory by. "
                f"Write: class {cls.__name__}(PatternMixin, Strategy)."
            )

    def __init__(self, broker: Any, data: Any, params: dict[str, Any]) -> None:
        super().__init__(broker, data, params)  # type: ignore[call-arg]
        self.qml = RunMemory(self, broker, data.df, params)

    def buy(self, **order: Any) -> Any:
        """`Strategy.buy` through the memory; returns the host's order, or a falsy `SkippedOrder`."""
        return self.qml.enter(+1, super().buy, order)  # type: ignore[misc]

    def sell(self, **order: Any) -> Any:
        """`Strategy.sell` through the memory; returns the host's order, or a falsy `SkippedOrder`."""
        return self.qml.enter(-1, super().sell, order)  # type: ignore[misc]


def bundled_data(name: str) -> pd.DataFrame:
    """Market data that backtesting.py ships: ``"GOOG"`` (daily, 2004-2013) or ``"EURUSD"`` (hourly, 2017-2018)."""
    import backtesting.test

    if name not in _BUNDLED:
        raise DataError(f"no bundled data called {name!r}. Use one of {', '.join(_BUNDLED)}.")
    frame: pd.DataFrame = getattr(backtesting.test, name)
    return frame


def run_backtest(
    strategy: type, frame: pd.DataFrame, *, parameters: Mapping[str, Any], **host_options: Any
) -> pd.Series:
    """The host's statistics of one run; the memory of a mixin strategy is at ``stats["_strategy"].qml``."""
    assert issubclass(strategy, PatternMixin)
    stats: pd.Series = Backtest(frame, strategy, **host_options).run(**parameters)
    return stats


def _run_with_memory(original: Any) -> Any:
    @functools.wraps(original)
    def run(self: Any, **kwargs: Any) -> pd.Series:
        if not issubclass(self._strategy, PatternMixin):
            return original(self, **kwargs)  # type: ignore[no-any-return]
        host = Host(self)
        token = current_host.set(host)
        try:
            stats: pd.Series = original(self, **kwargs)
        except Exception as error:
            if host.memory is not None:
                host.memory.finish(None, f"{type(error).__name__}: {error}")
            raise
        finally:
            current_host.reset(token)
        stats["_strategy"].qml.finish(stats)
        return stats

    return run


Backtest.run = _run_with_memory(Backtest.run)
Trade.tag = property(lambda trade: user_tag(trade), doc=Trade.tag.__doc__)
