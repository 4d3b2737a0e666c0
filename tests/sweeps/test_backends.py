"""Sweeps on real clusters of two worker processes: the same bytes, and nothing lost with a worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import types
from contextlib import ExitStack
from pathlib import Path

import joblib
import pandas as pd
import pytest

from qml_plugin import PatternRegistry, provenance, sweep, walk_forward
from qml_plugin.errors import DataError, MissingExtra, QmlError
from qml_plugin.sweeps import dask_workers
from qml_plugin.sweeps.backends import backend_of
from tests.conftest import random_walk
from tests.registry.postgresql_server import schema_of_its_own, server
from tests.sweeps.conftest import HOST
from tests.sweeps.once import Once
from tests.sweeps.troubled import Cross, Plain

ROOT = Path(__file__).parents[2]
GRID = {"fast": [3, 5], "slow": [10, 15]}
FOUR = {"fast": [2, 3, 4, 5]}


@pytest.fixture(scope="module")
def dask():
    """A cluster of two worker processes, and the client that code finds without being told."""
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=60)
    with cluster, distributed.Client(cluster) as client:
        yield client


@pytest.fixture(scope="module")
def ray():
    """A cluster of two processors that the process is connected to, and joblib's name for it."""
    library = pytest.importorskip("ray")
    from ray.util.joblib import register_ray

    register_ray()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    before = signal.getsignal(signal.SIGTERM)
    library.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="CRITICAL")
    yield library
    library.shutdown()
    signal.signal(signal.SIGTERM, before)


def filled(url):
    """A registry with a past before the bars of the sweeps."""
    early = random_walk(400, 9)
    early.index = early.index - pd.Timedelta(days=60)
    about = {"symbol": "OLD", "timeframe": "1h", "mode": "record", "progress": False, **HOST}
    sweep(Cross, early, {"fast": [3]}, registry=url, **about)
    return url


def remembered(url, folder, **how):
    about = {"mode": "shadow", "symbol": "X", "progress": False, **HOST}
    return sweep(Cross, random_walk(400, 5), GRID, registry=filled(url), folder=folder, **how, **about)


# Times of the machine, and what a pattern that several points register keeps of the first of them to commit.
OF_MACHINE = {"started_at", "finished_at", "heartbeat_at", "pid", "process_started"}
OF_FIRST = {
    "created_at", "updated_at", "row_sha256", "known_seq", "scored_seq", "trade_outcome", "ml_confidence", "features_f32",
    "features_json", "features",
}  # fmt: skip


