"""What several categories need of one series of bars, computed once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from qml_plugin.bars import Bars
from qml_plugin.features import kernels
from qml_plugin.records import FloatArray

Columns = Mapping[str, FloatArray]


@dataclass(frozen=True, slots=True)
class Series:
    """Bars with their true range, ATR(14), log returns, and EMAs of the close, all of shape (n_bars,).

    ``atr`` is NaN where it is not above 1e-6 of the close, so that dividing by it never explodes.
    """

    bars: Bars
    true_range: FloatArray
    atr: FloatArray
    returns: FloatArray
    ema_20: FloatArray
    ema_50: FloatArray

    @classmethod
    def of(cls, bars: Bars) -> Series:
        atr = kernels.wilder_atr(bars.high, bars.low, bars.close, 14)
        return cls(
            bars=bars,
            true_range=kernels.true_range(bars.high, bars.low, bars.close),
            atr=np.where(atr > kernels.STILL * bars.close, atr, np.nan),
            returns=kernels.log_returns(bars.close),
            ema_20=kernels.ema(bars.close, 20),
            ema_50=kernels.ema(bars.close, 50),
        )
