"""From decided signals to orders, bar by bar, as backtesting.py's broker would fill them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qml_plugin.adapters.asked import Asked, BoolArray
from qml_plugin.compiling import kernel
from qml_plugin.records import FloatArray, IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Orders:
    """Orders in the order of their fills: bar, price, and the side opened, 0 for an order that closes."""

    bar: IntArray
    side: NDArray[np.int8]
    px: FloatArray


def play(
    asked: Asked,
    is_taken: BoolArray,
    *,
    at_close: bool,
    max_bars: int | None,
    is_flat_on_skip: bool,
    is_reversing: bool = True,
) -> Orders:
    """The orders that follow from the signals of one column and what was decided about them.

    A position has one side and one entry: an entry on the side that is open is passed over, one on the other side
    closes it first, or is passed over too where not `is_reversing`. Orders fill at the next open, or with `at_close` at the close of their own bar. From the bar of the
    fill on (with `at_close` from the one after it) each bar is checked for the stop and then the target; one that the
    open has passed fills at that open. After `max_bars` bars the position asks to be closed.

    Point in time
    -------------
    The order that fills in bar t reads bars 0..t and signals and decisions up to bar t, of bar t only with `at_close`.
    """
    bars = asked.bars
    room = 2 * int(np.count_nonzero(asked.side)) + 1
    bar, side, px = np.empty(room, np.int64), np.empty(room, np.int8), np.empty(room)
    n = _play(
        bars.open, bars.high, bars.low, bars.close, asked.side, is_taken, asked.stop_px, asked.target_px,
        asked.exits_long, asked.exits_short, at_close, max_bars or 0, is_flat_on_skip, is_reversing, bar, side, px,
    )  # fmt: skip
    return Orders(bar[:n], side[:n], px[:n])


@kernel
def _play(
    open_: FloatArray,
    high: FloatArray,
    low: FloatArray,
    close: FloatArray,
    asked: NDArray[np.int8],
    is_taken: BoolArray,
    stop_px: FloatArray,
    target_px: FloatArray,
    exits_long: BoolArray,
    exits_short: BoolArray,
    at_close: bool,
    max_bars: int,
    is_flat_on_skip: bool,
    is_reversing: bool,
    out_bar: IntArray,
    out_side: NDArray[np.int8],
    out_px: FloatArray,
) -> int:
    """Fill the orders' columns; returns how many there are. Prices of shorts are mirrored for the checks."""
    n = 0
    position = entry_bar = entry_signal = 0
    closes, opens = False, 0
    for i in range(len(close)):
        if not at_close:
            if closes and position != 0:
                out_bar[n], out_side[n], out_px[n] = i, 0, open_[i]
                n, position = n + 1, 0
            if opens != 0:
                out_bar[n], out_side[n], out_px[n] = i, opens, open_[i]
                n, position, entry_bar, entry_signal = n + 1, opens, i, i - 1
        if position != 0:
            stop, target = position * stop_px[entry_signal], position * target_px[entry_signal]
            best, worst = (high[i], low[i]) if position > 0 else (-low[i], -high[i])
            start, px = position * open_[i], np.nan
            if worst <= stop:
                px = min(stop, start)
            elif best >= target:
                px = max(target, start)
            if not np.isnan(px):
                out_bar[n], out_side[n], out_px[n] = i, 0, position * px
                n, position = n + 1, 0
        closes, opens = False, 0
        if position != 0:
            n_held = i - entry_bar + (0 if at_close else 1)
            closes = exits_long[i] if position > 0 else exits_short[i]
            closes = closes or (max_bars > 0 and n_held >= max_bars)
        if asked[i] != 0 and is_taken[i]:
            if position == 0 or closes or (is_reversing and position != asked[i]):
                opens, closes = asked[i], position != 0
        elif asked[i] != 0 and is_flat_on_skip and position == -asked[i]:
            closes = True
        if at_close:
            if closes:
                out_bar[n], out_side[n], out_px[n] = i, 0, close[i]
                n, position = n + 1, 0
            if opens != 0:
                out_bar[n], out_side[n], out_px[n] = i, opens, close[i]
                n, position, entry_bar, entry_signal = n + 1, opens, i, i
    return n
