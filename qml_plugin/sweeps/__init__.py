"""Parallel searches over parameters that keep everything; the public names are `sweep` and `walk_forward`."""

from __future__ import annotations

from qml_plugin.sweeps.columns import sweep_of
from qml_plugin.sweeps.result import SweepResult
from qml_plugin.sweeps.search import sweep
from qml_plugin.sweeps.signals import sweep_signals
from qml_plugin.sweeps.walking import WalkForwardResult, walk_forward

__all__ = ["SweepResult", "WalkForwardResult", "sweep", "sweep_of", "sweep_signals", "walk_forward"]
