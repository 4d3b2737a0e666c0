"""Sweeps on a Dask cluster of two worker processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import types
from contextlib import suppress
from pathlib import Path

import joblib
import pytest

from qml_plugin import provenance, sweep, walk_forward
from qml_plugin.errors import DataError, QmlError
from qml_plugin.sweeps import dask_workers
from tests.conftest import random_walk
from tests.sweeps.clusters import LIMIT_S, assert_same, remembered
from tests.sweeps.conftest import HOST
from tests.sweeps.troubled import Plain

distributed = pytest.importorskip("distributed")
ROOT = Path(__file__).parents[2]
FOUR = {"fast": [2, 3, 4, 5]}
SIX = {"fast": [2, 3, 4, 5, 6, 7]}
QUIET = {"dashboard_address": "127.0.0.1:0", "scheduler_kwargs": {"dashboard": False}, "silence_logs": 60}


@pytest.fixture(scope="module")
def client():
    """The client of a cluster, which code finds without being told."""
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, **QUIET)
    with cluster, distributed.Client(cluster) as client:
        yield client


@pytest.mark.usefixtures("client")
def test_dask_as_joblib_names_it_comes_to_the_same_though_workers_die_and_hang(alone, tmp_path):
    url = f"sqlite:///{tmp_path}/x.db"
    with joblib.parallel_config(backend="dask"):
        result = remembered(url, alone[0].folder.parent, tmp_path, is_disturbed=True, time_limit_s=LIMIT_S)
    assert_same(result, url, alone)
    assert result.n_feature_passes == 1


@pytest.mark.usefixtures("client")
def test_a_walk_forward_on_dask_is_the_same(tmp_path):
    about = {"train": 100, "test": 60, "purge": 0, "progress": False, **HOST}
    one, two = (
        walk_forward(Plain, random_walk(260, 8), FOUR, backend=backend, folder=tmp_path / backend, **about)
        for backend in ("loky", "dask")
    )
    assert one.folds.to_csv() == two.folds.to_csv()
    assert list(one.equity) == list(two.equity)


@pytest.mark.usefixtures("client")
def test_a_worker_without_the_strategy_or_with_other_code_or_libraries_is_refused(bars, tmp_path, monkeypatch):
    about = {"backend": "dask", "folder": tmp_path, "progress": False, **HOST}
    module = types.ModuleType("nowhere")
    module.Lost = type("Lost", (Plain,), {"__module__": "nowhere"})
    monkeypatch.setitem(sys.modules, "nowhere", module)
    with pytest.raises(
        DataError, match="a worker cannot load the search: ModuleNotFoundError: No module named 'nowhere'"
    ):
        sweep(module.Lost, bars, FOUR, **about)
    with monkeypatch.context() as patch:
        patch.setattr(provenance, "source_sha256", lambda cls: "0" * 64)
        with pytest.raises(DataError, match=r"a worker on .* has other code of Plain than the process that searches"):
            sweep(Plain, bars, FOUR, **about)
    versions = {**provenance.library_versions(), "numpy": "1.0"}
    monkeypatch.setattr(provenance, "library_versions", lambda: versions)
    with pytest.raises(DataError, match=r"a worker on .* has numpy .* one table would mix the two"):
        sweep(Plain, bars, FOUR, **about)


def test_a_cluster_without_workers_is_named(bars, tmp_path, monkeypatch):
    monkeypatch.setattr(dask_workers, "_MOST_WAIT_S", 0.2)
    with (
        distributed.LocalCluster(n_workers=0, **QUIET) as cluster,
        distributed.Client(cluster).as_current(),
        pytest.raises(QmlError, match=r"at tcp://.* has no worker that is free: it has 0 in all. Start some"),
    ):
        sweep(Plain, bars, FOUR, backend="dask", folder=tmp_path, progress=False, **HOST)


SLOW = """
import sys
from tests.conftest import random_walk
from tests.sweeps.conftest import HOST
from tests.sweeps.troubled import Plain
from qml_plugin import sweep
if __name__ == "__main__":
    tell = lambda done, total, text: print(done, flush=True)
    about = dict(folder=sys.argv[1], progress=tell, backend="dask", n_jobs=2, **HOST)
    sweep(Plain, random_walk(160, 5), {"fast": [2, 3, 4, 5, 6, 7]}, sleep_s=0.5, **about)
"""


def alive_in(group):
    """The processes of a group that still run."""
    stats = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            stats.append(file.read_text().rpartition(")")[2].split())
    return [fields for fields in stats if int(fields[2]) == group and fields[0] not in "ZX"]


def test_ctrl_c_ends_a_cluster_of_its_own_and_another_backend_goes_on(bars, tmp_path):
    script = tmp_path / "slow.py"
    script.write_text(SLOW)
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    while int(process.stdout.readline()) < 3:
        pass
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert said.rstrip().endswith("resume=True goes on from there."), said
    until = time.monotonic() + 60
    while alive_in(process.pid):
        assert time.monotonic() < until, "processes of the cluster live on"
        time.sleep(0.1)
    (cells,) = tmp_path.glob("*/cells")
    kept = {file.name: file.stat().st_mtime_ns for file in cells.glob("*.json")}
    assert 3 <= len(kept) < len(SIX["fast"])
    about = {"sleep_s": 0.5, "progress": False, **HOST}
    resumed = sweep(Plain, bars, SIX, folder=tmp_path, resume=True, **about)
    assert {name: (cells / name).stat().st_mtime_ns for name in kept} == kept
    assert resumed.table.to_csv() == sweep(Plain, bars, SIX, folder=tmp_path / "whole", **about).table.to_csv()
