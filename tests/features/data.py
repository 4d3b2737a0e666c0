"""Bars the tests of the features are run on."""

from __future__ import annotations

import dataclasses

import numpy as np

from qml_plugin.bars import Bars

HOUR = 3_600_000_000
START = 1_600_000_000_000_000 // HOUR * HOUR


def make_bars(n: int, seed: int = 0, *, bar: int = HOUR, timeframe: str = "1h", tick: float | None = None) -> Bars:
    rng = np.random.default_rng(seed)
    sd = 0.01 * np.exp(np.cumsum(rng.normal(0, 0.02, n)))
    close = 100.0 * np.exp(np.cumsum(rng.standard_t(4, n) * sd * 0.5))
    open_ = np.append(100.0, close[:-1]) * np.exp(rng.normal(0, 0.001, n))
    high = np.maximum(open_, close) * np.exp(np.abs(rng.normal(0, 0.004, n)))
    low = np.minimum(open_, close) * np.exp(-np.abs(rng.normal(0, 0.004, n)))
    if tick is not None:
        open_, high, low, close = (np.round(x / tick) * tick for x in (open_, high, low, close))
    at = START + np.arange(n) * bar
    return Bars("X", timeframe, at, at + bar, open_, high, low, close, rng.lognormal(8, 1, n))


def cut(bars: Bars, start: int, stop: int) -> Bars:
    names = ("opened_at", "known_at", "open", "high", "low", "close", "volume")
    return dataclasses.replace(bars, **{name: getattr(bars, name)[start:stop].copy() for name in names})


def scaled(bars: Bars, price: float = 1.0, volume: float = 1.0) -> Bars:
    prices = {name: getattr(bars, name) * price for name in ("open", "high", "low", "close")}
    return dataclasses.replace(bars, **prices, volume=bars.volume * volume)


def flat_bars(n: int, px: float = 0.1) -> Bars:
    bars = make_bars(n)
    return dataclasses.replace(bars, **dict.fromkeys(("open", "high", "low", "close"), np.full(n, px)))
