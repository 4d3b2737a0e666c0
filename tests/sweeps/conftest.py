from __future__ import annotations

import pytest

from qml_plugin.sweeps.loky_workers import LokyWorker
from tests.conftest import random_walk

HOST = {"cash": 1_000_000, "exclusive_orders": True, "finalize_trades": True}


@pytest.fixture(scope="session")
def bars():
    return random_walk(160, 5)


@pytest.fixture(scope="module", autouse=True)
def _workers_end_with_the_file():
    """The workers of a file serve all its sweeps."""
    yield
    LokyWorker.end_idle()


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The sweep of all backends in this process, where nothing goes wrong: its result, and the rows of its registry."""
    from tests.sweeps.clusters import remembered, rows_of

    folder = tmp_path_factory.mktemp("alone")
    url = f"sqlite:///{folder}/x.db"
    result = remembered(url, folder, folder, is_disturbed=False)
    return result, rows_of(url, result)
