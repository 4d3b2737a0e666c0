"""RSI mean reversion: buy what has fallen too fast, sell what has risen too fast, leave in the middle."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qml_plugin.adapters.array_strategy import ArrayStrategy, one_at_a_time, with_stops
from qml_plugin.bars import Bars
from qml_plugin.features.compiled import kernel
from qml_plugin.records import Signals


class RSIReversion(ArrayStrategy):
    """Long at an RSI below ``oversold``, short above ``overbought``; left once it is back at ``middle``.

    Every entry has a stop ``stop_loss_atr`` ATRs away (None: no stop); after a stop the next entry waits until the RSI
    has been back at the middle. With ``take_profit_rr`` there is a target too.
    """

    rsi_period = 14
    oversold = 30.0
    overbought = 70.0
    middle = 50.0
    stop_loss_atr: float | None = 2.0
    take_profit_rr: float | None = None
    atr_period = 14
    size = 0.5

    def lines(self, bars: Bars) -> dict[str, NDArray[np.float64]]:
        return {f"RSI({self.rsi_period})": wilder_rsi(bars.close, self.rsi_period)}

    def signals(self, bars: Bars) -> Signals:
        rsi = wilder_rsi(bars.close, self.rsi_period)
        side, exits = one_at_a_time(rsi < self.oversold, rsi > self.overbought, rsi >= self.middle, rsi <= self.middle)
        return with_stops(
            bars,
            side,
            exits=exits,
            stop_loss_atr=self.stop_loss_atr,
            take_profit_rr=self.take_profit_rr,
            atr_period=self.atr_period,
        )


@kernel
def wilder_rsi(close: NDArray[np.float64], period: int) -> NDArray[np.float64]:
    """Wilder's RSI, 0 to 100, seeded by the mean of the first ``period`` moves; NaN before, and where nothing moves."""
    out = np.full(len(close), np.nan)
    gain = loss = 0.0
    for t in range(1, len(close)):
        move = close[t] - close[t - 1]
        kept = 1.0 if t <= period else (period - 1.0) / period
        gain = kept * gain + max(move, 0.0) / period
        loss = kept * loss + max(-move, 0.0) / period
        if t >= period and gain + loss > 0:
            out[t] = 100.0 * gain / (gain + loss)
    return out
