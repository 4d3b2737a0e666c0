"""Strategies for sweeps, importable by workers, that misbehave where a point or a file tells them to."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
import warnings
from pathlib import Path

from backtesting import Strategy

from strategies.moving_average import MovingAverageCross, moving_average


class Unpicklable(Exception):
    """Unpickled, it would be called with one argument."""

    def __init__(self, first, second):
        super().__init__(f"{first} {second}")


class Plain(Strategy):
    """Two averages on the bare host; ``trouble`` says what happens to a point."""

    fast = 3
    slow = 8
    trouble = ""
    sleep_s = 0.0
    flag = ""

    def init(self):
        time.sleep(self.sleep_s)
        if self.trouble == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.trouble == "hang":
            time.sleep(600)
        elif self.trouble == "raise":
            raise ValueError("this point is not to be had")
        elif self.trouble == "memory":
            resource.setrlimit(resource.RLIMIT_AS, (2 << 30, resource.RLIM_INFINITY))
            bytearray(8 << 30)
        elif self.trouble == "disk":
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        elif self.trouble == "kill once" and not Path(self.flag).exists():
            Path(self.flag).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.trouble == "exit":
            sys.exit("so long")
        elif self.trouble == "unpicklable":
            raise Unpicklable("two", "words")
        elif self.trouble == "unprintable":
            raise ValueError("\udcff" + "x" * 3_000)
        elif self.trouble == "talk":
            print("said on the way")  # noqa: T201
            warnings.warn("mind the 3 gaps", UserWarning, stacklevel=1)
        self.one = self.I(moving_average, self.data.Close, self.fast)
        self.other = self.I(moving_average, self.data.Close, self.slow)

    def next(self):
        if self.one[-1] > self.other[-1]:
            self.buy()
        elif self.one[-1] < self.other[-1]:
            self.sell()


class Cross(MovingAverageCross):
    """With the mixin; raises at one point while a file is there, waits from another one on until it is."""

    fast = 3
    slow = 8
    bad_fast = 0
    waits_from = 1_000
    flag = ""

    def init(self):
        while self.fast >= self.waits_from and not Path(self.flag).exists():
            time.sleep(0.02)
        if self.fast == self.bad_fast and Path(self.flag).exists():
            raise RuntimeError("the flag is up")
        super().init()


class Troubled(Cross):
    """With the mixin; what happens at a bar of the symbol called BAD."""

    fast = 2
    slow = 5
    trouble = ""

    def next(self):
        if self.symbol == "BAD" and len(self.data) == 60:
            if self.trouble == "raise":
                raise ValueError("this bar is not to be had")
            if self.trouble == "interrupt":
                os.kill(os.getpid(), signal.SIGINT)
            if self.trouble == "hang":
                time.sleep(600)
        super().next()
