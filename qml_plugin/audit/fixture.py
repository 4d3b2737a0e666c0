"""The pytest fixture ``qml_audit``, for tests of users' own: a plugin that loads nothing until a test asks for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def qml_audit() -> Callable[..., Any]:
    """Audits a strategy or signal function, and fails the test where it has seen the future or nothing can be said.

    ``def test_no_future(qml_audit): qml_audit(MyStrategy, data)``. Arguments are those of `qml_plugin.audit.audit`; returned is
    its `AuditReport`.
    """

    def check(subject: Any, data: Any = None, **options: Any) -> Any:
        __tracebackhide__ = True
        from qml_plugin.audit import audit

        report = audit(subject, data, **options)
        if report.exit_code:
            pytest.fail(str(report), pytrace=False)
        return report

    return check
