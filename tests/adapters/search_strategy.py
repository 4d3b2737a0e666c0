"""A strategy for searches in other processes, which can be told to kill its own."""

from __future__ import annotations

import os
import signal
import warnings

from backtesting import Backtest
from backtesting.test import EURUSD

from strategies.moving_average import MovingAverageCross


class Cross(MovingAverageCross):
    """Its last bars are deadly where a process says so."""

    _is_deadly = False

    def next(self):
        if self._is_deadly and len(self.data) > 500:
            os.kill(os.getpid(), signal.SIGKILL)
        super().next()


def point(url, fast, *, deadly=""):
    """One point of a search."""
    Cross._is_deadly = deadly == str(fast)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        host = Backtest(EURUSD.iloc[:700], Cross, cash=1_000_000, exclusive_orders=True, finalize_trades=True)
        host.run(symbol="EURUSD", timeframe="1h", registry=url, mode="record", fast=fast, slow=30)
