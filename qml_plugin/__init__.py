"""A memory for trading strategies: when not to take your own signal, and whether any of it is real.

Start with `PatternMixin`. Names below are loaded on first use, so that importing the package loads nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_HOME = {
    "BarrierRule": "qml_plugin.records",
    "CATALOGUE": "qml_plugin.features",
    "Decision": "qml_plugin.records",
    "Entry": "qml_plugin.records",
    "PatternMemory": "qml_plugin.memory",
    "PatternMixin": "qml_plugin.adapters.backtesting_py",
    "PatternRegistry": "qml_plugin.registry",
    "QmlError": "qml_plugin.errors",
    "Setup": "qml_plugin.records",
    "compute_features": "qml_plugin.features",
    "gate_signals": "qml_plugin.adapters.vectorbt",
    "read_bars": "qml_plugin.bars",
    "sweep": "qml_plugin.sweeps",
    "walk_forward": "qml_plugin.sweeps",
}

__all__ = [
    "CATALOGUE",
    "BarrierRule",
    "Decision",
    "Entry",
    "PatternMemory",
    "PatternMixin",
    "PatternRegistry",
    "QmlError",
    "Setup",
    "compute_features",
    "gate_signals",
    "read_bars",
    "sweep",
    "walk_forward",
]

if TYPE_CHECKING:
    from qml_plugin.adapters.backtesting_py import PatternMixin
    from qml_plugin.adapters.vectorbt import gate_signals
    from qml_plugin.bars import read_bars
    from qml_plugin.errors import QmlError
    from qml_plugin.features import CATALOGUE, compute_features
    from qml_plugin.memory import PatternMemory
    from qml_plugin.records import BarrierRule, Decision, Entry, Setup
    from qml_plugin.registry import PatternRegistry
    from qml_plugin.sweeps import sweep, walk_forward


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'qml_plugin' has no attribute {name!r}; it has {', '.join(sorted(_HOME))}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*_HOME, "__version__"])
