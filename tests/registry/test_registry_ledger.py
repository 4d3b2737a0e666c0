"""The ledger: every run from its start, those that died, and how often a strategy was tried."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pytest
from backtesting import Backtest

from qml_plugin.clock import from_datetime
from qml_plugin.errors import DataError
from qml_plugin.processes import Process
from qml_plugin.registry import PatternRegistry
from strategies.moving_average import MovingAverageCross
from tests.registry.registry_samples import (
    FEATURE_SET,
    NAMES,
    execute,
    finish,
    make_outcome,
    make_pattern,
    make_run,
    save,
    start,
    take,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:backtesting")


def begun(run_id="run-1", **changes):
    return make_run(run_id, status="running", metrics=None, finished_at=None, **changes)


def ended(status, run_id="run-1", **changes):
    metrics = {"sharpe": 0.5} if status == "finished" else None
    error = None if status == "finished" else "ValueError: no"
    return make_run(run_id, **{"status": status, "metrics": metrics, "error": error} | changes)


def status_of(registry, run_id="run-1"):
    return registry.get_run(run_id)["status"]


def now():
    return datetime.now(UTC).replace(tzinfo=None)


def change(path, run_id="run-1", **columns):
    names = ", ".join(f"{name} = ?" for name in columns)
    execute(path, f"UPDATE experiments SET {names} WHERE run_id = ?", (*map(str, columns.values()), run_id))


# From start to end


def test_a_run_is_there_from_its_start(registry):
    registry.start_run(begun())
    run = registry.get_run("run-1")
    own = Process.own()
    assert (run["status"], run["metrics"], run["finished_at"], run["error"]) == ("running", None, None, None)
    assert (run["host"], run["pid"], run["process_started"]) == (own.host, os.getpid(), own.started)
    assert now() - run["heartbeat_at"] < timedelta(minutes=5)
    assert registry.get_returns("run-1") is None


@pytest.mark.parametrize("status", ["finished", "failed", "interrupted"])
def test_a_run_is_closed_with_what_came_of_it(registry, status):
    registry.start_run(begun())
    save(registry, run=ended(status))
    run = registry.get_run("run-1")
    assert run["status"] == status
    assert run["metrics"] == ({"sharpe": 0.5} if status == "finished" else None)
    assert run["error"] == (None if status == "finished" else "ValueError: no")
    assert from_datetime(run["finished_at"]) == ended(status).finished_at
    assert run["pid"] == os.getpid()


@pytest.mark.parametrize("status", ["finished", "failed", "interrupted"])
def test_only_a_running_run_is_started(registry, status):
    with pytest.raises(DataError, match=f"run run-1 is '{status}'. Only a run of status 'running' can be started"):
        registry.start_run(ended(status))
    assert registry.get_runs() == []


def test_a_running_run_is_not_closed(registry):
    with pytest.raises(DataError, match=r"run run-1 is running. `start_run` records a run that begins"):
        save(registry, run=begun())
    assert registry.get_runs() == []


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_a_finished_run_is_not_replaced_by_one_that_did_not_finish(registry, status):
    save(registry, [make_pattern()], run=ended("finished", returns_frac=np.array([0.5])))
    before = registry.get_run("run-1"), registry.get_decisions("run-1")
    registry.start_run(begun(started_at=make_run().started_at + 5))
    assert registry.get_run("run-1") == before[0]
    save(registry, run=ended(status))
    assert (registry.get_run("run-1"), registry.get_decisions("run-1")) == before
    assert registry.get_returns("run-1").tolist() == [0.5]


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_one_that_did_not_finish_is_replaced_by_one_that_did(registry, status):
    save(registry, [make_pattern(1)], run=ended(status))
    registry.start_run(begun())
    assert (status_of(registry), registry.get_run("run-1")["error"]) == ("running", None)
    save(registry, [make_pattern(2)], run=ended("finished"))
    assert (status_of(registry), registry.get_run("run-1")["error"]) == ("finished", None)
    assert [row["pattern_id"] for row in registry.get_decisions("run-1")] == [make_pattern(2).pattern_id]


def test_a_failed_repetition_replaces_a_failed_one(registry):
    save(registry, run=ended("failed"))
    save(registry, run=ended("failed", error="KeyError: other"))
    assert registry.get_run("run-1")["error"] == "KeyError: other"


# Those that died

DIES = """
import os, signal, sys
from qml_plugin.registry import PatternRegistry
from tests.registry.test_registry_ledger import begun
PatternRegistry(sys.argv[1]).start_run(begun("dead"))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_is_found_by_the_next_run(registry, url):
    assert finish([start(DIES, url)])[0][1] == -signal.SIGKILL
    dead = registry.get_run("dead")
    assert dead["status"] == "running"
    registry.start_run(begun())
    found = registry.get_run("dead")
    assert (found["status"], found["finished_at"]) == ("interrupted", dead["heartbeat_at"])
    assert f"process {dead['pid']} on {dead['host']} ended without a word; its last sign of life" in found["error"]
    assert status_of(registry) == "running"


