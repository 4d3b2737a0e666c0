"""The audit: change the future of a strategy's bars, compare its past, and name what has seen the future.

`audit` examines one strategy or signal function, `self_test` examines the audit. Both are loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

_HOME = {
    "AuditReport": "qml_plugin.audit.findings",
    "Finding": "qml_plugin.audit.findings",
    "SelfTest": "qml_plugin.audit.proving",
    "audit": "qml_plugin.audit.examine",
    "self_test": "qml_plugin.audit.proving",
}

__all__ = ["AuditReport", "Finding", "SelfTest", "audit", "self_test"]

if TYPE_CHECKING:
    from qml_plugin.audit.examine import audit
    from qml_plugin.audit.findings import AuditReport, Finding
    from qml_plugin.audit.proving import SelfTest, self_test


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'qml_plugin.audit' has no attribute {name!r}; it has {', '.join(sorted(_HOME))}")
    return getattr(import_module(_HOME[name]), name)
