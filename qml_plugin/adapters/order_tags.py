"""What travels with an order: the pattern's id beside the user's tag, or the word that it was skipped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qml_plugin.adapters.backtesting_host import Strategy
from qml_plugin.records import Decision


class EntryTag:
    """The pattern id on an order, beside the tag that the strategy gave it."""

    __slots__ = ("pattern_id", "user_tag")

    def __init__(self, pattern_id: str, user_tag: object) -> None:
        self.pattern_id = pattern_id
        self.user_tag = user_tag

    def __eq__(self, other: object) -> bool:
        return bool(self.user_tag == (other.user_tag if isinstance(other, EntryTag) else other))

    def __hash__(self) -> int:
        return hash(self.user_tag)

    def __bool__(self) -> bool:
        return bool(self.user_tag)

    def __repr__(self) -> str:
        return repr(self.user_tag)


class SkippedOrder:
    """What ``buy`` and ``sell`` return for an entry that the gate skipped: falsy, and safe to cancel."""

    __slots__ = ("decision", "limit", "size", "sl", "stop", "tag", "tp")

    def __init__(self, decision: Decision, side: int, order: Mapping[str, Any]) -> None:
        self.decision = decision
        self.size = side * float(order.get("size", Strategy._FULL_EQUITY))
        self.limit, self.stop = order.get("limit"), order.get("stop")
        self.sl, self.tp, self.tag = order.get("sl"), order.get("tp"), order.get("tag")

    def __bool__(self) -> bool:
        return False

    def cancel(self) -> None:
        """Do nothing: there is no order."""

    def __repr__(self) -> str:
        return f"<SkippedOrder size={self.size} reason={self.decision.reason!r}>"


def raw_tag(trade: Any) -> object:
    """The tag as stored on a trade: an `EntryTag` where the entry went through a memory."""
    return trade._Trade__tag


def user_tag(trade: Any) -> object:
    """The tag that the strategy gave the order of `trade`."""
    tag = raw_tag(trade)
    return tag.user_tag if isinstance(tag, EntryTag) else tag
