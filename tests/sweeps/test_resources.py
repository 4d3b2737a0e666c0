"""Sweeps whose disk is full or read-only, whose registry is locked or gone; strategies and bars of an odd kind."""

from __future__ import annotations

import json
import math
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from functools import partial

import pytest

from qml_plugin import PatternRegistry, sweep
from qml_plugin.errors import DataError, QmlError, RegistryBusy
from qml_plugin.registry.store import RunStore
from qml_plugin.sweeps.folder import Folder, SweepWriteError
from qml_plugin.sweeps.progress import ProgressLine
from tests.conftest import random_walk
from tests.sweeps.conftest import HOST
from tests.sweeps.troubled import Cross, Plain

ODD = ["", "exit", "unpicklable", "unprintable", "talk"]


def recorded(bars, url, **options):
    about = {"registry": url, "symbol": "X", "mode": "record", "progress": False, "retries": 0, **HOST}
    return sweep(Cross, bars, {"fast": [3, 4, 5]}, **{**about, **options})


@pytest.fixture(scope="module")
def whole(bars, tmp_path_factory):
    return recorded(bars, f"sqlite:///{tmp_path_factory.mktemp('whole')}/x.db")


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_what_a_strategy_does_to_its_process_costs_its_own_point(bars, tmp_path, n_jobs):
    """A worker that is killed is replaced, and its point tried again; without workers it would take the test along."""
    grid = {"trouble": [*ODD, "kill once"] if n_jobs > 1 else ODD}
    about = {"n_jobs": n_jobs, "folder": tmp_path / "kept", "flag": str(tmp_path / "flag"), "progress": False, **HOST}
    with pytest.warns(UserWarning, match=rf"1 of {len(grid['trouble'])} points: mind the … gaps"):
        result = sweep(Plain, bars, grid, **about)
    fine, left, unpicklable, unprintable, talked = result.table["error"].iloc[:5]
    assert fine is None
    assert talked is None
    assert left == "SystemExit: the strategy called sys.exit(so long)"
    assert unpicklable == "Unpicklable: two words"
    assert unprintable.startswith("ValueError: \\udcffxxx")
    assert unprintable.endswith("xxx … (1,018 characters more)")
    assert (tmp_path / "flag").exists() == (n_jobs > 1)
    finished = result.table[result.table["status"] == "finished"]
    assert len(finished) == len(grid["trouble"]) - 3
    assert finished["sharpe_annual"].nunique() == 1


LOCK = """
import sqlite3, sys, time
held = sqlite3.connect(sys.argv[1], isolation_level=None)
held.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
time.sleep(float(sys.argv[2]))
held.execute("ROLLBACK")
"""


@pytest.mark.slow
def test_a_registry_that_another_process_locks_for_ten_seconds_is_waited_for(bars, whole, tmp_path):
    path, holders = tmp_path / "x.db", []

    def lock(done, total, text):
        if done == 1 and not holders:
            command = [sys.executable, "-c", LOCK, str(path), "10"]
            holders.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            assert holders[0].stdout.readline() == "locked\n"

    result = recorded(bars, f"sqlite:///{path}", progress=lock)
    assert holders[0].wait(timeout=60) == 0
    holders[0].stdout.close()
    assert result.table.to_csv() == whole.table.to_csv()


def test_a_registry_locked_for_longer_fails_with_a_sentence_and_resume_finishes(bars, whole, tmp_path, monkeypatch):
    monkeypatch.setitem(RunStore.__init__.__kwdefaults__, "busy_timeout_s", 0.2)
    path = tmp_path / "x.db"
    url = f"sqlite:///{path}"
    PatternRegistry(url)
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with (
            pytest.warns(RuntimeWarning, match="the end of run .* could not be recorded"),
            pytest.raises(
                RegistryBusy, match=r"x\.db was locked by another process for longer than busy_timeout_s=0\.2"
            ),
        ):
            recorded(bars, url)
        holder.execute("ROLLBACK")

        def lock(done, total, text):
            if done == 1 and not holder.in_transaction:
                holder.execute("BEGIN IMMEDIATE")

        with pytest.warns(RuntimeWarning, match="the end of run .* could not be recorded"):
            result = recorded(bars, url, progress=lock, resume=True)
        holder.execute("ROLLBACK")
    assert list(result.table["status"]) == ["finished", "failed", "failed"]
    assert (
        result.failed["error"].str.contains(r"^RegistryBusy: .*Nothing was written.*only its record is missing").all()
    )
    assert (result.n_tested, len(result.failed)) == (1, 2)
    again = recorded(bars, url, resume=True)
    assert again.table.to_csv() == whole.table.to_csv()
    runs = {run["run_id"]: run["status"] for run in PatternRegistry(url).get_runs()}
    assert set(runs) == {again.run_id, *again.table["run_id"]}
    assert set(runs.values()) == {"finished"}


def test_a_registry_deleted_on_the_way_is_missed_and_what_was_in_it_is_recorded_again(bars, whole, tmp_path):
    path = tmp_path / "x.db"
    url = f"sqlite:///{path}"

    def delete(done, total, text):
        if done == 1:
            path.unlink(missing_ok=True)

    with pytest.warns(RuntimeWarning, match="the end of run .* could not be recorded"):
        result = recorded(bars, url, progress=delete)
    assert not path.exists()  # no empty one in its place
    assert list(result.table["status"]) == ["finished", "failed", "failed"]
    assert result.failed["error"].str.startswith("RegistryError: there is no database at").all()
    again = recorded(bars, url, resume=True)
    assert again.table.to_csv() == whole.table.to_csv()
    assert sorted(run["kind"] for run in PatternRegistry(url).get_runs()) == ["cell"] * 3 + ["sweep"]
    assert PatternRegistry(url).trial_returns("Cross", bars).shape == (159, 3)


