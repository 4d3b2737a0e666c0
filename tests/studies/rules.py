"""Strategies for tiny studies, found by a study beside their file."""

import os
import signal
from pathlib import Path

import numpy as np
from backtesting import Strategy

from qml_plugin.adapters.array_strategy import ArrayStrategy, with_stops


class Momentum(ArrayStrategy):
    n_bars = 5
    size = 0.5

    def signals(self, bars):
        side = np.zeros(len(bars))
        move = np.sign(bars.close[self.n_bars :] - bars.close[: -self.n_bars])
        side[self.n_bars :] = np.where(np.diff(move, prepend=0.0) != 0, move, 0.0)
        return with_stops(bars, side, stop_loss_atr=2.0)


class Every(Strategy):
    """Has no memory. Where a file says so, it raises, or ends its process."""

    n_bars = 8
    trouble = ""

    def init(self):
        flag = Path(self.trouble) if self.trouble else None
        if flag is not None and flag.exists():
            if flag.read_text() == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("the flag is <up>")

    def next(self):
        if len(self.data) % self.n_bars == 0:
            if self.position:
                self.position.close()
            else:
                self.buy()
