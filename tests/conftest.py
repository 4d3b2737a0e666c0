from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import settings

settings.register_profile("project", deadline=None, derandomize=True)
settings.load_profile("project")


def random_walk(n_bars: int, seed: int, *, freq: str = "h", volatility: float = 0.01) -> pd.DataFrame:
    """Seeded OHLCV bars without drift."""
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, volatility, n_bars)))
    open_ = np.concatenate([[100.0], close[:-1]]) * np.exp(rng.normal(0, volatility / 10, n_bars))
    high = np.maximum(open_, close) * np.exp(np.abs(rng.normal(0, volatility / 2, n_bars)))
    low = np.minimum(open_, close) * np.exp(-np.abs(rng.normal(0, volatility / 2, n_bars)))
    index = pd.date_range("2020-01-01", periods=n_bars, freq=freq)
    columns = {"Open": open_, "High": high, "Low": low, "Close": close, "Volume": rng.integers(100, 1000, n_bars) * 1.0}
    return pd.DataFrame(columns, index=index)


@pytest.fixture(scope="session")
def goog() -> pd.DataFrame:
    from backtesting.test import GOOG

    return GOOG


@pytest.fixture(scope="session")
def eurusd() -> pd.DataFrame:
    from backtesting.test import EURUSD

    return EURUSD
