"""A shipped strategy under the host alone."""

from __future__ import annotations

from backtesting import Strategy

from qml_plugin.adapters.array_strategy import ArrayStrategy


def without_memory(strategy: type[ArrayStrategy]) -> type[Strategy]:
    """The same strategy without `PatternMixin`."""
    members = {"symbol": None, "timeframe": None, "bar_label": "open"}
    for cls in (ArrayStrategy, strategy):
        members |= {name: value for name, value in vars(cls).items() if name not in ("__dict__", "__weakref__")}
    return type("Bare", (Strategy,), members)
