"""Registries that real runs on bars cut short have filled: two markets, and one whose future went another way."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from backtesting import Backtest

from qml_plugin.registry import PatternRegistry

N_GOOG, N_EURUSD = 700, 700
CHANGED_FROM = 450


def fill(path, runs):
    """Run a strategy on each (frame, symbol, timeframe, fast)."""
    from strategies.moving_average import MovingAverageCross

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="backtesting")
        for frame, symbol, timeframe, fast in runs:
            host = Backtest(frame, MovingAverageCross, cash=1_000_000, exclusive_orders=True, finalize_trades=True)
            registry = f"sqlite:///{path}"
            host.run(symbol=symbol, timeframe=timeframe, mode="record", registry=registry, fast=fast, slow=15)
    return path


def another_future(frame, start=CHANGED_FROM):
    """The same bars up to `start`; then each twice as far from the last one, and in the opposite direction."""
    changed = frame.copy()
    prices = ["Open", "High", "Low", "Close"]
    after = frame[prices].iloc[start:].to_numpy()
    mirrored = frame["Close"].iloc[start - 1] ** 3 / after**2
    mirrored[:, [1, 2]] = mirrored[:, [2, 1]]
    changed.iloc[start:, [frame.columns.get_loc(name) for name in prices]] = mirrored
    changed.iloc[start:, frame.columns.get_loc("Volume")] = np.arange(len(frame) - start) + 1.0
    return changed


@pytest.fixture(scope="session")
def two_markets(tmp_path_factory, goog, eurusd):
    path = tmp_path_factory.mktemp("neighbours") / "two.db"
    goog, eurusd = goog.iloc[:N_GOOG], eurusd.iloc[:N_EURUSD]
    return fill(path, [(goog, "GOOG", "1d", 3), (goog, "GOOG", "1d", 5), (eurusd, "EURUSD", "1h", 5)])


@pytest.fixture(scope="session")
def same_past(tmp_path_factory, goog):
    """Two registries of runs on bars that are the same up to `CHANGED_FROM`."""
    folder, frame = tmp_path_factory.mktemp("past"), goog.iloc[:N_GOOG]
    return tuple(
        fill(folder / f"{name}.db", [(bars, "GOOG", "1d", 3), (bars, "GOOG", "1d", 5)])
        for name, bars in (("one", frame), ("other", another_future(frame)))
    )


@pytest.fixture
def registry(two_markets):
    return PatternRegistry(f"sqlite:///{two_markets}", create=False)
