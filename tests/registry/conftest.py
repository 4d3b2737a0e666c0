"""A registry of its own for each test: a file, and in modules that say EVERY_ENGINE on a server too."""

from __future__ import annotations

import pytest

from qml_plugin.registry import PatternRegistry
from tests.registry.postgresql_server import schema_of_its_own, server
from tests.registry.registry_samples import make_outcome, make_pattern, save


def pytest_generate_tests(metafunc):
    if getattr(metafunc.module, "EVERY_ENGINE", False) and "engine" in metafunc.fixturenames:
        metafunc.parametrize("engine", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture(scope="session")
def postgresql():
    """URL of a database on a PostgreSQL server."""
    with server() as url:
        yield url


@pytest.fixture
def schema(postgresql):
    """URL of an empty schema on a PostgreSQL server."""
    with schema_of_its_own(postgresql) as url:
        yield url


@pytest.fixture
def engine(request):
    """Which engine the registry of the test lives in."""
    return getattr(request, "param", "sqlite")


@pytest.fixture
def path(request, engine, tmp_path):
    """Where the registry is: its file, or its URL on a server."""
    return request.getfixturevalue("schema") if engine == "postgresql" else tmp_path / "registry.db"


@pytest.fixture
def url(engine, path):
    return path if engine == "postgresql" else f"sqlite:///{path}"


@pytest.fixture
def registry(url):
    return PatternRegistry(url)


@pytest.fixture
def filled(registry):
    """One run with three resolved patterns."""
    save(registry, [make_pattern(bar, outcome=make_outcome(bar)) for bar in range(3)])
    return registry
