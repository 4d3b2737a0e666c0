"""Run a strategy on a host without knowing the host: for commands and reports above the adapters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from backtesting import Backtest

from qml_plugin.adapters import backtesting_py
from qml_plugin.errors import DataError

_BUNDLED = ("EURUSD", "GOOG")


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
    assert issubclass(strategy, backtesting_py.PatternMixin)
    stats: pd.Series = Backtest(frame, strategy, **host_options).run(**parameters)
    return stats
