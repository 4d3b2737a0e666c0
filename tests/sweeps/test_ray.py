"""Sweeps on a Ray cluster of two processors."""

from __future__ import annotations

import signal

import joblib
import pytest

from tests.sweeps.clusters import LIMIT_S, assert_same, registry_on_a_server, remembered

ray = pytest.importorskip("ray")


@pytest.fixture
def cluster(monkeypatch):
    """A cluster that this process is connected to, and joblib's name for it."""
    from ray.util.joblib import register_ray

    register_ray()
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    before = signal.getsignal(signal.SIGTERM)
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="CRITICAL")
    yield
    ray.shutdown()
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("cluster")
def test_ray_as_joblib_names_it_comes_to_the_same_though_workers_die_and_hang(alone, tmp_path):
    with registry_on_a_server() as url, joblib.parallel_config(backend="ray"):
        result = remembered(url, alone[0].folder.parent, tmp_path, is_disturbed=True, time_limit_s=LIMIT_S)
        assert_same(result, url, alone)
