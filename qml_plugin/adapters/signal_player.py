"""A strategy of backtesting.py that plays given signals, so that both hosts can be asked the same."""

from __future__ import annotations

import warnings
from typing import Any

import pandas as pd

from qml_plugin.adapters.asked import Asked, px_or_none
from qml_plugin.adapters.backtesting_host import Backtest, Strategy
from qml_plugin.adapters.backtesting_py import PatternMixin

# One unit of far less than the cash, so that the host never cancels an order for want of margin.
_CASH = 1e12


class SignalPlayer(PatternMixin, Strategy):  # type: ignore[misc]
    """Asks at the close of each bar for what the signals of that bar say; see `playing.play` for the rules."""

    _asked: Asked
    _max_bars: int | None = None
    _is_at_close = False

    def init(self) -> None:
        """Nothing: the signals are there."""

    def next(self) -> None:
        asked, bar = self._asked, len(self.data) - 1
        side, position, closes = int(asked.side[bar]), 0, False
        if self.position:
            position = 1 if self.position.is_long else -1
            n_held = bar - self.trades[0].entry_bar + (0 if self._is_at_close else 1)
            closes = bool((asked.exits_long if position > 0 else asked.exits_short)[bar])
            closes = closes or (self._max_bars is not None and n_held >= self._max_bars)
        if side:
            order = {
                "size": 1,
                "sl": px_or_none(asked.stop_px[bar]),
                "tp": px_or_none(asked.target_px[bar]),
                "tag": asked.setups.get(bar),
            }
            if position == side and not closes:
                self.qml.enter(side, _pass_over, order)
                return
            if (self.buy if side > 0 else self.sell)(**order):
                return  # exclusive orders have closed what stood
        if closes:
            self.position.close()


def play_signals(asked: Asked, frame: pd.DataFrame, terms: dict[str, Any], settings: dict[str, Any]) -> Any:
    """The memory of a run of backtesting.py that plays `asked`; `settings` are those of `PatternMixin`."""
    name = settings.pop("strategy")
    body = {"_asked": asked, "_max_bars": terms["max_bars"], "_is_at_close": terms["fill"] == "close"}
    player = type(name, (SignalPlayer,), body | settings | {"symbol": asked.bars.symbol})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Some trades remain open")
        host = Backtest(
            frame, player, cash=_CASH, commission=terms["fees"], exclusive_orders=True,
            trade_on_close=terms["fill"] == "close",
        )  # fmt: skip
        return host.run()["_strategy"].qml


def _pass_over(**order: Any) -> None:
    """What becomes of an order on the side that is open: it is registered, and not placed."""
