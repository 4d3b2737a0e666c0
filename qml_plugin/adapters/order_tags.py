"""What travels with an order: the pattern's id beside the user's tag, or the word that it was skipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qml_plugin.adapters.backtesting_host import Strategy
from qml_plugin.records import Decision


class EntryTag:
    """The pattern id on an order, beside the tag that the strategy gave it; shown as that tag."""

    __slots__ = ("pattern_id", "user_tag")

    def __init__(self, pattern_id: str, user_tag: object) -> None:
        self.pattern_id = pattern_id
        self.user_tag = user_tag

    def __repr__(self) -> str:
        return repr(self.user_tag)

    def __str__(self) -> str:
        return str(self.user_tag)


class SkippedOrder:
    """What ``buy`` and ``sell`` return for an entry that the gate skipped: falsy, with the attributes of an order.

    ``closers`` are the orders that carry out the part of it that closes a position; `cancel` cancels those that wait.
    """

    is_contingent = False
    parent_trade = None

    def __init__(self, decision: Decision, side: int, order: Mapping[str, Any], closers: Sequence[Any] = ()) -> None:
        self.decision = decision
        self.size = side * float(order.get("size", Strategy._FULL_EQUITY))
        self.limit, self.stop = order.get("limit"), order.get("stop")
        self.sl, self.tp, self.tag = order.get("sl"), order.get("tp"), order.get("tag")
        self.closers = tuple(closers)

    @property
    def is_long(self) -> bool:
        return self.size > 0

    @property
    def is_short(self) -> bool:
        return self.size < 0

    def __bool__(self) -> bool:
        return False

    def cancel(self) -> None:
        """Cancel the closing part that still waits, if any."""
        for order in self.closers:
            if any(order is waiting for waiting in order._Order__broker.orders):
                order.cancel()

    def __repr__(self) -> str:
        return f"<SkippedOrder size={self.size} reason={self.decision.reason!r}>"


def pattern_id(trade: Any) -> str | None:
    """Id of the pattern whose order opened `trade`, None where none did."""
    tag = trade._Trade__tag
    return tag.pattern_id if isinstance(tag, EntryTag) else None


def user_tag(tag: object) -> object:
    """The tag that the strategy gave."""
    return tag.user_tag if isinstance(tag, EntryTag) else tag
