"""A registry on a file of its own for each test."""

from __future__ import annotations

import pytest

from qml_plugin.registry import PatternRegistry
from tests.registry.registry_samples import make_outcome, make_pattern, save


@pytest.fixture
def path(tmp_path):
    return tmp_path / "registry.db"


@pytest.fixture
def url(path):
    return f"sqlite:///{path}"


@pytest.fixture
def registry(url):
    return PatternRegistry(url)


@pytest.fixture
def filled(registry):
    """One run with three resolved patterns."""
    save(registry, [make_pattern(bar, outcome=make_outcome(bar)) for bar in range(3)])
    return registry
