"""A seeded market with a planted edge, so that people can see what an active gate looks like."""

from __future__ import annotations

import numpy as np
import pandas as pd

_CALM_VOLATILITY = 0.001
_WILD_VOLATILITY = 0.0025
_MEAN_REGIME_BARS = 250
_TREND_SPAN_BARS = 5
_CALM_CARRY = 0.9
_WILD_CARRY = -1.5


def planted_edge_market(n_bars: int = 12_000, seed: int = 3) -> pd.DataFrame:
    """Hourly bars of a market that trends while it is calm and reverses while it is wild.

    The expected return of a bar is its recent trend (an exponential mean of returns over 5 bars) times 0.9 in calm
    regimes and times -1.5 in wild ones, whose noise is two and a half times as large. Regimes last 250 bars on
    average. Trend following therefore pays in calm weather only, and the weather shows in every volatility feature.
    This is made up, and says nothing about any real market.

    Parameters
    ----------
    n_bars : int, bars
    seed : int

    Returns
    -------
    DataFrame of shape (n_bars, 5)
        Open, High, Low, Close, Volume.

    Point in time
    -------------
    Bar t depends on draws up to t only; a longer market begins with the shorter one.
    """
    shocks, weather = np.random.default_rng(seed).spawn(2)
    draws = shocks.standard_normal((n_bars, 4))
    is_calm = np.cumsum(weather.random(n_bars) < 1 / _MEAN_REGIME_BARS) % 2 == 0
    volatility = np.where(is_calm, _CALM_VOLATILITY, _WILD_VOLATILITY)
    carry = np.where(is_calm, _CALM_CARRY, _WILD_CARRY)
    log_return = np.zeros(n_bars)
    trend, decay = 0.0, 2 / (_TREND_SPAN_BARS + 1)
    for t in range(1, n_bars):
        log_return[t] = carry[t] * trend + volatility[t] * draws[t, 0]
        trend += decay * (log_return[t] - trend)
    close = 100 * np.exp(np.cumsum(log_return))
    open_ = np.concatenate([close[:1], close[:-1]])
    wick = volatility[:, None] * np.abs(draws[:, 1:3]) / 2
    high = np.maximum(open_, close) * np.exp(wick[:, 0])
    low = np.minimum(open_, close) * np.exp(-wick[:, 1])
    volume = np.round(1_000 * np.exp(0.3 * draws[:, 3]))
    index = pd.date_range("2020-01-01", periods=n_bars, freq="h")
    return pd.DataFrame({"Open": open_, "High": high, "Low": low, "Close": close, "Volume": volume}, index=index)
