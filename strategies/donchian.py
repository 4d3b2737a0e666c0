"""Donchian breakout: enter beyond the range of the last bars, leave beyond the other side of a shorter range."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qml_plugin.adapters.array_strategy import ArrayStrategy, one_at_a_time, with_stops
from qml_plugin.bars import Bars
from qml_plugin.records import Signals


class DonchianBreakout(ArrayStrategy):
    """Long at a close above the highest high of the ``entry_bars`` bars before it, short below their lowest low.

    A long position is left at a close below the lowest low of the ``exit_bars`` bars before it, a short one above their
    highest high. Every entry has a stop ``stop_loss_atr`` ATRs away (None: no stop); after a stop the next entry waits
    until the exit of the stopped one has come. With ``take_profit_rr`` there is a target too.
    """

    entry_bars = 20
    exit_bars = 10
    stop_loss_atr: float | None = 2.0
    take_profit_rr: float | None = None
    atr_period = 14
    size = 0.5

    def lines(self, bars: Bars) -> dict[str, NDArray[np.float64]]:
        upper, lower = channel(bars, self.entry_bars)
        return {f"high({self.entry_bars})": upper, f"low({self.entry_bars})": lower}

    def signals(self, bars: Bars) -> Signals:
        upper, lower = channel(bars, self.entry_bars)
        exit_upper, exit_lower = channel(bars, self.exit_bars)
        close = bars.close
        side, exits = one_at_a_time(close > upper, close < lower, close < exit_lower, close > exit_upper)
        return with_stops(
            bars,
            side,
            exits=exits,
            stop_loss_atr=self.stop_loss_atr,
            take_profit_rr=self.take_profit_rr,
            atr_period=self.atr_period,
        )


def channel(bars: Bars, n_bars: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Highest high and lowest low of the ``n_bars`` bars before each bar; NaN where there are fewer."""
    upper, lower = np.full(len(bars), np.nan), np.full(len(bars), np.nan)
    if len(bars) > n_bars:
        windows = np.lib.stride_tricks.sliding_window_view
        upper[n_bars:] = windows(bars.high[:-1], n_bars).max(axis=1)
        lower[n_bars:] = windows(bars.low[:-1], n_bars).min(axis=1)
    return upper, lower
