"""Sweeps that are killed, asked for twice, or interrupted at a terminal: what they leave, and going on after them."""

from __future__ import annotations

import os
import pty
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest

from qml_plugin import PatternRegistry, sweep
from qml_plugin.errors import DataError
from tests.conftest import random_walk
from tests.sweeps.conftest import HOST
from tests.sweeps.test_search import filled
from tests.sweeps.troubled import Cross

ROOT = Path(__file__).parents[2]
GRID = {"fast": [2, 3, 4, 5, 6, 7]}
# When something was done and by which process; and what a pattern keeps of the first of two workers to commit it.
MAY_DIFFER = {
    "created_at", "updated_at", "started_at", "finished_at", "heartbeat_at", "host", "pid", "process_started",
    "known_seq", "scored_seq", "row_sha256", "ml_confidence", "trade_outcome", "features_json", "features_f32",
}  # fmt: skip
KILLED = """
import sys
from tests.sweeps.test_interrupted import searched
if __name__ == "__main__":
    searched(sys.argv[1], sys.argv[2], n_jobs=2, progress=lambda done, total, text: print(done, flush=True))
"""


def searched(url, flag, **options):
    about = {"registry": url, "mode": "shadow", "symbol": "X", "waits_from": 5, "flag": flag, "progress": False, **HOST}
    return sweep(Cross, random_walk(400, 5), GRID, **{**about, **options})


def rows(path):
    """Every row of a registry by table, but for what may differ."""
    found = {}
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            every = map(dict, connection.execute(f"SELECT * FROM {table}"))
            kept = [{name: value for name, value in row.items() if name not in MAY_DIFFER} for row in every]
            found[table] = sorted(kept, key=repr)
    return found


def children(pid):
    """Processes that a process has started and that still run."""
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    ).stdout
    return [int(number) for number in listed.split()]


def is_running(pid):
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_until(is_so, timeout_s=60):
    """Fail where something does not come to be."""
    ends_at = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < ends_at
        time.sleep(0.05)


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The sweep that nothing happens to; the file of its flag is there all the time."""
    place = tmp_path_factory.mktemp("whole")
    flag = place / "flag"
    flag.touch()
    url = filled(place / "x.db")
    return url, flag, searched(url, str(flag))


def test_a_sweep_killed_half_way_with_two_workers_is_gone_on_with_to_the_same_rows(whole, tmp_path):
    whole_url, flag, expected = whole
    url = filled(tmp_path / "x.db")
    flag.unlink()
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, url, str(flag)], cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True
    )
    while int(process.stdout.readline()) < 3:
        pass
    with pytest.raises(DataError, match=rf"process {process.pid} is at this very sweep, in .*Wait for it, or stop it"):
        searched(url, str(flag), resume=True)
    workers = children(process.pid)
    assert len(workers) >= 2
    process.kill()
    process.communicate(timeout=60)
    wait_until(lambda: not any(map(is_running, workers)))
    flag.touch()
    resumed = searched(url, str(flag), resume=True)
    assert len(list((resumed.folder / "cells").glob("*.json"))) == 6
    assert not (resumed.folder / "shared").exists()
    assert resumed.run_id == expected.run_id
    assert resumed.table.to_csv() == expected.table.to_csv()
    for run_id in expected.table["run_id"]:
        pd.testing.assert_frame_equal(resumed.trades(run_id), expected.trades(run_id))
        pd.testing.assert_frame_equal(resumed.equity(run_id), expected.equity(run_id))
    mine, theirs = rows(tmp_path / "x.db"), rows(PatternRegistry(whole_url).file)
    assert mine.keys() == theirs.keys()
    for table in mine:
        assert mine[table] == theirs[table], table


def test_a_point_whose_batch_was_committed_and_whose_file_was_not_is_run_again_to_the_same_rows(whole):
    url, flag, expected = whole
    flag.touch()
    before = rows(PatternRegistry(url).file)
    for run_id in expected.table["run_id"][2:4]:
        (expected.folder / "cells" / f"{run_id}.json").unlink()
    again = searched(url, str(flag), resume=True)
    assert again.table.to_csv() == expected.table.to_csv()
    assert rows(PatternRegistry(url).file) == before


HANGING = """
from backtesting import Strategy

class Hangs(Strategy):
    every = 5

    def init(self):
        import time
        time.sleep(600 if self.every > 6 else 0)

    def next(self):
        if len(self.data) % self.every == 0:
            self.buy(sl=self.data.Close[-1] * 0.98, tp=self.data.Close[-1] * 1.02)
"""
AT_A_TERMINAL = """
import fcntl, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGINT, signal.default_int_handler)
from qml_plugin.cli import main
main(sys.argv[1:])
"""


def test_ctrl_c_at_a_terminal_ends_all_and_says_how_to_go_on(tmp_path):
    (tmp_path / "hangs.py").write_text(HANGING)
    random_walk(160, 5).to_csv(tmp_path / "walk.csv")
    command = [
        "sweep", "hangs.py:Hangs", "--data", "walk.csv", "--grid", "every=2:12:1", "--time-limit", "500", "--folder", "kept", "--set", "cash=1000000",
    ]  # fmt: skip
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", AT_A_TERMINAL, *command], cwd=tmp_path, env=environment(), stdin=slave, stdout=slave, stderr=slave,
        start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    seen = b""
    while b"5/11 points" not in seen:
        seen += os.read(master, 4096)
    workers = children(process.pid)
    assert workers
    os.write(master, b"\x03")  # the terminal sends SIGINT to all of its processes in the foreground
    try:
        while True:
            seen += os.read(master, 4096)
    except OSError:  # the terminal has nobody left
        pass
    finally:
        os.close(master)
    assert process.wait(timeout=60) == 128 + signal.SIGINT
    wait_until(lambda: not any(map(is_running, workers)))
    text = seen.decode()
    assert "5/11 points" in text
    assert " left" in text
    assert "Traceback" not in text
    last = " ".join(text.rpartition("\x1b[K")[2].split())  # the line of progress is gone by then
    assert last.startswith("stopped. What had finished is kept in")
    assert last.endswith("--resume goes on from there.")
    assert len(list(tmp_path.glob("kept/*/cells/*.json"))) == 5
    assert not list(tmp_path.glob("kept/*/shared"))
