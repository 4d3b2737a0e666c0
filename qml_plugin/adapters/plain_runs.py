"""Runs that are only looked at: one set of parameters, no memory, nothing recorded; and one run that is remembered."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from qml_plugin.adapters.array_strategy import ArrayStrategy
from qml_plugin.adapters.asked import Asked, side_in_force
from qml_plugin.adapters.backtesting_host import Backtest, Strategy
from qml_plugin.adapters.backtesting_py import SETTINGS, PatternMixin, without_memory
from qml_plugin.adapters.playing import Orders, play
from qml_plugin.adapters.recorded_run import Start
from qml_plugin.adapters.run_memory import RunMemory
from qml_plugin.bars import Bars
from qml_plugin.errors import DataError

_PLAYING = ("init", "next", "may_enter", "enter", "_is_between")
_CASH_IN_PRICES = 1e6  # whole units are then rounded to a millionth of the equity


def check_strategy(cls: type) -> None:
    """Refuse what is no strategy of backtesting.py (DataError)."""
    if not issubclass(cls, Strategy):
        raise DataError(
            f"{cls.__name__} is no backtesting.Strategy. Name a subclass of it; of other hosts bring the returns as a file."
        )


def parameters_of(cls: type) -> dict[str, Any]:
    """A strategy's own parameters with their values: public class attributes that are numbers, words or None.

    Settings of the mixin and what `ArrayStrategy` itself has, such as ``size``, are none.
    """
    own: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if base is object or base in (Strategy, PatternMixin, ArrayStrategy) or issubclass(Strategy, base):
            continue
        own |= {
            name: getattr(cls, name)
            for name in vars(base)
            if name[0] != "_" and name not in SETTINGS and name not in vars(ArrayStrategy)
        }
    return {name: value for name, value in own.items() if value is None or isinstance(value, (int, float, str))}


def is_played_as_arrays(cls: type) -> bool:
    """Whether `played` does what the host would do: an `ArrayStrategy` that changes nothing but its signals."""
    return (
        issubclass(cls, ArrayStrategy)
        and all(getattr(cls, name) is getattr(ArrayStrategy, name) for name in _PLAYING)
        and (cls.size is None or 0 < cls.size <= 1)
    )


def played(cls: type[ArrayStrategy], bars: Bars, parameters: Mapping[str, Any]) -> tuple[Orders, Asked]:
    """Orders of an `ArrayStrategy` at the next open, one position at a time, and the signals they come from.

    Point in time
    -------------
    An order that fills in bar t reads bars 0..t, as far as ``signals`` keeps to it.
    """
    signals = cls.arrays(bars, **parameters)
    side = side_in_force(signals, bars)  # as the host passes it over
    exits = np.asarray(signals.exits, np.bool_)
    asked = Asked("", bars, side, signals.stop_px, signals.target_px, exits, exits, signals.setups)
    orders = play(
        asked, np.ones(len(bars), np.bool_), at_close=False, max_bars=None, is_flat_on_skip=False, is_reversing=parameters.get("reverses", cls.reverses),
    )  # fmt: skip
    return orders, asked


def run_plain(
    cls: type, frame: pd.DataFrame, parameters: Mapping[str, Any], *, fees: float, is_exclusive: bool
) -> Mapping[str, Any]:
    """The host's statistics of one run without memory; ``fees`` are a fraction of the price of each fill."""
    with without_memory():
        return _run(cls, frame, parameters, fees=fees, is_exclusive=is_exclusive)


def run_in_shadow(
    cls: type, frame: pd.DataFrame, parameters: Mapping[str, Any], *, fees: float, is_exclusive: bool, symbol: str,
    timeframe: str, registry: str | None, start: Start | None = None,
) -> RunMemory:  # fmt: skip
    """The memory of one run in the mode shadow: every entry taken, registered and scored.

    `start` is the snapshot that it sees in the place of what the registry holds now.

    Raises
    ------
    DataError
        If the strategy has no memory.
    """
    if not issubclass(cls, PatternMixin):
        raise DataError(
            f"{cls.__name__} has no memory, so no entry was registered or judged. Put PatternMixin first: "
            f"class {cls.__name__}(PatternMixin, Strategy)."
        )
    settings = {"mode": "shadow", "symbol": symbol, "timeframe": timeframe, "registry": registry}
    stats = _run(cls, frame, {**parameters, **settings}, fees=fees, is_exclusive=is_exclusive, start=start)
    memory: RunMemory = stats["_strategy"].qml
    return memory


def _run(
    cls: type, frame: pd.DataFrame, parameters: Mapping[str, Any], *, fees: float, is_exclusive: bool, start: Start | None = None
) -> Mapping[str, Any]:  # fmt: skip
    cash = _CASH_IN_PRICES * float(frame["Close"].iloc[0])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="backtesting")
        host = Backtest(
            frame, cls, cash=cash, commission=fees, exclusive_orders=is_exclusive, finalize_trades=True
        )  # fmt: skip
        host._qml_start = start
        stats: Mapping[str, Any] = host.run(**parameters)
    return stats
