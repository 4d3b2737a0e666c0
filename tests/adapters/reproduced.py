"""Strategies whose runs are run again; `with_body` makes another class of the same place."""

from __future__ import annotations

from backtesting import Strategy

from qml_plugin import PatternMixin


class EveryFifth(PatternMixin, Strategy):
    """Enters on every fifth bar, by turns long and short, with a stop and a target."""

    symbol = "GOOG"
    every = 5
    risk_frac = 0.02
    most = float("inf")
    names = ("a", "b")

    def init(self): ...

    def next(self):
        n, price = len(self.data), self.data.Close[-1]
        if n % self.every or n > self.most:
            return
        side = 1 if (n // self.every) % 2 else -1
        place = self.buy if side > 0 else self.sell
        place(size=0.2, sl=price * (1 - side * self.risk_frac), tp=price * (1 + side * self.risk_frac))


class NeverEnters(PatternMixin, Strategy):
    symbol = "GOOG"

    def init(self): ...

    def next(self): ...