KILLS_ITSELF = """
import os, signal, sys, warnings
from backtesting import Backtest, Strategy
from backtesting.test import GOOG
from qml_plugin import PatternMixin

class Dies(PatternMixin, Strategy):
    symbol, mode = "GOOG", "record"
    def init(self): ...
    def next(self):
        if len(self.data) == 30:
            self.buy()
        if len(self.data) == 40:
            os.kill(os.getpid(), signal.SIGKILL)

warnings.simplefilter("ignore")
Backtest(GOOG.iloc[:60], Dies, cash=100_000).run(registry=sys.argv[1])
"""


def test_a_backtest_whose_strategy_kills_its_process_is_found_by_the_next_backtest(url, goog):
    assert finish([start(KILLS_ITSELF, url)])[0][1] == -signal.SIGKILL
    registry = PatternRegistry(url, create=False)
    (dead,) = registry.get_runs()
    assert (dead["status"], dead["strategy_name"], dead["metrics"]) == ("running", "Dies", None)
    Backtest(goog.iloc[:80], MovingAverageCross, cash=100_000).run(symbol="GOOG", mode="record", registry=url)
    assert {run["strategy_name"]: run["status"] for run in registry.get_runs()} == {
        "Dies": "interrupted",
        "MovingAverageCross": "finished",
    }
    assert registry.n_trials("Dies", goog.iloc[:60]) == 1


LIVES = """
import sys
from qml_plugin.registry import PatternRegistry
from tests.registry.test_registry_ledger import begun
PatternRegistry(sys.argv[1]).start_run(begun("alive"))
print("started", flush=True)
sys.stdin.readline()
"""


def test_a_run_whose_process_lives_is_left_alone_however_long_it_is_silent(registry, url, path):
    command = [sys.executable, "-c", LIVES, url]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "started\n"
        change(path, "alive", heartbeat_at=now() - timedelta(days=2))
        registry.start_run(begun())
        assert status_of(registry, "alive") == "running"
    finally:
        process.communicate("end\n", timeout=60)
    registry.start_run(begun("run-2"))
    assert status_of(registry, "alive") == "interrupted"


def test_a_zombie_is_dead(registry, url):
    process = start(DIES, url)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # ended, and not yet buried
    try:
        assert os.kill(process.pid, 0) is None
        registry.start_run(begun())
        assert status_of(registry, "dead") == "interrupted"
    finally:
        process.communicate(timeout=60)


def test_a_later_process_of_the_same_number_is_not_taken_for_the_run(registry, path):
    registry.start_run(begun())
    place, ticks = Process.own().started.rsplit(" ", 1)
    change(path, process_started=f"{place} {int(ticks) - 1}")
    registry.start_run(begun("run-2"))
    assert (status_of(registry), status_of(registry, "run-2")) == ("interrupted", "running")


@pytest.mark.parametrize(("silent", "status"), [(59, "running"), (61, "interrupted")])
def test_a_run_on_another_host_counts_as_dead_after_an_hour_of_silence(registry, path, silent, status):
    registry.start_run(begun())
    change(path, host="elsewhere", heartbeat_at=now() - timedelta(minutes=silent))
    registry.start_run(begun("run-2"))
    assert status_of(registry) == status


def test_a_sign_of_life_keeps_a_run_on_another_host(registry, path):
    registry.start_run(begun())
    change(path, host="elsewhere", heartbeat_at=now() - timedelta(hours=3))
    registry.note_alive("run-1")
    assert now() - registry.get_run("run-1")["heartbeat_at"] < timedelta(minutes=5)
    registry.start_run(begun("run-2"))
    assert status_of(registry) == "running"


def test_a_sign_of_life_of_a_run_that_has_ended_changes_nothing(registry):
    save(registry, run=ended("finished"))
    before = registry.get_run("run-1")
    registry.note_alive("run-1")
    registry.note_alive("run-2")
    assert (registry.get_run("run-1"), len(registry.get_runs())) == (before, 1)


def test_a_run_that_was_taken_for_dead_may_finish_after_all(registry, path):
    registry.start_run(begun())
    change(path, host="elsewhere", heartbeat_at=now() - timedelta(hours=3))
    registry.start_run(begun("run-2"))
    assert status_of(registry) == "interrupted"
    save(registry, run=ended("finished"))
    assert (status_of(registry), registry.get_run("run-1")["error"]) == ("finished", None)


