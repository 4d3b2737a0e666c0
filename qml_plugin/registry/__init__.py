"""The registry: patterns, runs and decisions in a database that survives crashes, writers and upgrades."""

from __future__ import annotations

from qml_plugin.registry.known import Snapshot
from qml_plugin.registry.patterns import PatternRegistry

__all__ = ["PatternRegistry", "Snapshot"]
