"""Strategies that use every way into the host, bare and with the memory."""

from __future__ import annotations

import numpy as np
from backtesting import Strategy

from qml_plugin import PatternMixin


class Chaos(Strategy):
    """Seeded orders of every kind: market, limit, stop, stop-limit; with and without stop and target; partial closes."""

    chaos_seed = 0
    action_share = 0.15

    def init(self):
        self.rng = np.random.default_rng(self.chaos_seed)

    def next(self):
        rng, price = self.rng, self.data.Close[-1]
        if rng.random() > self.action_share:
            return
        kind = rng.integers(8)
        side = 1 if rng.random() < 0.5 else -1
        place = self.buy if side > 0 else self.sell
        size = float(rng.integers(1, 20)) if rng.random() < 0.5 else 0.3
        near, far = price * (1 - 0.01 * side), price * (1 + 0.02 * side)
        if kind == 0:
            place(size=size)
        elif kind == 1:
            place(size=size, sl=price * (1 - 0.03 * side), tp=price * (1 + 0.05 * side), tag=f"both-{len(self.data)}")
        elif kind == 2:
            place(size=size, limit=near, sl=near * (1 - 0.03 * side), tag=len(self.data))
        elif kind == 3:
            place(size=size, stop=far, tp=far * (1 + 0.05 * side))
        elif kind == 4:
            place(size=size, stop=far, limit=far * (1 + 0.01 * side), sl=price * (1 - 0.04 * side))
        elif kind == 5 and self.trades:
            self.trades[0].close(0.5)
        elif kind == 6:
            for order in self.orders[:2]:
                if not order.is_contingent:
                    order.cancel()
        elif kind == 7 and self.trades:
            assert self.trades[0].tag is None or isinstance(self.trades[0].tag, (str, int)), "the tag is the user's own"
            self.position.close()


class Remembered(PatternMixin, Chaos):
    symbol = "X"
