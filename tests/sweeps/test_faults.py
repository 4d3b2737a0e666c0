"""Points that raise, hang, die, or find no memory or disk; locked registries; interrupts; and going on after them."""

from __future__ import annotations

import re
import signal
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest
from backtesting import Strategy

from qml_plugin import PatternRegistry, sweep
from qml_plugin.errors import DataError
from strategies.moving_average import moving_average
from tests.sweeps.conftest import HOST
from tests.sweeps.troubled import Cross, Plain

ROOT = Path(__file__).parents[2]
TROUBLES = ["", "raise", "disk", "memory", "hang", "kill"]


@pytest.fixture(scope="module")
def troubled(bars, tmp_path_factory):
    """A sweep in which every point but the first meets its own fault."""
    grid = {"trouble": TROUBLES}
    folder = tmp_path_factory.mktemp("troubled")
    return sweep(Plain, bars, grid, n_jobs=2, time_limit_s=4.0, retries=0, folder=folder, progress=False, **HOST)


class Windowed(Strategy):
    """Whose indicator fails within the host."""

    window = 0

    def init(self):
        self.I(moving_average, self.data.Close, "wide", name="mean")

    def next(self):
        pass


def test_an_error_that_the_host_wraps_says_what_it_came_from(bars, tmp_path):
    table = sweep(Windowed, bars, {"window": [3]}, retries=0, folder=tmp_path, progress=False, **HOST).table
    words = r'^RuntimeError: Indicator "mean" error\. See traceback above\. \(caused by TypeError: .*str.*\)$'
    assert re.search(words, table["error"][0])


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ("kill", r"^WorkerDied: its process was ended \(SIGKILL\(-9\)\), perhaps for want of memory$"),
        ("hang", r"^TimeLimit: it took longer than time_limit_s=4 and was ended$"),
        ("raise", r"^ValueError: this point is not to be had$"),
        ("memory", r"^MemoryError"),
        (
            "disk",
            r"^SweepWriteError: .*cannot be written: File too large\. Free space, or choose another folder, and resume\.$",
        ),
    ],
)
def test_a_fault_costs_its_own_point_and_is_named(troubled, trouble, message):
    (row,) = troubled.table[troubled.table["trouble"] == trouble].to_dict("records")
    assert row["status"] == "failed"
    assert pd.isna(row["objective"])
    assert pd.Series(row["error"]).str.contains(message).all(), row["error"]


def test_the_point_without_a_fault_is_whole(troubled):
    row = troubled.table.iloc[0]
    assert (row["status"], row["error"]) == ("finished", None)
    assert len(troubled.trades(row["run_id"])) == row["n_trades"] > 3
    assert troubled.n_tested == 1
    assert list(troubled.failed["trouble"]) == TROUBLES[1:]
    with pytest.raises(DataError, match=r"kept no trades of run .* those that failed left none"):
        troubled.trades(troubled.failed["run_id"].iloc[0])


def test_a_point_that_failed_is_recorded_as_such_and_the_resumed_table_is_that_of_a_sweep_without_faults(
    bars, tmp_path
):
    flag = tmp_path / "flag"
    about = {"symbol": "X", "mode": "record", "bad_fast": 4, "flag": str(flag), "progress": False, **HOST}
    whole = sweep(Cross, bars, {"fast": [3, 4, 5]}, registry=f"sqlite:///{tmp_path}/whole.db", **about)
    flag.touch()
    url = f"sqlite:///{tmp_path}/x.db"
    broken = sweep(Cross, bars, {"fast": [3, 4, 5]}, registry=url, **about)
    registry = PatternRegistry(url)
    assert list(broken.table["status"]) == ["finished", "failed", "finished"]
    states = {run["params"]["strategy"]["fast"]: run for run in registry.get_runs() if run["kind"] == "cell"}
    assert (states[4]["status"], states[4]["error"]) == ("failed", "RuntimeError: the flag is up")
    assert registry.get_run(broken.run_id)["error"] == "1 of 3 points failed"
    assert registry.get_run(broken.run_id)["status"] == "failed"
    finished_at = {run["run_id"]: run["finished_at"] for run in registry.get_runs() if run["status"] == "finished"}
    flag.unlink()
    mended = sweep(Cross, bars, {"fast": [3, 4, 5]}, registry=url, resume=True, **about)
    assert mended.table.to_csv() == whole.table.to_csv()
    after = {run["run_id"]: run["finished_at"] for run in registry.get_runs()}
    assert all(after[run_id] == at for run_id, at in finished_at.items())  # those were not run again
    assert registry.get_run(mended.run_id)["status"] == "finished"


SIX = {"fast": [2, 3, 4, 5, 6, 7]}