def test_what_is_not_running_is_never_marked(registry, path):
    for status in ("finished", "failed", "interrupted"):
        save(registry, run=ended(status, f"{status}-1"))
        change(path, f"{status}-1", host="elsewhere", heartbeat_at=now() - timedelta(days=9))
    before = registry.get_runs()
    registry.start_run(begun())
    assert [run for run in registry.get_runs() if run["run_id"] != "run-1"] == before


# Reading


def test_a_run_is_found_by_its_first_characters(registry):
    for run_id in ("abc-1", "abc-2", "abd", "abd-1"):
        save(registry, run=make_run(run_id))
    assert registry.get_run("abc-1")["run_id"] == "abc-1"
    assert registry.get_run("abd")["run_id"] == "abd"
    with pytest.raises(DataError, match=r"run 'abc' is not one run: abc-1, abc-2 … begin so. Give more of the id"):
        registry.get_run("abc")


@pytest.mark.parametrize(
    "run_id",
    [
        "", "%", "_", "run_1", "' OR '1'='1", "'; DROP TABLE experiments; --", "[red]", "\x1b[2J", "\x00", "run-1\x00",
        "<script>alert(1)</script>", "../../etc/passwd", "\udcff", "\u202e1-nur", "x" * 100_000,
    ],
    ids=ascii,
)  # fmt: skip
def test_a_hostile_run_id_finds_nothing_and_does_nothing(registry, run_id):
    save(registry, run=make_run())
    with pytest.raises(DataError, match=r"is not in .*registry.db. `qml runs list` names those that are") as caught:
        registry.get_run(run_id)
    assert "\x1b" not in str(caught.value)
    assert "\udcff" not in str(caught.value)
    assert [run["run_id"] for run in registry.get_runs()] == ["run-1"]


def test_runs_are_listed_by_what_is_asked(registry):
    save(registry, run=make_run("a", strategy_name="One", symbol="X", finished_at=make_run().started_at + 1))
    save(registry, run=ended("failed", "b", strategy_name="One", symbol="Y", data_hash="e" * 64))
    registry.start_run(begun("c", strategy_name="Two", symbol="X", started_at=make_run().started_at - 1))

    def found(**asked):
        return [run["run_id"] for run in registry.get_runs(**asked)]

    assert found() == ["b", "a", "c"]
    assert found(limit=2) == ["b", "a"]
    assert found(strategy="One") == ["b", "a"]
    assert found(symbol="X") == ["a", "c"]
    assert found(symbol="X", status="running") == ["c"]
    assert found(data_hash="e" * 64) == ["b"]
    assert found(strategy="' OR 1=1 --") == found(symbol="%") == found(strategy="\udcff", symbol="\x00") == []
    with pytest.raises(DataError, match=r"status 'done' is unknown. Use one of 'running', 'finished'"):
        registry.get_runs(status="done")


def test_decisions_come_back_as_they_were_made(registry):
    patterns = [make_pattern(bar) for bar in range(3)]
    decisions = [
        take(patterns[0], confidence=0.25, threshold=0.5, model="logistic", base_rate=0.4, n_known=7),
        take(patterns[1]),
        take(patterns[2], contributions=(("b", -0.5), ("a", 0.25))),
    ]
    save(
        registry, patterns, decisions=decisions, returns={patterns[0].pattern_id: -0.125, patterns[1].pattern_id: None}
    )
    found = {row["pattern_id"]: row for row in registry.get_decisions("run-1")}
    assert list(found) == sorted(pattern.pattern_id for pattern in patterns)
    first = found[patterns[0].pattern_id]
    assert {name: first[name] for name in ("confidence", "threshold", "model", "base_rate", "n_known", "trade_return")} == {
        "confidence": 0.25, "threshold": 0.5, "model": "logistic", "base_rate": 0.4, "n_known": 7, "trade_return": -0.125,
    }  # fmt: skip
    assert found[patterns[1].pattern_id]["trade_return"] is None
    assert found[patterns[2].pattern_id]["contributions_json"] == '{"b":-0.5,"a":0.25}'
    assert registry.get_decisions("run-2") == []


def test_a_diff_is_kept_once_for_all_runs_that_saw_it(registry, path):
    for number, diff in enumerate(["+ a = 1\n", "+ a = 1\n", "+ a = 2\n", None]):
        save(registry, run=make_run(f"run-{number}", git_diff=diff))
        registry.start_run(begun(f"begun-{number}", git_diff=diff))
    assert sorted(execute(path, "SELECT diff FROM git_diffs")) == [("+ a = 1\n",), ("+ a = 2\n",)]
    assert [registry.get_run(f"run-{number}")["git_diff"] for number in range(4)] == ["+ a = 1\n", "+ a = 1\n", "+ a = 2\n", None]  # fmt: skip
    assert registry.get_run("begun-2")["git_diff"] == "+ a = 2\n"


