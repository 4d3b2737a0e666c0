"""The Quasimodo strategy: enter at the retest of the left shoulder, stop beyond the head."""

from __future__ import annotations

import numpy as np

from qml_plugin.adapters.array_strategy import ArrayStrategy
from qml_plugin.bars import Bars
from qml_plugin.detection import find_quasimodo
from qml_plugin.records import Setup, Signals


class QMLStrategy(ArrayStrategy):
    """Trade every Quasimodo in the direction of the break, with its own stop and target.

    The attributes below are the parameters for `Backtest.run`, `Backtest.optimize` and `arrays`; `find_quasimodo`
    explains them. ``size`` is the fraction of the free margin that one entry takes. Setups against the open position are
    passed over: that position has its own stop and target. To trade another pattern, or some setups only, override
    `find_setups`.
    """

    swing_model = "atr"
    swing_atr = 1.0
    fractal_bars = 3
    atr_period = 14
    min_depth_ratio = 0.1
    max_depth_ratio = 2.0
    shoulder_tolerance = 0.5
    stop_loss_atr = 0.5
    take_profit_rr = 2.0
    max_wait_bars = 100
    min_validity = 0.0
    size = 0.2
    reverses = False

    def find_setups(self, bars: Bars) -> list[Setup]:
        """All setups of the series, each with its stop and target."""
        return find_quasimodo(
            bars,
            swing_model=self.swing_model,
            swing_atr=self.swing_atr,
            fractal_bars=self.fractal_bars,
            atr_period=self.atr_period,
            min_depth_ratio=self.min_depth_ratio,
            max_depth_ratio=self.max_depth_ratio,
            shoulder_tolerance=self.shoulder_tolerance,
            stop_loss_atr=self.stop_loss_atr,
            take_profit_rr=self.take_profit_rr,
            max_wait_bars=self.max_wait_bars,
        )

    def signals(self, bars: Bars) -> Signals:
        best: dict[int, Setup] = {}  # one entry per bar
        for setup in self.find_setups(bars):
            score, rival = setup.validity_score or 0.0, best.get(setup.known_bar)
            if score >= self.min_validity and (rival is None or score > (rival.validity_score or 0.0)):
                best[setup.known_bar] = setup
        n = len(bars)
        side, stop_px, target_px = np.zeros(n, np.int8), np.full(n, np.nan), np.full(n, np.nan)
        for bar, setup in best.items():
            side[bar], stop_px[bar], target_px[bar] = setup.side, setup.stop_px, setup.target_px
        return Signals(side, stop_px, target_px, np.zeros(n, np.bool_), best)
