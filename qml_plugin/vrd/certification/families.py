"""Strategies to certify with: four families, each with its sweep."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, Protocol

import numpy as np

from qml_plugin.bars import Bars
from qml_plugin.compiling import kernel
from qml_plugin.detection import find_quasimodo
from qml_plugin.records import FloatArray, IntArray
from qml_plugin.vrd.evaluation import Evaluate, Parameters, Positions

COST_FRAC = 0.0002


@kernel
def _step(
    kind: int, close: FloatArray, sums: FloatArray, squares: FloatArray, t: int, a: float, b: float, before: float
) -> float:
    """Position wanted at the close of bar t; sums run over log closes, one ahead."""
    if kind == 0:  # moving averages of a and b bars
        n, m = int(a), int(b)
        if t + 1 < m:
            return 0.0
        gap = (sums[t + 1] - sums[t + 1 - n]) / n - (sums[t + 1] - sums[t + 1 - m]) / m
        return 1.0 if gap > 0 else -1.0
    if kind == 1:  # breakout of the last a bars, left at the other end of the last a * b
        n, m = int(a), max(2, int(a * b))
        if t < n:
            return 0.0
        top, bottom = close[t - n : t].max(), close[t - n : t].min()
        if close[t] > top:
            return 1.0
        if close[t] < bottom:
            return -1.0
        if before > 0 and close[t] < close[t - m : t].min():
            return 0.0
        if before < 0 and close[t] > close[t - m : t].max():
            return 0.0
        return before
    n = int(a)  # mean reversion: against b standard deviations from the mean of a bars, until it is met
    if t + 1 < n:
        return 0.0
    mean = (sums[t + 1] - sums[t + 1 - n]) / n
    variance = (squares[t + 1] - squares[t + 1 - n]) / n - mean * mean
    z = (np.log(close[t]) - mean) / np.sqrt(max(variance, 1e-18))
    if z > b:
        return -1.0
    if z < -b:
        return 1.0
    if (before > 0 and z >= 0) or (before < 0 and z <= 0):
        return 0.0
    return before


@kernel
def _positions(kind: int, close: FloatArray, a: float, b: float, is_long_only: bool) -> FloatArray:
    n = len(close)
    sums, squares, out = np.zeros(n + 1), np.zeros(n + 1), np.zeros(n)
    before = 0.0
    for t in range(n):
        x = np.log(close[t])
        sums[t + 1], squares[t + 1] = sums[t] + x, squares[t] + x * x
        before = _step(kind, close, sums, squares, t, a, b, before)
        out[t] = max(before, 0.0) if is_long_only else before
    return out


@kernel
def planted(kind: int, noise: FloatArray, drift: float, a: float, b: float) -> FloatArray:
    """Log returns that drift with the position of one member of the family."""
    n = len(noise)
    close, sums, squares, out = np.empty(n), np.zeros(n + 1), np.zeros(n + 1), np.empty(n)
    level, before = 0.0, 0.0
    for t in range(n):
        out[t] = noise[t] + drift * before
        level += out[t]
        close[t] = np.exp(level)
        sums[t + 1], squares[t + 1] = sums[t] + level, squares[t] + level * level
        before = _step(kind, close, sums, squares, t, a, b, before)
    return out


@kernel
def _held_setups(
    known: IntArray, side: FloatArray, stop: FloatArray, head_gap: FloatArray, close: FloatArray, rr: float, limit: int
) -> FloatArray:
    """Positions of setups, one at a time: until the close passes stop or target, or for `limit` bars."""
    n = len(close)
    out = np.zeros(n)
    free = 0
    for i in range(len(known)):
        t = known[i]
        if t < free:
            continue
        target = close[t] + side[i] * rr * head_gap[i]
        u = t
        while u < min(n, t + limit) and side[i] * (close[u] - stop[i]) > 0 and side[i] * (target - close[u]) > 0:
            out[u] = side[i]
            u += 1
        free = u + 1
    return out


class Searched(Protocol):
    """A strategy with its sweep. ``number`` is part of the seed of its worlds; ``true`` is what planted edges follow."""

    @property
    def name(self) -> str: ...
    @property
    def number(self) -> int: ...
    @property
    def fees(self) -> float: ...
    @property
    def grid(self) -> tuple[Parameters, ...]: ...
    @property
    def true(self) -> Parameters | None: ...
    def evaluate(self, *, is_long_only: bool) -> Evaluate: ...
    def identity(self) -> Any:
        """What tells it from others, for sets that are kept."""


@dataclass(frozen=True, slots=True)
class Family:
    """A shipped family: position of the close, costs of 2 basis points of what changes hands."""

    name: str
    kind: int
    grid: tuple[Parameters, ...]
    true: Parameters

    @property
    def fees(self) -> float:
        return COST_FRAC

    @property
    def number(self) -> int:
        return sorted(FAMILIES).index(self.name)

    def positions(self, bars: Bars, parameters: Parameters, *, is_long_only: bool) -> FloatArray:
        if self.kind < 3:
            a, b = parameters.values()
            return np.asarray(_positions(self.kind, bars.close, float(a), float(b), is_long_only))
        known, side, stop, head_gap = _setups(bars, float(parameters["swing_atr"]))
        held = _held_setups(known, side, stop, head_gap, bars.close, float(parameters["reward"]), 60)
        return np.asarray(np.maximum(held, 0.0) if is_long_only else held)

    def evaluate(self, *, is_long_only: bool = False) -> Positions:
        return Positions(partial(self.positions, is_long_only=is_long_only), COST_FRAC)

    def identity(self) -> Any:
        return ["family", self.name, list(self.grid), COST_FRAC]


_Found = tuple[IntArray, FloatArray, FloatArray, FloatArray]


class _Setups:
    """Setups of the last bars asked for, so that a sweep detects once for each ``swing_atr``."""

    def __init__(self) -> None:
        self._bars: Bars | None = None
        self._found: dict[float, _Found] = {}

    def __call__(self, bars: Bars, swing_atr: float) -> _Found:
        if self._bars is not bars:
            self._bars, self._found = bars, {}
        if swing_atr not in self._found:
            setups = find_quasimodo(bars, swing_atr=swing_atr)
            known = np.array([one.known_bar for one in setups], dtype=np.int64)
            stop = np.array([one.stop_px for one in setups], dtype=np.float64)
            side = np.array([one.side for one in setups], dtype=np.float64)
            self._found[swing_atr] = known, side, stop, np.abs(bars.close[known] - stop)
        return self._found[swing_atr]


_setups = _Setups()


def _grid(**values: tuple[float, ...]) -> tuple[Parameters, ...]:
    return tuple(dict(zip(values, chosen, strict=True)) for chosen in product(*values.values()))


FAMILIES = {
    family.name: family
    for family in (
        Family("moving_average", 0, _grid(fast=(5, 8, 12, 20, 30), slow=(50, 80, 120, 160, 220)), {"fast": 12, "slow": 80}),
        Family("breakout", 1, _grid(entry=(20, 30, 50, 80, 120), exit=(0.25, 0.5, 1.0)), {"entry": 50, "exit": 0.5}),
        Family("mean_reversion", 2, _grid(length=(10, 20, 30, 50, 80), width=(1.0, 1.5, 2.0, 2.5)), {"length": 30, "width": 1.5}),
        Family("quasimodo", 3, _grid(swing_atr=(1.0, 1.5, 2.0, 3.0), reward=(1.0, 1.5, 2.0, 3.0)), {"swing_atr": 1.5, "reward": 1.5}),
    )
}  # fmt: skip
# The verdict was designed on these; Quasimodo was not looked at before the thresholds were fixed.
DESIGNED_ON = ("moving_average", "breakout", "mean_reversion")