def resumed_and_whole(bars, tmp_path, n_kept):
    """The tables of a sweep that is gone on with, which runs nothing again, and of one that nothing happened to."""
    (cells,) = tmp_path.glob("*/cells")
    kept = {file.name: file.stat().st_mtime_ns for file in cells.glob("*.json")}
    assert n_kept <= len(kept) < len(SIX["fast"])
    about = {"sleep_s": 0.2, "progress": False, **HOST}
    resumed = sweep(Plain, bars, SIX, resume=True, folder=tmp_path, **about)
    assert {name: (cells / name).stat().st_mtime_ns for name in kept} == kept
    assert not list(tmp_path.glob("*/shared"))
    whole = sweep(Plain, bars, SIX, folder=tmp_path / "whole", **about)
    return resumed.table.to_csv(), whole.table.to_csv()


def test_ctrl_c_ends_the_workers_and_keeps_what_had_finished(bars, tmp_path):
    def tell(done, total, text):
        if done == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as stopped:
        sweep(Plain, bars, SIX, sleep_s=0.2, n_jobs=2, folder=tmp_path, progress=tell, **HOST)
    assert "resume=True goes on from there" in stopped.value.__notes__[0]
    resumed, whole = resumed_and_whole(bars, tmp_path, 2)
    assert resumed == whole


def test_a_registry_that_is_locked_for_a_while_costs_nothing(bars, tmp_path):
    path = tmp_path / "x.db"
    about = {"registry": f"sqlite:///{path}", "symbol": "X", "mode": "record", "progress": False, **HOST}
    sweep(Cross, bars, {"fast": [3]}, **about)
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as holder:

        def lock(done, total, text):
            if done == 0 and not holder.in_transaction:
                holder.execute("BEGIN IMMEDIATE")
                threading.Timer(1.0, holder.execute, ["ROLLBACK"]).start()

        result = sweep(Cross, bars, {"fast": [4, 5]}, **{**about, "progress": lock})
    assert result.n_tested == 2


def test_a_file_that_was_damaged_is_computed_again(bars, tmp_path):
    about = {"folder": tmp_path, "progress": False, **HOST}
    first = sweep(Plain, bars, {"fast": [3, 4]}, **about)
    file = first.folder / "equity" / f"{first.table['run_id'][1]}.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[:-9])
    again = sweep(Plain, bars, {"fast": [3, 4]}, resume=True, **about)
    assert file.read_bytes() == whole
    assert again.table.to_csv() == first.table.to_csv()


def test_what_an_unfinished_sweep_left_is_moved_aside_where_it_is_not_resumed(bars, tmp_path):
    about = {"folder": tmp_path, "progress": False, "retries": 0, **HOST}
    sweep(Plain, bars, {"trouble": ["", "raise"]}, **about)
    with pytest.warns(UserWarning, match=r"is not finished; resume=True would have gone on.*before-1"):
        sweep(Plain, bars, {"trouble": ["", "raise"]}, **about)
    assert len(list(tmp_path.glob("*.before-1/cells/*.json"))) == 2


@pytest.mark.parametrize(
    ("grid", "options", "message"),
    [
        ({}, {}, "the grid is empty"),
        (
            {"qml": [1]},
            {"strategy": Cross},
            r"Cross has no parameter 'qml': it has (?!.*(qml|reverses)).*\. A parameter",
        ),
        ({"fats": [1]}, {}, r"Plain has no parameter 'fats': .*fast.* Did you mean 'fast'\?"),
        ({"fast": [1]}, {"comission": 0.1}, r"no parameter 'comission': .* Did you mean 'commission'\?"),
        ({"fast": [1]}, {"constraint": lambda p: p.fast > 1}, "none of the 1 points of the grid meets the constraint"),
        ({"fast": [1]}, {"mode": "record"}, "mode is a setting of PatternMixin, which Plain does not have"),
        ({"fast": [1]}, {"objective": "sharp"}, "objective 'sharp' is no metric. Use one of .*sharpe_annual"),
        ({"fast": [1]}, {"registry": "sqlite:///x.db"}, "Plain has no PatternMixin"),
        ({"fast": [1]}, {"fast": 2}, "'fast' cannot be swept"),
        ({"fast": [1]}, {"n_jobs": 0}, "n_jobs is 0"),
        ({"fast": [1]}, {"search": "random"}, "n_points=None has no end"),
        ({"fast": [1]}, {"search": "best"}, "search 'best' is unknown"),
        ({"fast": [1]}, {"n_points": 3}, "a grid search runs all"),
        ({"fast": [1]}, {"time_limit_s": 0}, "time_limit_s is 0"),
        ({"fast": [1]}, {"retries": -1}, "retries is -1"),
        ({"fast": [1]}, {"seed": -1}, "seed is -1"),
        ({"fast": [1]}, {"spread": "x"}, "backtesting.py refuses these options"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_is_run(bars, tmp_path, grid, options, message):
    with pytest.raises(DataError, match=message):
        sweep(**{"strategy": Plain, **options}, data=bars, grid=grid, folder=tmp_path / "out")
    assert not (tmp_path / "out").exists()