# Trials


def test_every_way_of_a_strategy_is_a_trial_and_a_repetition_is_none(registry):
    for status in ("finished", "failed", "interrupted"):
        for _ in range(3):
            save(registry, run=ended(status, status))
    registry.start_run(begun("running"))
    registry.start_run(begun("running"))
    save(registry, run=make_run("cell", parent_run_id="search", kind="sweep_cell"))
    save(registry, run=make_run("other-data", data_hash="e" * 64))
    save(registry, run=make_run("other-strategy", strategy_name="Crosses"))
    assert registry.n_trials("Cross", "d" * 64) == 5
    assert registry.n_trials(None, "d" * 64) == 6
    assert registry.n_trials("Cross", "e" * 64) == registry.n_trials("Crosses", "d" * 64) == 1
    assert registry.n_trials("Cross", "f" * 64) == registry.n_trials("%", "%") == 0
    assert [registry.get_run(run_id)["n_trials"] for run_id in ("failed", "other-data")] == [5, 1]


def test_the_matrix_holds_what_finished_in_order_of_the_start(registry):
    first = make_run().started_at
    save(registry, run=make_run("late", returns_frac=np.array([0.5, -0.25]), started_at=first + 2))
    save(registry, run=make_run("early", returns_frac=np.array([0.0, 1e-300]), started_at=first + 1))
    save(registry, run=ended("failed", "failed"))
    registry.start_run(begun("running"))
    table = registry.trial_returns("Cross", "d" * 64)
    assert table.columns.tolist() == ["early", "late"]
    assert table.to_numpy().tolist() == [[0.0, 0.5], [1e-300, -0.25]]
    assert (table.index.tolist(), table.index.name) == ([1, 2], "bar")
    nothing = registry.trial_returns("Cross", "e" * 64)
    assert nothing.shape == (0, 0)


@pytest.fixture(scope="module")
def searched(tmp_path_factory, goog):
    """Three runs on the same bars, their statistics, and the same again."""
    url = f"sqlite:///{tmp_path_factory.mktemp('searched')}/x.db"
    host = Backtest(goog.iloc[:300], MovingAverageCross, cash=100_000, commission=0.002, exclusive_orders=True)
    settings = {"symbol": "GOOG", "mode": "record", "registry": url, "slow": 20}
    stats = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for fast in (3, 5, 8, 5):
            found = host.run(fast=fast, **settings)
            stats[found["_strategy"].qml.run.run_id] = found
    return PatternRegistry(url, create=False), stats


def test_the_matrix_equals_the_equity_curves_of_the_host(searched, goog):
    registry, stats = searched
    table = registry.trial_returns(MovingAverageCross, goog.iloc[:300])
    assert set(table.columns) == set(stats)
    assert registry.n_trials(MovingAverageCross, goog.iloc[:300]) == len(stats) == 3
    assert registry.n_trials(MovingAverageCross, goog.iloc[:299]) == 0
    for run_id, found in stats.items():
        equity = found["_equity_curve"]["Equity"].tolist()
        assert table[run_id].tolist() == [(after - before) / before for before, after in pairwise(equity)]
        assert np.prod(1 + table[run_id]) == pytest.approx(equity[-1] / equity[0], rel=1e-12)
        assert np.array_equal(registry.get_returns(run_id), table[run_id])


def test_a_number_that_a_snapshot_saw_is_not_given_again(registry):
    patterns = [make_pattern(bar) for bar in range(3)]
    save(registry, patterns)
    registry.label_pattern(patterns[0].pattern_id, "win")
    _, seen = registry.read_snapshot(FEATURE_SET, NAMES)
    registry.start_run(make_run("later", status="running", metrics=None, finished_at=None, snapshot_seq=seen.seq))
    registry.label_pattern(patterns[0].pattern_id, None)
    registry.label_pattern(patterns[1].pattern_id, "loss")
    known, _ = registry.read_snapshot(FEATURE_SET, NAMES, through_seq=seen.seq)
    assert known.pattern_id == ()


def test_an_unrelated_pattern_that_is_ignored_leaves_a_snapshot_as_it_was(registry):
    save(registry, [make_pattern(0, outcome=make_outcome(0))])
    _, before = registry.read_snapshot(FEATURE_SET, NAMES)
    other = make_pattern(1)
    save(registry, [other], make_run("run-2"))
    registry.label_pattern(other.pattern_id, "ignore")
    assert registry.read_snapshot(FEATURE_SET, NAMES, through_seq=before.seq)[1] == before