def rows_of(url, result):
    """All that the registry holds of a sweep and its patterns, but what another order of points may change."""
    registry = PatternRegistry(url)
    runs = [registry.get_run(run_id) for run_id in (result.run_id, *result.table["run_id"])]
    decisions = [registry.get_decisions(run_id) for run_id in result.table["run_id"]]
    ids = sorted({decision["pattern_id"] for each in decisions for decision in each})
    patterns = [registry.get_pattern(pattern_id) for pattern_id in ids]
    features = [pattern["features"] | {"temp_since_last_signal_log": None} for pattern in patterns]
    runs = [{name: value for name, value in run.items() if name not in OF_MACHINE} for run in runs]
    patterns = [{name: value for name, value in pattern.items() if name not in OF_FIRST} for pattern in patterns]
    assert len(patterns) > 10
    return runs, decisions, patterns, features


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The sweep in this process: its result, and the rows of its registry."""
    folder = tmp_path_factory.mktemp("alone")
    result = remembered(f"sqlite:///{folder}/x.db", folder)
    return result, rows_of(f"sqlite:///{folder}/x.db", result)


def assert_same(result, url, alone):
    other, rows = alone
    assert result.table.to_csv() == other.table.to_csv()
    for name in ("trades", "equity", "cells"):
        assert {f.name: f.read_bytes() for f in (result.folder / name).iterdir()} == {
            f.name: f.read_bytes() for f in (other.folder / name).iterdir()
        }
    for mine, theirs in zip(rows_of(url, result), rows, strict=True):
        assert repr(mine) == repr(theirs)  # NaN is NaN


def test_dask_as_joblib_names_it_comes_to_the_same_bytes_and_rows(dask, alone, tmp_path):
    url = f"sqlite:///{tmp_path}/x.db"
    with joblib.parallel_config(backend="dask"):
        result = remembered(url, tmp_path)
    assert_same(result, url, alone)
    assert result.n_feature_passes == 1


def test_ray_as_joblib_names_it_comes_to_the_same_bytes_and_rows(ray, alone, tmp_path):
    url = f"sqlite:///{tmp_path}/x.db"
    with joblib.parallel_config(backend="ray", n_jobs=2):
        result = remembered(url, tmp_path)
    assert_same(result, url, alone)


@pytest.mark.parametrize("backend", ["loky", "dask", "ray"])
def test_a_registry_on_postgresql_serves_every_backend(backend, alone, tmp_path, request):
    with ExitStack() as stack:
        url = stack.enter_context(schema_of_its_own(stack.enter_context(server())))
        if backend != "loky":
            request.getfixturevalue(backend)
        assert_same(remembered(url, tmp_path, backend=backend, n_jobs=2), url, alone)


@pytest.mark.parametrize("backend", ["dask", "ray"])
def test_a_fault_at_a_cluster_costs_its_own_point_at_most(backend, bars, tmp_path, request):
    request.getfixturevalue(backend)
    flag = tmp_path / "flag"
    flag.touch()
    grid = {"trouble": ["", "raise", "once", "hang"]}
    result = sweep(
        Once, bars, grid, backend=backend, n_jobs=2, time_limit_s=6.0, flag=str(flag), folder=tmp_path, progress=False, **HOST
    )  # fmt: skip
    assert not flag.exists()
    assert list(result.table["status"]) == ["finished", "failed", "finished", "failed"]
    assert result.failed["error"].iloc[0] == "ValueError: this point is not to be had"
    assert result.failed["error"].iloc[1] == "TimeLimit: it took longer than time_limit_s=6 and was ended"
    values = result.table.set_index("trouble")["objective"]
    assert values["once"] == values[""]


def test_a_point_that_kills_its_worker_each_time_is_recorded_as_such(dask, bars, tmp_path):
    result = sweep(
        Plain, bars, {"trouble": ["kill", ""]}, backend="dask", retries=0, folder=tmp_path, progress=False, **HOST
    )
    assert list(result.table["status"]) == ["failed", "finished"]
    assert result.table["error"][0].startswith("WorkerDied: its process was ended (no exit code)")


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


def test_ctrl_c_ends_a_cluster_of_its_own_and_another_backend_goes_on(bars, tmp_path):
    pytest.importorskip("distributed")
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
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    (cells,) = tmp_path.glob("*/cells")
    kept = {file.name: file.stat().st_mtime_ns for file in cells.glob("*.json")}
    assert 3 <= len(kept) < 6
    about = {"sleep_s": 0.5, "progress": False, **HOST}
    grid = {"fast": [2, 3, 4, 5, 6, 7]}
    resumed = sweep(Plain, bars, grid, folder=tmp_path, resume=True, n_jobs=2, **about)
    assert {name: (cells / name).stat().st_mtime_ns for name in kept} == kept
    assert resumed.table.to_csv() == sweep(Plain, bars, grid, folder=tmp_path / "whole", **about).table.to_csv()


def test_ctrl_c_leaves_a_cluster_of_others_at_work_and_it_goes_on_there(dask, bars, tmp_path):
    def tell(done, total, text):
        if done == 2:
            signal.raise_signal(signal.SIGINT)

    about = {"backend": "dask", "folder": tmp_path, "sleep_s": 0.2, **HOST}
    with pytest.raises(KeyboardInterrupt):
        sweep(Plain, bars, FOUR, progress=tell, **about)
    resumed = sweep(Plain, bars, FOUR, progress=False, resume=True, **about)
    whole = sweep(Plain, bars, FOUR, progress=False, sleep_s=0.2, folder=tmp_path / "whole", **HOST)
    assert resumed.table.to_csv() == whole.table.to_csv()


def test_a_walk_forward_keeps_its_workers_for_all_windows(dask, tmp_path):
    about = {"train": 120, "test": 100, "purge": 0, "progress": False, **HOST}
    one, two = (
        walk_forward(Plain, random_walk(420, 8), GRID, backend=backend, folder=tmp_path / backend, **about)
        for backend in ("loky", "dask")
    )
    assert one.folds.to_csv() == two.folds.to_csv()
    assert list(one.equity) == list(two.equity)


def test_a_worker_with_other_libraries_or_without_the_strategy_is_refused(dask, bars, tmp_path, monkeypatch):
    about = {"backend": "dask", "folder": tmp_path, "progress": False, **HOST}
    module = types.ModuleType("nowhere")
    module.Lost = type("Lost", (Plain,), {"__module__": "nowhere"})
    monkeypatch.setitem(sys.modules, "nowhere", module)
    with pytest.raises(
        DataError, match=r"a worker cannot load the search: ModuleNotFoundError: No module named 'nowhere'"
    ):
        sweep(module.Lost, bars, FOUR, **about)
    versions = {**provenance.library_versions(), "numpy": "1.0"}
    monkeypatch.setattr(provenance, "library_versions", lambda: versions)
    with pytest.raises(DataError, match=r"a worker on .* has numpy .* one table would mix the two"):
        sweep(Plain, bars, FOUR, **about)


def test_a_cluster_without_workers_is_named(bars, tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(dask_workers, "_MOST_WAIT_S", 0.2)
    about = {"backend": "dask", "folder": tmp_path, "progress": False, **HOST}
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address=None, silence_logs=60) as cluster,
        distributed.Client(cluster),
        pytest.raises(QmlError, match=r"cluster at tcp://.* has no worker that is free: it has 0 in all. Start some"),
    ):
        sweep(Plain, bars, FOUR, **about)


def test_what_joblib_was_told_counts_and_arguments_count_more():
    assert (backend_of(None, None, None).n_jobs, backend_of(None, 3, None).n_jobs) == (1, 3)
    with joblib.parallel_config(backend="loky", n_jobs=2):
        assert backend_of(None, None, None).n_jobs == 2
        assert backend_of("loky", 1, None).n_jobs == 1


@pytest.mark.parametrize(("backend", "module"), [("dask", "distributed"), ("ray", "ray")])
def test_a_backend_that_is_not_installed_names_the_install_command(backend, module, bars, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=rf"{module} is not installed.*pip install 'qml-plugin\[{backend}\]'"):
        sweep(Plain, bars, FOUR, backend=backend, folder=tmp_path)


def test_a_misspelt_backend_is_refused(bars, tmp_path):
    with pytest.raises(
        DataError, match=r"backend 'dsak' is unknown. Use one of 'loky', 'dask', 'ray'.*Did you mean 'dask'\?"
    ):
        sweep(Plain, bars, FOUR, backend="dsak", folder=tmp_path)
    assert not list(tmp_path.iterdir())
