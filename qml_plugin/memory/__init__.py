"""Bars so far and an entry in, a decision out: the memory that every host shares.

A memory walks one series forwards. It is pure: no host, no database, no clock of its own. What it may know at an entry
is what has resolved by then, from the registry's snapshot and from its own run, in one order (``resolved_at``, then
``pattern_id``). Scalers, models and verdicts are functions of a prefix of that order, so nothing that resolves later,
here or anywhere, can change a decision. Memories of several series may share one past (`PooledPast`).
"""

from qml_plugin.memory.policy import MODES, Policy
from qml_plugin.memory.pooled import PooledPast
from qml_plugin.memory.walk import PatternMemory

__all__ = ["MODES", "PatternMemory", "Policy", "PooledPast"]