@pytest.fixture
def disk(tmp_path):
    """A small file system of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a file system")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(place):
    """Take what room is left."""
    try:
        with (place / "filling").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
    except OSError:
        pass


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_disk_that_fills_up_fails_the_points_with_a_sentence_and_resume_finishes(bars, disk, tmp_path, n_jobs):
    grid = {"fast": [3, 4, 5, 6]}
    about = {"n_jobs": n_jobs, "retries": 0, "progress": False, "folder": disk, **HOST}

    def filling(done, total, text):
        if done == 1 and not (disk / "filling").exists():
            fill(disk)

    with pytest.warns(RuntimeWarning) as said:
        result = sweep(Plain, bars, grid, **{**about, "progress": filling})
    assert {str(one.message)[:40] for one in said} == {"the failure of a point could not be kept"}
    assert 1 <= result.n_tested < 4
    errors = result.failed["error"]
    assert errors.str.contains(r"^SweepWriteError: .*cannot be written: No space left on device\. Free space").all()
    assert not list(disk.rglob(".*"))  # no half of a file
    (disk / "filling").unlink()
    again = sweep(Plain, bars, grid, resume=True, **about)
    assert again.table.to_csv() == sweep(Plain, bars, grid, **{**about, "folder": tmp_path / "whole"}).table.to_csv()


def test_a_disk_that_is_full_or_read_only_at_the_start_is_refused_with_a_sentence(bars, disk):
    about = {"folder": disk / "kept", "progress": False, **HOST}
    fill(disk)
    with pytest.raises(SweepWriteError, match=r"cannot be written: No space left on device\. Free space, or choose"):
        sweep(Plain, bars, {"fast": [3]}, **about)
    (disk / "filling").unlink()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(SweepWriteError, match=r"cannot be written: Read-only file system\. .* choose another folder"):
        sweep(Plain, bars, {"fast": [3]}, **about)
    with pytest.raises(QmlError, match="Read-only file system"):
        recorded(bars, f"sqlite:///{disk}/x.db")
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    assert sweep(Plain, bars, {"fast": [3]}, resume=True, **about).n_tested == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda bars: bars.iloc[:1], "1 bars are too few"),
        (lambda bars: bars.iloc[[0, 1, 2, 2, *range(3, 160)]], r"duplicate time at row 3 \(2020-01-01 02:00:00"),
        (lambda bars: {"A": bars, "B": bars.iloc[:0]}, "bars are empty"),
    ],
)
def test_bars_that_are_none_are_refused_before_anything_is_run(bars, tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        sweep(Plain, change(bars), {"fast": [3]}, folder=tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_names_of_any_script_infinite_values_and_objectives_without_a_name_are_kept(bars, tmp_path):
    data = {"Ünï/код 🙂": bars, "../x": random_walk(160, 6)}
    grid = {"sleep_s": [0.0], "trouble": ["", math.inf]}
    about = {"folder": tmp_path, "progress": False, "objective": partial(twice_the_trades, times=2.0), **HOST}
    result = sweep(Plain, data, grid, **about)
    assert list(result.table["symbol"].unique()) == list(data)
    assert list(result.table["objective"]) == list(2 * result.table["n_trades"])
    assert result.objective == "partial"
    assert sweep(Plain, data, grid, resume=True, **about).table.to_csv() == result.table.to_csv()
    assert [one.name for one in tmp_path.iterdir()] == [result.run_id]


def twice_the_trades(stats, times):
    return times * len(stats["_trades"])


OTHER = """
import dataclasses, json
from qml_plugin.processes import Process
print(json.dumps(dataclasses.asdict(Process.own())), flush=True)
input()
"""


def test_a_process_that_was_a_moment_faster_is_seen(bars, tmp_path):
    folder = Folder(sweep(Plain, bars, {"fast": [3]}, folder=tmp_path, progress=False, **HOST).folder)
    manifest = folder.read_manifest()
    other = subprocess.Popen([sys.executable, "-c", OTHER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        process = json.loads(other.stdout.readline())
        folder.write_manifest({**manifest, "status": "running", "process": process})
        with pytest.raises(DataError, match=f"process {other.pid} is at this very sweep"):
            folder.claim(manifest)
        assert folder.read_manifest()["process"] == process
    finally:
        other.communicate("\n", timeout=60)
    folder.claim(manifest)
    assert folder.read_manifest() == manifest


def test_the_rate_is_that_of_the_points_and_not_of_the_start_of_workers(monkeypatch, capsys):
    now = iter([0.0, 0.0, 100.0, 101.0, 102.0])
    monkeypatch.setattr("qml_plugin.sweeps.progress.time.monotonic", lambda: next(now))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with ProgressLine("sweep") as line:
        for done in (5, 5, 6, 7, 9):
            line(done, 19)
    told = capsys.readouterr().err.split("\r\x1b[K")
    assert told[1:] == [
        "sweep 6/19 points", "sweep 7/19 points, 1.0 a second, 12 s left", "sweep 9/19 points, 1.5 a second, 7 s left", "",
    ]  # fmt: skip
