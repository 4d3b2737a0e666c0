"""Strategies and signal functions that are audited: honest ones, and some with faults of their own."""

from __future__ import annotations

import numpy as np
from backtesting import Strategy

from qml_plugin import PatternMixin, PatternRegistry
from qml_plugin.audit.planted import planted_score


class Honest(Strategy):
    """Above its mean it is long, below flat."""

    n_bars = 10

    def init(self):
        close = self.data.Close.s
        self.mean = self.I(lambda: close.rolling(self.n_bars).mean().to_numpy(), name="mean")

    def next(self):
        if self.data.Close[-1] > self.mean[-1] and not self.position:
            self.buy(size=0.5)
        elif self.data.Close[-1] < self.mean[-1] and self.position:
            self.position.close()


class Peeks(Honest):
    """Shows tomorrow's return."""

    def init(self):
        super().init()
        self.ahead = self.data.Close.s.pct_change().shift(-1).fillna(0).to_numpy()


class Scaled(Honest):
    """Holds a number of the whole series."""

    def init(self):
        super().init()
        self.scales = {"close": float(self.data.Close.std())}


class Random(Honest):
    """Throws a coin that nobody seeded."""

    def next(self):
        if np.random.default_rng().random() < 0.2:
            self.buy(size=0.1)


class RandomLeak(Peeks):
    """Throws a coin, and shows tomorrow's return too."""

    next = Random.next


class Cached(Honest):
    """Keeps its first mean for ever."""

    kept = {}  # noqa: RUF012

    def init(self):
        close = self.data.Close.s
        mean = self.kept.setdefault("mean", close.rolling(self.n_bars).mean().to_numpy())
        self.mean = self.I(lambda: np.resize(mean, len(close)), name="mean")

    def next(self):
        if self.mean[-1] > self.mean[-2] and not self.position:
            self.buy(size=1)


class Raises(Honest):
    """Cannot take prices that jump."""

    def init(self):
        super().init()
        if self.data.Close.s.pct_change().abs().max() > 0.5:
            raise ValueError("a jump")


class Broken(Honest):
    def next(self):
        raise KeyError("nothing there")


class Recursive(Honest):
    """An exponential mean never forgets its start."""

    def init(self):
        close = self.data.Close.s
        self.mean = self.I(lambda: close.ewm(span=60, adjust=False).mean().to_numpy(), name="ewm")


class Idle(Strategy):
    def init(self):
        pass

    def next(self):
        pass


class Watches(Honest):
    """Has an indicator, and never asks for an order."""

    def next(self):
        pass


class Events(Honest):
    """Makes the list of its entries beforehand, and uses each in its time only."""

    def init(self):
        super().init()
        close = self.data.Close.s
        self.events = np.flatnonzero(
            (close > close.rolling(5).mean()) & (close.shift() <= close.shift().rolling(5).mean())
        )

    def next(self):
        if len(self.data) - 1 in self.events and not self.position:
            self.buy(size=0.5)
        elif self.data.Close[-1] < self.mean[-1] and self.position:
            self.position.close()


class Remembering(PatternMixin, Strategy):
    """Often in the market, so that its memory has something to say."""

    symbol, timeframe = "WALK", "1h"

    def init(self):
        pass

    def next(self):
        if len(self.data) % 6 == 0:
            (self.buy if len(self.data) % 12 else self.sell)(size=1)


class ReadsTheRegistry(Remembering):
    """Asks its registry for all outcomes, whenever they became known."""

    def init(self):
        self.share = 0.5
        if self.registry is not None:
            rows = PatternRegistry(self.registry).get_patterns(limit=10_000)
            self.share = float(
                np.mean([row["r_multiple"] > 2 for row in rows if row["r_multiple"] is not None] or [0.5])
            )


def mean_cross(frame):
    mean = frame.Close.rolling(10).mean()
    above = frame.Close > mean
    return above & ~above.shift(fill_value=False), ~above & above.shift(fill_value=False)


def both_at_once(frame):
    """Asks for both sides at the last bars, which `gate_signals` refuses."""
    late = np.arange(len(frame)) > len(frame) - 5
    up = mean_cross(frame)[0].to_numpy()
    return {"entries": up | late, "short_entries": late}


def centred_cross(frame):
    mean = frame.Close.rolling(11, center=True).mean()
    return {"entries": (frame.Close > mean).to_numpy(), "exits": (frame.Close < mean).to_numpy()}


def fourier(frame):
    """A causal filter through Fourier transforms: its last bits depend on the length of the series."""
    moves = np.log(frame.Close).diff().fillna(0).to_numpy()
    weights = np.exp(-np.arange(20) / 5)
    n = len(moves) + len(weights)
    return {"smooth": np.fft.irfft(np.fft.rfft(moves, n) * np.fft.rfft(weights, n), n)[: len(moves)]}


def in_the_next_bar(frame):
    """The score of a planted leak, as an array."""
    return planted_score(frame, "shift(-1)", is_leaking=True)
