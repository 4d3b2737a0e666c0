"""Parallel searches over parameters that keep everything; the public names are `sweep` and `walk_forward`."""

from __future__ import annotations

from qml_plugin.sweeps.result import SweepResult
from qml_plugin.sweeps.search import sweep

__all__ = ["SweepResult", "sweep"]
