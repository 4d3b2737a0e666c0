"""What every twin is given: the bars up to the one asked about, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from qml_plugin.bars import Bars

Twin = Callable[["Past"], float]


class Past:
    """The bars up to the one asked about, and nothing else."""

    def __init__(self, bars: Bars, t: int) -> None:
        self.o, self.h, self.l, self.c, self.v = (
            getattr(bars, name)[: t + 1] for name in ("open", "high", "low", "close", "volume")
        )
        self.at = bars.opened_at[: t + 1]
        self.known_at = bars.known_at[: t + 1]
        self.timeframe = bars.timeframe
        self.r = np.diff(np.log(self.c))
        before = self.c[:-1]
        self.tr = np.append(
            self.h[0] - self.l[0],
            np.max([self.h[1:] - self.l[1:], abs(self.h[1:] - before), abs(self.l[1:] - before)], axis=0),
        )

    def atrs(self, period: int = 14) -> np.ndarray:
        out = [math.nan] * (period - 1) + [float(np.mean(self.tr[:period]))]
        for tr in self.tr[period:]:
            out.append((out[-1] * (period - 1) + tr) / period)
        return np.array(out)

    @property
    def atr(self) -> float:
        return float(self.atrs()[-1])


def ema(values: np.ndarray, span: int) -> float:
    weights = (1 - 2 / (span + 1)) ** np.arange(len(values))[::-1]
    weights[1:] *= 2 / (span + 1)
    return float(weights @ values)


def emas(values: np.ndarray, span: int) -> np.ndarray:
    out = [values[0]]
    for value in values[1:]:
        out.append(out[-1] * (1 - 2 / (span + 1)) + value * 2 / (span + 1))
    return np.array(out)


def wilder(values: np.ndarray, period: int) -> np.ndarray:
    out = [float(np.mean(values[:period]))]
    for value in values[period:]:
        out.append((out[-1] * (period - 1) + value) / period)
    return np.array(out)


def dmi(p: Past) -> tuple[np.ndarray, float, float]:
    """ADX of bars 27.., and the last +DI and -DI."""
    up, down = np.diff(p.h), -np.diff(p.l)
    tie = abs(up - down) <= 1e-9 * p.c[1:]
    plus = wilder(np.where((up > down) & (up > 0) & ~tie, up, 0), 14)
    minus = wilder(np.where((down > up) & (down > 0) & ~tie, down, 0), 14)
    tr = wilder(p.tr[1:], 14)
    dx = 100 * abs(plus - minus) / (plus + minus)
    return wilder(dx, 14), float(100 * plus[-1] / tr[-1]), float(100 * minus[-1] / tr[-1])


def rank(values: np.ndarray, w: int) -> float:
    now, past = values[-1], values[-w - 1 : -1]
    ties = abs(now - past) <= 1e-9 * abs(now)
    return float(np.mean(np.where(ties, 0.5, past < now)))


def efficiency(p: Past, w: int) -> float:
    return float(abs(p.c[-1] - p.c[-1 - w]) / abs(np.diff(p.c[-w - 1 :])).sum())


def since(values: np.ndarray) -> int:
    return int(np.argmax(values[::-1]))
