"""What an order would close before it opens anything, and how to carry out the closing part of one that was skipped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qml_plugin.adapters.backtesting_host import Strategy


def units_asked(broker: Any, side: int, size: float) -> int:
    """Units of an order; a fraction of the free margin is counted at the last close."""
    size = abs(float(size))
    return (
        int(size)
        if size >= 1
        else int(broker.margin_available * broker._leverage * size // broker._adjusted_price(side))
    )


def smaller_size(broker: Any, side: int, order: Mapping[str, Any], units: float) -> dict[str, float]:
    """The size of an order that opens at most `units`, at least one; nothing where the order asks for no more than that.

    What the order closes first comes on top. A size that is a fraction of the margin stays one, so that a gap before the
    fill costs units and not the whole order.
    """
    size = abs(float(order.get("size", Strategy._FULL_EQUITY)))
    if broker._exclusive_orders:  # everything open is closed before the fill
        closing, whole = 0, broker.equity * broker._leverage * size // broker._adjusted_price(side)
        asked = int(size) if size >= 1 else int(whole)
    else:
        closing, asked = units_to_close(broker, side), units_asked(broker, side, size)
    wanted = closing + max(1, int(min(units, asked)))
    if wanted >= asked:
        return {}
    return {"size": float(wanted)} if size >= 1 else {"size": size * (wanted + 0.5) / asked}


def units_to_close(broker: Any, side: int) -> int:
    """Units of open trades against `side` that the orders already queued for the next price do not close."""
    if broker._hedging:
        return 0
    against = [trade for trade in broker.trades if trade.size * side < 0]
    at_market = [order for order in broker.orders if not order.limit and not order.stop and order.size * side > 0]
    queued = sum(
        units_asked(broker, side, order.size)
        for order in at_market
        if order.parent_trade is None or order.parent_trade in against
    )
    return max(0, sum(abs(int(trade.size)) for trade in against) - queued)


def only_closes(broker: Any, side: int, order: Mapping[str, Any]) -> bool:
    """Whether an order has nothing left to open once it has closed what stands against it."""
    left = 0 if broker._exclusive_orders else units_to_close(broker, side)
    return left > 0 and units_asked(broker, side, order.get("size", Strategy._FULL_EQUITY)) <= left


def go_flat(broker: Any, side: int) -> None:
    """Cancel the pending entries and close the trades that stand against `side`."""
    for order in [o for o in broker.orders if o.parent_trade is None and o.size * side < 0]:
        order.cancel()
    for trade in [t for t in broker.trades if t.size * side < 0]:
        trade.close()


def close_against(broker: Any, side: int, order: Mapping[str, Any]) -> list[Any]:
    """Close, at the price of a skipped order, what it would have closed; returns the closing orders.

    They belong to their trades, so they can never open anything, even where the trade is gone before they fill.
    """
    left = min(units_to_close(broker, side), units_asked(broker, side, order.get("size", Strategy._FULL_EQUITY)))
    closers = []
    for trade in [t for t in broker.trades if t.size * side < 0]:
        units = min(left, abs(int(trade.size)))
        if units:
            prices = {"limit": order.get("limit"), "stop": order.get("stop")}
            closers.append(broker.new_order(side * units, trade=trade, tag=trade._Trade__tag, **prices))
            left -= units
    return closers
