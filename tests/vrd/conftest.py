from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from qml_plugin.bars import Bars, bars_from_frame
from qml_plugin.vrd import Positions, run_trials
from tests.conftest import random_walk

GRID = [{"fast": fast, "slow": slow} for fast in (5, 10, 20) for slow in (40, 80, 120)]


def moving_average(bars: Bars, parameters) -> np.ndarray:
    close = pd.Series(bars.close)
    gap = close.rolling(parameters["fast"]).mean() - close.rolling(parameters["slow"]).mean()
    return np.sign(gap.fillna(0.0)).to_numpy()


def peeking(bars: Bars, parameters) -> np.ndarray:
    """Knows the next close."""
    return np.sign(np.append(np.diff(bars.close), 0.0))


def market_with_edge(n_bars: int, seed: int, drift: float) -> Bars:
    """A random walk that drifts with the sign of its own last 20 moves."""
    rng = np.random.default_rng(seed)
    noise, log_px = rng.normal(0, 0.01, n_bars), np.zeros(n_bars)
    for t in range(1, n_bars):
        past = log_px[t - 1] - log_px[max(0, t - 21)]
        log_px[t] = log_px[t - 1] + noise[t] + drift * np.sign(past)
    close = 100 * np.exp(log_px)
    open_ = np.append(100.0, close[:-1])
    frame = pd.DataFrame(
        {
            "Open": open_,
            "High": np.maximum(open_, close) * 1.001,
            "Low": np.minimum(open_, close) * 0.999,
            "Close": close,
        },
        index=pd.date_range("2010-01-01", periods=n_bars, freq="D"),
    )
    return bars_from_frame(frame, symbol="EDGE", timeframe="1d")


@pytest.fixture(scope="session")
def bars() -> Bars:
    return bars_from_frame(random_walk(1500, 3), symbol="WALK", timeframe="1h")


@pytest.fixture(scope="session")
def evaluate() -> Positions:
    return Positions(moving_average, 0.0002)


@pytest.fixture(scope="session")
def trials(bars, evaluate):
    return run_trials(bars, evaluate, GRID)
