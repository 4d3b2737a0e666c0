"""`qml runs`: what each command prints, and that hostile texts stay texts."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from backtesting import Backtest

from qml_plugin.cli.terminal import inert
from qml_plugin.registry import PatternRegistry
from tests.adapters.reproduced import EveryFifth
from tests.cli.test_commands import QML, is_refused, strict, words
from tests.registry.registry_samples import execute, finish, make_run, save, start
from tests.registry.test_registry_ledger import KILLS_ITSELF, begun, ended

HOSTILE = ["[red]x[/red]", "\x1b[2J", "<script>alert(1)</script>", "'; DROP TABLE experiments; --", "../../etc/passwd", "a\nb", "\u202egnp", ":skull:", "\\"]  # fmt: skip


@pytest.fixture(scope="session")
def three_once(tmp_path_factory, goog):
    """Three runs of one strategy on the same bars."""
    path = tmp_path_factory.mktemp("runs") / "experiments.db"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        host = Backtest(goog.iloc[:120], EveryFifth, cash=100_000, exclusive_orders=True, finalize_trades=True)
        for every, mode in ((5, "record"), (10, "record"), (5, "shadow")):
            host.run(registry=f"sqlite:///{path}", every=every, mode=mode)
    return path


@pytest.fixture
def path(three_once, tmp_path):
    return shutil.copy(three_once, tmp_path / "experiments.db")


@pytest.fixture
def url(path):
    return f"sqlite:///{path}"


@pytest.fixture
def runs(url):
    """Newest first: shadow of 5, record of 10, record of 5."""
    return PatternRegistry(url).get_runs()


@pytest.fixture
def own(tmp_path):
    """An empty registry for made-up runs."""
    return PatternRegistry(f"sqlite:///{tmp_path}/own.db")


# List


def test_the_list_is_a_line_a_run(qml, url, runs):
    code, out, err = qml("runs", "list", "--db", url)
    assert (code, err) == (0, "")
    header, *lines = out.splitlines()
    assert header.split() == [
        "run",
        "when",
        "strategy",
        "symbol",
        "tf",
        "mode",
        "status",
        "entries",
        "trades",
        "return",
        "Sharpe",
    ]
    assert [line.split()[0] for line in lines] == [run["run_id"][:8] for run in runs]
    metrics = runs[0]["metrics"]
    assert lines[0].split()[3:] == [
        "EveryFifth", "GOOG", "1d", "shadow", "finished", str(metrics["n_entries"]), str(int(metrics["n_trades"])),
        f"{100 * metrics['return_frac']:.1f}", "%", f"{metrics['sharpe_annual']:.2f}",
    ]  # fmt: skip


def test_the_list_obeys_its_filters(qml, url, runs):
    assert [run["run_id"] for run in strict(qml("runs", "list", "--json", "--db", url)[1])] == [
        run["run_id"] for run in runs
    ]
    assert len(strict(qml("runs", "list", "--json", "--limit", "2", "--db", url)[1])) == 2
    assert len(strict(qml("runs", "list", "--json", "-n", "2", "--db", url)[1])) == 2
    assert (
        len(strict(qml("runs", "list", "--json", "--strategy", "EveryFifth", "--symbol", "GOOG", "--db", url)[1])) == 3
    )
    code, out, _ = qml("runs", "list", "--status", "failed", "--db", url)
    assert (code, out) == (0, "No run is recorded that meets these conditions.\n")
    assert is_refused(qml("runs", "list", "--status", "done", "--db", url), 1, "status 'done' is unknown")
    assert qml("runs", "list", "--limit", "0", "--db", url)[0] == 2


def test_ids_in_the_list_are_long_enough_to_be_unique(qml, own):
    for last in "abc":
        save(own, run=make_run(f"12345678-12{last}"))
    _, out, _ = qml("runs", "list", "--db", own.url)
    assert sorted(line.split()[0] for line in out.splitlines()[1:]) == ["12345678-12a", "12345678-12b", "12345678-12c"]


def test_runs_that_did_not_finish_are_listed_without_figures(qml, own):
    own.start_run(begun("running-1"))
    save(own, run=ended("failed", "failed-1"))
    _, out, _ = qml("runs", "list", "--db", own.url)
    nothing = ["–"] * 4
    assert {line.split()[0]: line.split()[6:] for line in out.splitlines()[1:]} == {
        "running-": ["–", "running", *nothing],
        "failed-1": ["–", "failed", *nothing],
    }


# Show


def test_a_run_is_shown_whole(qml, url, runs):
    code, out, err = qml("runs", "show", runs[0]["run_id"][:8], "--db", url)
    assert (code, err) == (0, "")
    headings = [line for line in out.splitlines() if line and not line.startswith(" ")]
    assert headings == [
        "run",
        "parameters",
        "settings",
        "host",
        "data",
        "code",
        "libraries",
        "snapshot",
        "metrics",
        "trials",
    ]
    said = {line.split()[0]: " ".join(line.split()[1:]) for line in out.splitlines() if line.startswith("  ")}
    run = runs[0]
    for column in (
        "run_id",
        "status",
        "symbol",
        "data_bars",
        "data_hash",
        "git_hash",
        "source_sha256",
        "snapshot_sha256",
    ):
        assert said[column] == str(run[column] if run[column] is not None else "–")
    assert (said["every"], said["mode"], said["cash"]) == ("5", "shadow", "100000")
    assert said["numpy"] == run["versions"]["numpy"]
    assert said["n_trials"] == "3 of EveryFifth on these bars, this one included"
    assert said["sharpe_annual"] == str(run["metrics"]["sharpe_annual"])
    assert said["process"] == f"{os.getpid()} on {run['host']}"
    told = strict(qml("runs", "show", run["run_id"], "--json", "--db", url)[1])
    assert (told["run_id"], told["n_trials"]) == (run["run_id"], 3)


def test_the_diff_is_shown_where_it_is_asked_for(qml, own):
    save(own, run=make_run("x", git_diff="--- a\n+++ b\n+\tone = \x1b[2J\n", git_hash="abc", is_git_dirty=True))
    _, out, _ = qml("runs", "show", "x", "--db", own.url)
    assert "3 lines, --diff prints them" in out
    assert "+++ b" not in out
    _, out, _ = qml("runs", "show", "x", "--diff", "--db", own.url)
    assert out.endswith("--- a\n+++ b\n+\tone = \\x1b[2J\n\n")


def test_whether_a_running_run_still_lives(qml, own):
    own.start_run(begun("mine"))
    assert f"{os.getpid()} on" in (out := qml("runs", "show", "mine", "--db", own.url)[1])
    assert ", alive" in out
    assert finish([start(KILLS_ITSELF, own.url)])[0][1] == -signal.SIGKILL
    (dead,) = own.get_runs(strategy="Dies")
    assert (
        "gone: the next run will mark this one as interrupted"
        in qml("runs", "show", dead["run_id"], "--db", own.url)[1]
    )
    execute(own.url.removeprefix("sqlite:///"), "UPDATE experiments SET host = 'elsewhere'")
    assert "cannot be seen from here" in qml("runs", "show", "mine", "--db", own.url)[1]


# Compare


def test_only_what_differs_is_compared(qml, url, runs):
    shadow, tens, fives = (run["run_id"] for run in runs)
    code, out, err = qml("runs", "compare", tens[:8], fives[:8], "--db", url)
    assert (code, err) == (0, "")
    rows = {line.split()[1]: line.split()[2:] for line in out.split("\n\n")[0].splitlines()}
    assert rows["what"] == [tens[:8], fives[:8]]
    assert rows["every"] == ["10", "5"]
    assert "slow" not in rows
    assert {"mode", "data_hash", "numpy"}.isdisjoint(rows)
    assert rows["n_entries"] == [str(run["metrics"]["n_entries"]) for run in runs[1:]]
    n_tens, n_fives = (run["metrics"]["n_entries"] for run in runs[1:])
    decisions = out.split("\n\n")[1]
    assert words(decisions).startswith(f"decisions {tens[:8]} {fives[:8]} entries {n_tens} {n_fives} that no other has")
    assert "passed in one run and were skipped in another" in decisions
    told = strict(qml("runs", "compare", shadow, tens, fives, "--json", "--db", url)[1])
    assert told["runs"] == [shadow, tens, fives]
    assert {row["what"]: row["values"] for row in told["differences"]}["mode"] == ["shadow", "record", "record"]
    assert told["decisions"]["n_entries"] == [n_fives, n_tens, n_fives]


def test_an_entry_taken_in_one_run_and_skipped_in_another_is_shown(qml, url, path, runs):
    one, other = runs[0]["run_id"], runs[2]["run_id"]
    pattern = PatternRegistry(url).get_decisions(one)[3]["pattern_id"]
    execute(path, "UPDATE run_decisions SET action = 'skip' WHERE run_id = ? AND pattern_id = ?", (one, pattern))
    _, out, _ = qml("runs", "compare", one, other, "--db", url)
    assert "1 passed in one run and were skipped in another" in words(out)
    (line,) = (line for line in out.splitlines() if pattern in line)
    assert line.split()[-2:] == ["skip", "take"]
    told = strict(qml("runs", "compare", one, other, "--json", "--db", url)[1])
    assert told["decisions"]["differences"] == [{"pattern_id": pattern, "actions": ["skip", "take"]}]


def test_a_run_is_not_compared_with_itself(qml, url, runs):
    answer = qml("runs", "compare", runs[0]["run_id"], runs[0]["run_id"][:9], "--db", url)
    assert is_refused(answer, 1, "1 runs cannot be compared")


# Best


def test_the_best_says_of_how_many(qml, url, runs):
    code, out, err = qml("runs", "best", "--metric", "sharpe", "--db", url)
    assert (code, err) == (0, "")
    first, _, *lines = out.splitlines()
    assert first == "EveryFifth on GOOG 1d, 120 bars: the best of 3 trials by sharpe_annual"
    values = [float(line.split()[0]) for line in lines[:3]]
    assert values == sorted(values, reverse=True)
    assert lines[-1] == "The best of 3 trials is biased upwards: the best of many without any edge looks good too."
    (told,) = strict(qml("runs", "best", "--metric", "return", "-n", "1", "--across", "--json", "--db", url)[1])
    assert (told["metric"], told["n_trials"], len(told["runs"])) == ("return_frac", 3, 1)
    assert told["runs"][0]["metrics"]["return_frac"] == max(run["metrics"]["return_frac"] for run in runs)
    assert is_refused(qml("runs", "best", "--metric", "sharp", "--db", url), 1, "Did you mean 'sharpe'?")
    assert is_refused(
        qml("runs", "best", "--metric", "sharpe", "--symbol", "X", "--db", url), 1, "no finished run to rank"
    )
    assert qml("runs", "best", "--db", url)[0] == 2


# Reproduce


def test_an_identical_run_exits_with_zero_and_another_with_one(qml, url, path, runs):
    run_id = runs[1]["run_id"]
    code, out, _ = qml("runs", "reproduce", run_id[:8], "--db", url)
    assert code == 0
    rows = [line.split() for line in out.split("\n\n")[0].splitlines()[1:]]
    assert {row[0] for row in rows} >= set(runs[1]["metrics"])
    assert {row[-1] for row in rows} == {"yes"}
    assert "\nidentical\n" in out
    execute(path, "UPDATE experiments SET metrics_json = json_set(metrics_json, '$.return_frac', 0.5) WHERE run_id = ?", (run_id,))  # fmt: skip
    code, out, _ = qml("runs", "reproduce", run_id, "--db", url)
    assert code == 1
    (line,) = (line for line in out.splitlines() if line.startswith("return_frac"))
    assert (line.split()[1], line.split()[-1]) == ("0.5", "NO")
    assert "not identical: 1 of" in out
    code, out, _ = qml("runs", "reproduce", run_id, "--json", "--db", url)
    assert (code, strict(out)["is_identical"]) == (1, False)


def test_other_data_are_named(qml, url, runs, goog, tmp_path):
    goog.iloc[:110].to_csv(tmp_path / "bars.csv")
    code, out, _ = qml("runs", "reproduce", runs[1]["run_id"], "--data", tmp_path / "bars.csv", "--db", url)
    assert code == 1
    assert "changed  data: 110 bars with another hash than the 120 that the run saw" in out


def test_a_strategy_of_the_current_folder_is_found_by_the_installed_command(url, runs, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from tests.adapters import reproduced\nclass EveryFifth(reproduced.EveryFifth): every = 3\n"
    )
    command = [QML, "runs", "reproduce", runs[1]["run_id"], "--strategy", "mine:EveryFifth", "--db", url]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p) + os.pathsep + str(Path.cwd())}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "changed  code: the source of EveryFifth is another" in done.stdout


# Returns


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_returns_of_all_trials_are_written_bit_for_bit(qml, url, path, tmp_path, runs, suffix):
    with_failed = PatternRegistry(url)
    save(with_failed, run=ended("failed", "failed", strategy_name="EveryFifth", data_hash=runs[0]["data_hash"]))
    out_file = tmp_path / f"trials.{suffix}"
    code, out, err = qml("runs", "returns", "EveryFifth", "--out", out_file, "--db", url)
    assert (code, err) == (0, "")
    assert "119 bars x 3 trials" in out
    assert "1 of the 4 trials did not finish and left no returns" in out
    found = pd.read_parquet(out_file) if suffix == "parquet" else pd.read_csv(out_file, index_col="bar")
    assert found.columns.tolist() == [run["run_id"] for run in reversed(runs)]
    for run_id in found:
        assert np.array_equal(found[run_id], with_failed.get_returns(run_id))
    before = out_file.read_bytes()
    assert is_refused(qml("runs", "returns", "EveryFifth", "--out", out_file, "--db", url), 1, "is there already")
    assert qml("runs", "returns", "EveryFifth", "--out", out_file, "--force", "--db", url)[0] == 0
    assert out_file.read_bytes() == before


def test_returns_of_what_is_not_one_series_are_refused(qml, own, tmp_path):
    save(own, run=make_run("a"))
    save(own, run=make_run("b", data_hash="e" * 64))
    answer = qml("runs", "returns", "Cross", "--out", tmp_path / "x.csv", "--db", own.url)
    assert is_refused(answer, 1, "strategy 'Cross' was run on 2 series")
    answer = qml("runs", "returns", "Nothing", "--out", tmp_path / "x.csv", "--db", own.url)
    assert is_refused(answer, 1, "strategy 'Nothing' has no run")
    answer = qml("runs", "returns", "Cross", "--out", tmp_path / "x.txt", "--db", own.url)
    assert is_refused(answer, 1, "is neither .parquet nor .csv")
    assert not (tmp_path / "x.csv").exists()


# Hostile texts


@pytest.mark.parametrize("command", ["show", "reproduce", "export-mlflow"])
@pytest.mark.parametrize("text", [*HOSTILE[:5], HOSTILE[6], "%", "", "\udcff"], ids=ascii)
def test_hostile_run_ids_are_refused_and_nothing_happens(qml, url, path, command, text):
    before = execute(path, "SELECT count(*) FROM experiments")
    answer = qml("runs", command, "--db", url, "--", text)
    assert is_refused(answer, 1, "`qml runs list` names those that are")
    assert answer[2].rstrip("\n").isprintable()
    assert execute(path, "SELECT count(*) FROM experiments") == before


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_hostile_texts_in_the_record_are_printed_as_text(qml, own, text):
    for name in ("run-1", "run-2"):
        hostile = {"symbol": text, "strategy_name": text, "timeframe": text, "error": None, "git_hash": text}
        params = {"strategy": {text: f"{text}{name}"}, "qml": {"mode": text}, "host": {}}
        save(own, run=make_run(name, params=params, versions={text: f"{text}{name}"}, metrics={text: 1.0, "sharpe_annual": 1.0}, **hostile))  # fmt: skip
    save(own, run=ended("failed", "run-3", symbol=text, error=text))
    for arguments in (
        ["list"], ["show", "run-1"], ["show", "run-3"], ["compare", "run-1", "run-2"], ["best", "--metric", "sharpe"],
        ["best", "--metric", text], ["list", "--symbol", text],
    ):  # fmt: skip
        code, out, err = qml("runs", *arguments, "--db", own.url)
        assert (code, err) == (0, ""), (arguments, err)
        assert inert(text) in out
        assert out.replace("\n", "").isprintable()
    assert ":skull:" not in text or "💀" not in out
    for arguments in (["list", "--json"], ["show", "run-3", "--json"], ["compare", "run-1", "run-2", "--json"]):
        _, out, _ = qml("runs", *arguments, "--db", own.url)
        strict(out)
        assert out.isascii()
    assert strict(qml("runs", "show", "run-3", "--json", "--db", own.url)[1])["error"] == text
    answer = qml("runs", "show", f"{text}nothing", "--db", own.url)
    assert is_refused(answer, 1, "is not in")
    assert answer[2].rstrip("\n").isprintable()
    assert len(own.get_runs()) == 3


def test_text_that_a_terminal_would_obey_is_written_out():
    assert inert("plain äß 東京 ✓") == "plain äß 東京 ✓"
    assert inert("\x1b[2J\x07\r\u202e\udcff") == "\\x1b[2J\\x07\\r\\u202e\\udcff"
    assert inert("a\n\tb", keep="\n\t") == "a\n\tb"


@pytest.mark.parametrize(
    "command", [["list"], ["show", "x"], ["best", "--metric", "sharpe"], ["reproduce", "x"]], ids=" ".join
)
def test_a_missing_database_is_refused_and_not_made(qml, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    assert is_refused(qml("runs", *command, "--db", "sqlite:///missing.db"), 1, "there is no database at")
    assert list(tmp_path.iterdir()) == []
