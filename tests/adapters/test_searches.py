"""Searches over parameters in real processes: killed, interrupted and gone on with, in any number and order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from qml_plugin import PatternRegistry
from tests.adapters.search_strategy import point
from tests.adapters.test_registering import CIRCUMSTANCES, contents, rows

ROOT = Path(__file__).parents[2]
SEARCH = """
import sys, time
from joblib import Parallel, delayed

url, n_jobs, slow_down, deadly = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
order = [int(n) for n in sys.argv[5].split(",")]

def told(fast):
    from tests.adapters.search_strategy import point  # by the workers: this process imports nothing that it does not use
    point(url, fast, deadly=deadly)
    print(fast, flush=True)
    time.sleep(slow_down)

Parallel(n_jobs=n_jobs)(delayed(told)(fast) for fast in order)
"""
POINTS = "3,4,5,6,7,8"


def search(path, n_jobs=1, order=POINTS, slow_down=0.0, deadly=""):
    return subprocess.Popen(
        [sys.executable, "-c", SEARCH, f"sqlite:///{path}", str(n_jobs), str(slow_down), deadly, order],
        cwd=ROOT, env={**os.environ, "TQDM_DISABLE": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def search_here(path, order=POINTS):
    """The same search in this process, where everything is imported already."""
    for fast in order.split(","):
        point(f"sqlite:///{path}", int(fast))


# An entry that two points share keeps what the first to commit knew of it: the return of its trade, and how long ago its
# run had an entry before. What each point decided and earned stands in its own rows. The working tree may change meanwhile.
SHARED = (
    "git_hash",
    "git_dirty",
    "git_diff_sha256",
    "trade_outcome",
    "features_json",
    "features_f32",
    "known_seq",
    "row_sha256",
)


def left_in(path):
    """What a search left, whatever the order in which its points were committed."""
    return contents(path, (*CIRCUMSTANCES, *SHARED))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What a search leaves that nothing happened to."""
    path = tmp_path_factory.mktemp("whole") / "x.db"
    search_here(path)
    return left_in(path)


@pytest.mark.slow
def test_two_processes_in_another_order_leave_the_same_rows(tmp_path, whole):
    process = search(tmp_path / "x.db", 2, "8,3,7,4,6,5")
    _, stderr = process.communicate(timeout=200)
    assert process.returncode == 0, stderr
    assert left_in(tmp_path / "x.db") == whole


@pytest.mark.slow
def test_an_interrupted_search_that_is_run_again_equals_one_that_was_not(tmp_path, whole):
    path = tmp_path / "x.db"
    process = search(path, slow_down=1.0)
    for _ in range(3):
        process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert 3 <= PatternRegistry(f"sqlite:///{path}").get_statistics()["n_runs"] < 6
    search_here(path)
    assert left_in(path) == whole


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_its_own_point_only(tmp_path, whole):
    path = tmp_path / "x.db"
    process = search(path, 2, deadly="6")
    _, stderr = process.communicate(timeout=200)
    assert process.returncode != 0
    assert "TerminatedWorkerError" in stderr
    states = dict(rows(path, "SELECT json_extract(params_json, '$.strategy.fast'), status FROM experiments"))
    assert states[6] in ("running", "interrupted")  # the other worker's next point may have found it already
    unfinished = [status for status in states.values() if status != "finished"]
    assert (
        1 <= len(unfinished) <= 2 < len(states)
    )  # its own point, and perhaps that of the worker that went down with it
    search_here(path, "3")
    ((status, error),) = rows(
        path, "SELECT status, error FROM experiments WHERE json_extract(params_json, '$.strategy.fast') = 6"
    )
    assert status == "interrupted"
    assert "ended without a word" in error
    registry = PatternRegistry(f"sqlite:///{path}")
    data_hash = registry.get_runs()[0]["data_hash"]
    assert registry.n_trials("Cross", data_hash) == len(states)
    assert registry.trial_returns("Cross", data_hash).shape[1] < len(states)
    search_here(path)
    assert left_in(path) == whole
