"""Markets to walk through, and one walk that several tests look at."""

from __future__ import annotations

import pytest

from qml_plugin.gate import Requirements
from qml_plugin.memory import Policy
from tests.memory.worlds import cross_entries, make_bars, mixed_entries, walk

EAGER = Requirements(min_labels=25.0, min_per_class=8, level=0.5)


@pytest.fixture(scope="session")
def hourly(eurusd):
    """Real hourly bars."""
    return make_bars(eurusd.iloc[:3200], "EURUSD")


@pytest.fixture(scope="session")
def hourly_entries(hourly):
    return mixed_entries(hourly)


@pytest.fixture(scope="session")
def first_walk(hourly, hourly_entries):
    """A memory that began without a past."""
    return walk(hourly, hourly_entries, policy=Policy(mode="shadow"))


@pytest.fixture(scope="session")
def planted():
    """A market in which some crosses pay and others do not, and the features tell which."""
    from qml_plugin.demo.synthetic import planted_edge_market

    return make_bars(planted_edge_market(4_000, seed=6), "PLANTED")


@pytest.fixture(scope="session")
def planted_entries(planted):
    return cross_entries(planted)
