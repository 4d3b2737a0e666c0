"""The Quasimodo strategy: enter at the retest of the left shoulder, stop beyond the head."""

from __future__ import annotations

from backtesting import Strategy

from qml_plugin import PatternMixin
from qml_plugin.bars import bars_from_frame
from qml_plugin.detection import find_quasimodo
from qml_plugin.records import Setup


class QMLStrategy(PatternMixin, Strategy):
    """Trade every Quasimodo in the direction of the break, with its own stop and target.

    The attributes below are the parameters for `Backtest.run` and `Backtest.optimize`; `find_quasimodo` explains them.
    ``size`` is the fraction of the free margin that one entry takes. Setups against the open position are passed over:
    that position has its own stop and target. To trade some setups only, override `accepts` and call it; to trade
    another pattern, override `find_setups`.
    """

    atr_period = 14
    swing_atr = 1.0
    min_depth_ratio = 0.1
    max_depth_ratio = 2.0
    shoulder_tolerance = 0.5
    stop_loss_atr = 0.5
    take_profit_rr = 2.0
    max_wait_bars = 100
    size = 0.2

    def init(self) -> None:
        # The host shows all bars here, but a setup is used only at its known_bar, and knows nothing of later bars.
        self.setups: dict[int, list[Setup]] = {}
        for setup in self.find_setups():
            self.setups.setdefault(setup.known_bar, []).append(setup)

    def next(self) -> None:
        found = self.setups.get(len(self.data) - 1, [])
        best = max(found, key=lambda setup: setup.validity_score or 0.0, default=None)  # one entry per bar
        if best is not None and self.accepts(best):
            self.enter(best)

    def find_setups(self) -> list[Setup]:
        """All setups of the series, each with its stop and target."""
        bars = bars_from_frame(
            self.data.df, symbol=self.symbol or "UNKNOWN", timeframe=self.timeframe, bar_label=self.bar_label
        )
        return find_quasimodo(
            bars,
            atr_period=self.atr_period,
            swing_atr=self.swing_atr,
            min_depth_ratio=self.min_depth_ratio,
            max_depth_ratio=self.max_depth_ratio,
            shoulder_tolerance=self.shoulder_tolerance,
            stop_loss_atr=self.stop_loss_atr,
            take_profit_rr=self.take_profit_rr,
            max_wait_bars=self.max_wait_bars,
        )

    def accepts(self, setup: Setup) -> bool:
        """Whether to trade this setup: not against an open position, nor where the spread eats it up."""
        price = self._broker._adjusted_price(setup.side)  # incl. spread: what the host checks stop and target against
        is_between = setup.side * setup.stop_px < setup.side * price < setup.side * setup.target_px
        return is_between and self.position.size * setup.side >= 0

    def enter(self, setup: Setup) -> None:
        """Order the setup at the market."""
        place = self.buy if setup.side > 0 else self.sell
        place(size=self.size, sl=setup.stop_px, tp=setup.target_px, tag=setup)
