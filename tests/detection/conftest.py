from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from qml_plugin.bars import Bars, bars_from_frame


@pytest.fixture(scope="session")
def walk() -> Callable[[int, int], pd.DataFrame]:
    """OHLC frame of a seeded random walk with gaps, equal prices and some wide bars."""

    def make(seed: int, n: int) -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        close = 500 + np.cumsum(rng.normal(0, 1, n)).round(1)
        open_ = close + rng.normal(0, 0.5, n).round(1)
        wide = np.where(rng.random(n) < 0.05, 8.0, 1.0)
        high = np.maximum(open_, close) + (wide * rng.random(n)).round(1)
        low = np.minimum(open_, close) - (wide * rng.random(n)).round(1)
        index = pd.date_range("2024-01-01", periods=n, freq="h")
        return pd.DataFrame({"Open": open_, "High": high, "Low": low, "Close": close}, index=index)

    return make


@pytest.fixture(scope="session")
def as_bars() -> Callable[[pd.DataFrame], Bars]:
    return lambda frame: bars_from_frame(frame, symbol="TEST", timeframe="1h")


@pytest.fixture(scope="session")
def path() -> Callable[[list[float]], pd.DataFrame]:
    """Frame whose closes walk from one waypoint to the next in steps of 1; each bar reaches 0.5 around its close."""

    def make(waypoints: list[float]) -> pd.DataFrame:
        legs = [np.arange(a, b, np.sign(b - a)) for a, b in pairwise(waypoints)]
        close = np.append(np.concatenate(legs), waypoints[-1]).astype(float)
        index = pd.date_range("2024-01-01", periods=len(close), freq="h")
        return pd.DataFrame({"Open": close, "High": close + 0.5, "Low": close - 0.5, "Close": close}, index=index)

    return make
