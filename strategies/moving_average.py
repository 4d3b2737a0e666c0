"""Two moving averages: long when the fast one crosses above the slow one, short when it crosses below."""

from __future__ import annotations

import numpy as np
from backtesting import Strategy
from backtesting.lib import crossover
from numpy.typing import ArrayLike, NDArray

from qml_plugin import PatternMixin
from qml_plugin.features.kernels import wilder_atr


class MovingAverageCross(PatternMixin, Strategy):
    """Enter with all equity at every cross of two simple moving averages.

    The attributes below are the parameters for `Backtest.run` and `Backtest.optimize`. Run it with
    ``Backtest(..., exclusive_orders=True)``: an entry then replaces the position, so that the opposite cross reverses
    it; without that the host has no margin left for the reversal and cancels it. With ``stop_loss_atr`` set, every
    entry also has a stop that many ATRs away and a target ``take_profit_rr`` times as far.
    """

    fast = 20
    slow = 50
    stop_loss_atr: float | None = None
    take_profit_rr = 2.0
    atr_period = 14

    def init(self) -> None:
        self.fast_mean = self.I(moving_average, self.data.Close, self.fast)
        self.slow_mean = self.I(moving_average, self.data.Close, self.slow)
        if self.stop_loss_atr is not None:  # the host starts trading once the ATR has a value
            prices = (np.asarray(column, float) for column in (self.data.High, self.data.Low, self.data.Close))
            self.atr = self.I(wilder_atr, *prices, self.atr_period, name="ATR", plot=False)

    def next(self) -> None:
        if crossover(self.fast_mean, self.slow_mean):
            self.buy(**self.stop_and_target(+1))
        elif crossover(self.slow_mean, self.fast_mean):
            self.sell(**self.stop_and_target(-1))

    def stop_and_target(self, side: int) -> dict[str, float]:
        """Stop and target of an entry made now; empty where there is no distance to place them at."""
        if self.stop_loss_atr is None or not self.atr[-1] > 0:
            return {}
        price = self._broker._adjusted_price(side)  # incl. spread: the price against which the host checks them
        risk = self.stop_loss_atr * self.atr[-1]
        prices = {"sl": price - side * risk, "tp": price + side * self.take_profit_rr * risk}
        return {name: px for name, px in prices.items() if px > 0}


def moving_average(prices: ArrayLike, period: int) -> NDArray[np.float64]:
    """Mean of each bar and the ``period - 1`` bars before it; NaN where there are fewer."""
    values = np.asarray(prices, float)
    mean = np.full(len(values), np.nan)
    if len(values) >= period:
        mean[period - 1 :] = np.lib.stride_tricks.sliding_window_view(values, period).mean(axis=1)
    return mean
