"""Two moving averages: long when the fast one crosses above the slow one, short when it crosses below."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qml_plugin.adapters.array_strategy import ArrayStrategy, with_stops
from qml_plugin.bars import Bars
from qml_plugin.records import Signals


class MovingAverageCross(ArrayStrategy):
    """Enter with all equity at every cross of two simple moving averages.

    The attributes below are the parameters for `Backtest.run`, `Backtest.optimize` and `arrays`. Run it with
    ``Backtest(..., exclusive_orders=True)``: an entry then replaces the position, so that the opposite cross reverses
    it; without that the host has no margin left for the reversal and cancels it. With ``stop_loss_atr`` set, every
    entry also has a stop that many ATRs away and a target ``take_profit_rr`` times as far.
    """

    fast = 20
    slow = 50
    stop_loss_atr: float | None = None
    take_profit_rr = 2.0
    atr_period = 14

    def lines(self, bars: Bars) -> dict[str, NDArray[np.float64]]:
        return {f"mean({n})": moving_average(bars.close, n) for n in (self.fast, self.slow)}

    def signals(self, bars: Bars) -> Signals:
        above = moving_average(bars.close, self.fast) - moving_average(bars.close, self.slow)
        side = np.zeros(len(bars))
        side[1:][(above[:-1] < 0) & (above[1:] > 0)] = +1
        side[1:][(above[:-1] > 0) & (above[1:] < 0)] = -1
        return with_stops(
            bars,
            side,
            stop_loss_atr=self.stop_loss_atr,
            take_profit_rr=self.take_profit_rr,
            atr_period=self.atr_period,
        )


def moving_average(prices: ArrayLike, period: int) -> NDArray[np.float64]:
    """Mean of each bar and the ``period - 1`` bars before it; NaN where there are fewer."""
    values = np.asarray(prices, float)
    mean = np.full(len(values), np.nan)
    if len(values) >= period:
        mean[period - 1 :] = np.lib.stride_tricks.sliding_window_view(values, period).mean(axis=1)
    return mean
