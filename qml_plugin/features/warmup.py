"""Compile every kernel of the features ahead of the first use, for every way of computing them."""

from __future__ import annotations

import numpy as np

from qml_plugin.bars import Bars
from qml_plugin.features.catalogue import CATALOGUE, N_BUILT_IN
from qml_plugin.features.compiled import Listener, when_compiling
from qml_plugin.features.entry import entry_features
from qml_plugin.features.market import MarketFeatures
from qml_plugin.features.stream import FeatureStream
from qml_plugin.records import Entry, Point, Setup

_HOUR_US = 3_600_000_000


def warm_up(tell: Listener = lambda name: None) -> int:
    """Number of kernels that had to be compiled: 0 where the disk held them all.

    Parameters
    ----------
    tell : callable, optional
        Called with the name of each kernel before it is compiled.

    Point in time
    -------------
    Computes features of made-up bars, which nobody sees.
    """
    compiled: list[str] = []
    bars = _bars(2 * max((feature.warmup for feature in CATALOGUE[N_BUILT_IN:]), default=0) + 200)
    with when_compiling(compiled.append), when_compiling(tell):
        market = MarketFeatures(bars)
        market.rows()
        entry_features(market, _entry(bars))
        FeatureStream("1h").push((bars.opened_at[0], bars.open[0], bars.high[0], bars.low[0], bars.close[0]))
    return len(compiled)


def _bars(n: int) -> Bars:
    middle = 100.0 + np.sin(np.arange(n))
    at = np.arange(500_000, 500_000 + n) * _HOUR_US
    return Bars("", "1h", at, at + _HOUR_US, middle, middle + 1.0, middle - 1.0, middle + 0.5, np.ones(n))


def _entry(bars: Bars) -> Entry:
    at = len(bars) - 1
    points = tuple(Point(at - 5 + i, 100.0 + i, at - 5 + i) for i in range(5))
    opened_at, known_at = int(bars.opened_at[at]), int(bars.known_at[at])
    setup = Setup("", 1, points, at)
    return Entry("", "1h", "", "", 1, at, opened_at, known_at, 100.0, 99.0, 102.0, setup=setup)
