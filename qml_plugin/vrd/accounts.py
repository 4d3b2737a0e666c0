"""From the orders of arrays to returns, position and costs of each bar, one position at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qml_plugin.adapters.asked import Asked
from qml_plugin.adapters.playing import Orders
from qml_plugin.compiling import kernel
from qml_plugin.records import FloatArray, IntArray
from qml_plugin.vrd.evaluation import Evaluation


def evaluation_of_orders(orders: Orders, asked: Asked, *, size: float, fees: float) -> Evaluation:
    """Evaluation of orders, each entry taking a fraction of the equity.

    Parameters
    ----------
    orders : Orders
        In the order of their fills.
    asked : Asked
        The signals that they come from, with the bars.
    size : float, 0..1
        Fraction of the equity that an entry takes, its fee included.
    fees : float, fraction
        Of the price of each fill.

    Returns
    -------
    Evaluation
        Over the bar of its entry a position counts as `size`, after it as its worth at the close before. A position that
        was asked to close is not held over the bar at whose open it does; one that a stop or target ends is.

    Point in time
    -------------
    Row t of the exposure reads bars 0..t - 1, every other row t bars 0..t.
    """
    bars = asked.bars
    n, n_trades = len(bars), int((orders.side != 0).sum())
    returns, exposure, costs = np.zeros(n), np.zeros(n), np.zeros(n)
    entry, end, gain = np.zeros(n_trades, np.int64), np.zeros(n_trades, np.int64), np.zeros(n_trades)
    n_closed = _account(
        bars.open, bars.close, orders.bar, orders.side, orders.px, asked.exits_long, asked.exits_short, size, fees, returns,
        exposure, costs, entry, end, gain,
    )  # fmt: skip
    return Evaluation(returns, exposure, costs, entry[:n_closed], end[:n_closed], gain[:n_closed])


@kernel
def _account(
    open_: FloatArray,
    close: FloatArray,
    order_bar: IntArray,
    order_side: NDArray[np.int8],
    order_px: FloatArray,
    exits_long: NDArray[np.bool_],
    exits_short: NDArray[np.bool_],
    size: float,
    fees: float,
    returns: FloatArray,
    exposure: FloatArray,
    costs: FloatArray,
    entry: IntArray,
    end: IntArray,
    gain: FloatArray,
) -> int:
    """Fill the columns; returns how many trades were closed. Nothing happens any more once the equity is gone."""
    n_closed, j, n_orders = 0, 0, len(order_bar)
    equity, units, mark = 1.0, 0.0, close[0]
    worth, entry_bar, entry_fee, entry_px = 1.0, 0, 0.0, 0.0
    for i in range(len(close)):
        if equity <= 0.0:
            break
        before, paid = equity, 0.0
        exposure[i] = units * mark / before
        while j < n_orders and order_bar[j] == i:
            px = order_px[j]
            if order_side[j] == 0:
                fee = fees * abs(units) * px
                is_asked = i > 0 and px == open_[i] and (exits_long[i - 1] if units > 0 else exits_short[i - 1])
                is_asked = is_asked or (j + 1 < n_orders and order_bar[j + 1] == i and px == open_[i])
                equity += units * (px - mark) - fee
                paid += fee
                entry[n_closed], end[n_closed] = (
                    entry_bar,
                    max(i if is_asked else i + 1, min(entry_bar + 1, len(close))),
                )
                gain[n_closed] = (units * (px - entry_px) - fee - entry_fee) / worth
                n_closed += 1
                if is_asked:
                    exposure[i] = 0.0
                units = 0.0
            else:
                units = order_side[j] * size * equity / (px * (1.0 + fees))
                worth, entry_bar, entry_px = before, i, px
                entry_fee = fees * abs(units) * px
                equity -= entry_fee
                paid += entry_fee
                exposure[i] = order_side[j] * size
            mark = px
            j += 1
        equity = max(equity + units * (close[i] - mark), 0.0)
        mark = close[i]
        returns[i], costs[i] = equity / before - 1.0, paid / before
    return n_closed
