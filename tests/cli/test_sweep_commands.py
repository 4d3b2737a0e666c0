"""`qml sweep` and `qml walk-forward`: what they print, where strategies are found, and how they end."""

from __future__ import annotations

import signal
from pathlib import Path

import pandas as pd
import pytest

from qml_plugin import PatternRegistry
from qml_plugin.cli import sweeps
from qml_plugin.provenance import SHIPPED, class_path
from qml_plugin.vrd.strategies import find_strategy
from tests.conftest import random_walk

SCRIPT = """
from backtesting import Strategy

class Mine(Strategy):
    every = 5
    sleep_s = 0.0

    def init(self):
        import time
        time.sleep(self.sleep_s)
        if self.every == 7:
            raise ValueError("not every seventh")

    def next(self):
        if len(self.data) % self.every == 0:
            self.buy(sl=self.data.Close[-1] * 0.98, tp=self.data.Close[-1] * 1.02)
"""
CASH = ("--set", "cash=1000000", "--set", "exclusive_orders=true", "--set", "finalize_trades=true")


@pytest.fixture
def script(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(SCRIPT)
    random_walk(160, 5).to_csv(tmp_path / "walk.csv")
    return tmp_path / "mine.py"


def test_a_strategy_in_a_script_is_swept_and_the_table_written(qml, script):
    code, out, err = qml(
        "sweep",
        "mine.py:Mine",
        "--data",
        "walk.csv",
        "--grid",
        "every=3:9:3",
        *CASH,
        "--out",
        "t.csv",
        "--html",
        "s.html",
    )
    assert (code, err) == (0, ""), err
    assert "plateau   every=" in out
    assert "tested    3 of 3 points; the best of many is biased upwards" in out
    assert list(pd.read_csv("t.csv")["every"]) == [3, 6, 9]
    assert f"page      {Path('s.html').absolute()}" in out
    assert "a search over every" in Path("s.html").read_text()
    assert list(pd.read_csv("s.points.csv")["every"]) == [3, 6, 9]
    assert list(Path("results/sweeps").glob("*/trades/*.parquet"))


def test_a_point_that_failed_ends_it_with_one_and_is_named(qml, script):
    arguments = ("sweep", "mine.py:Mine", "--data", "walk.csv", "--grid", "every=5,7", "--retries", "0", *CASH)
    code, out, _ = qml(*arguments)
    assert code == 1
    assert "failed    every=7: ValueError: not every seventh" in out
    assert "1 points failed and count as not tested; --resume tries them again" in out
    code, out, _ = qml(*arguments, "--resume")
    assert code == 1
    assert "resumed   kept 1 point from before, 1 run now" in out


def test_symbols_are_pooled_where_that_is_asked(qml, script):
    both = ("sweep", "MovingAverageCross", "--data", "X=walk.csv", "--data", "Y=walk.csv", "--grid", "fast=3", "--set", "slow=12", "--pooled", *CASH)  # fmt: skip
    code, _, err = qml(*both, "--set", "mode=record", "--db", "sqlite:///x.db")
    assert (code, err) == (0, "")
    cells = [run for run in PatternRegistry("sqlite:///x.db").get_runs() if run["kind"] == "cell"]
    assert {(run["symbol"], *run["params"]["data"]["pooled_with"]) for run in cells} == {("X", "Y"), ("Y", "X")}
    code, _, err = qml("sweep", "mine.py:Mine", "--data", "walk.csv", "--grid", "every=5", "--pooled")
    assert code == 1
    assert "Mine has no PatternMixin, so its symbols have no memory to share" in err


def test_a_shipped_strategy_is_recorded_under_its_symbol(qml, script):
    db = "sqlite:///x.db"
    code, out, _ = qml("sweep", "MovingAverageCross", "--data", "X=walk.csv", "--grid", "fast=3,5", "--set", "slow=12", "--set", "mode=record", "--db", db, *CASH)  # fmt: skip
    assert code == 0
    assert str(Path("x.db.sweeps").absolute()) in out
    runs = PatternRegistry(db).get_runs()
    assert {(run["kind"], run["symbol"], run["status"]) for run in runs} == {
        ("sweep", "X", "finished"), ("cell", "X", "finished"),
    }  # fmt: skip


@pytest.mark.parametrize("name", SHIPPED)
def test_a_search_finds_every_shipped_strategy_by_the_name_that_a_validation_takes(name):
    place, *_ = sweeps._common(name, ["X=walk.csv"], ["n=3"], None, "grid", None, 1)
    assert place == class_path(find_strategy(name))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "walk.csv", "--grid", "evry=3"), "has no parameter 'evry'"),
        (("--data", "none.csv", "--grid", "every=3"), "none.csv cannot be read"),
        (("--data", "A=walk.csv", "--data", "A=walk.csv", "--grid", "every=3"), "names a symbol twice"),
        (("--data", "walk.csv", "--grid", "every=3", "--html", "no/page.html"), "there is no folder no"),
        (("--data", "walk.csv", "--grid", "every=3", "--html", "."), "is a folder. Name a file in it"),
    ],
)
def test_what_is_not_understood_is_refused_in_a_sentence(qml, script, arguments, message):
    code, _, err = qml("sweep", "mine.py:Mine", *arguments)
    assert code == 1
    assert message in err


@pytest.mark.parametrize(
    "arguments",
    [
        ("--grid", "every"),
        ("--grid", "every=3", "--set", "cash"),
        ("--grid", "every=3", "--search", "rnd"),
        ("--grid", "every=3", "--search", "random"),
        ("--grid", "every=3", "--jobs", "0"),
    ],
)
def test_a_value_that_an_option_cannot_have_is_wrong_usage(qml, script, arguments):
    code, out, err = qml("sweep", "mine.py:Mine", "--data", "walk.csv", *arguments)
    assert (code, out) == (2, "")
    assert arguments[-2] in err


def test_a_point_without_a_closed_trade_is_not_chosen_and_the_reason_is_said(qml, script):
    code, out, _ = qml("sweep", "mine.py:Mine", "--data", "walk.csv", "--grid", "every=1000,2000", *CASH)
    assert code == 0
    assert "no trade  2 of 2 points closed no trade and are not chosen\n" in out, "both ways to close were given"
    assert (
        "plateau   none: no point has a value of sharpe_annual: 2 of 2 points finished, and none of them closed" in out
    )


def test_walk_forward_shows_the_first_error(qml, script):
    code, out, _ = qml("walk-forward", "mine.py:Mine", "--data", "walk.csv", "--grid", "every=7", "--train", "60", "--test", "60", "--purge", "5", "--retries", "0", *CASH)  # fmt: skip
    assert code == 1
    assert "The first error: ValueError: not every seventh" in out


def test_walk_forward_prints_a_row_a_window(qml, script):
    code, out, _ = qml("walk-forward", "mine.py:Mine", "--data", "walk.csv", "--grid", "every=3,5", "--train", "60", "--test", "30", "--purge", "5", *CASH, "--html", "w.html")  # fmt: skip
    assert code == 0
    assert "walked forward" in Path("w.html").read_text()
    assert len(pd.read_csv("w.folds.csv")) == 4
    assert len([line for line in out.splitlines() if line.startswith("2020-01-")]) == 4
    assert "out of sample: return" in out
    assert "purge 5 bars" in out


def test_a_termination_ends_in_a_sentence_and_keeps_what_had_finished(qml, script):
    script.write_text(
        SCRIPT.replace('raise ValueError("not every seventh")', "import os; os.kill(os.getpid(), 15); time.sleep(9)")
    )
    before = signal.getsignal(signal.SIGTERM)
    code, out, err = qml("sweep", "mine.py:Mine", "--data", "walk.csv", "--grid", "every=5,6,7,8", *CASH)
    assert (code, out) == (128 + signal.SIGTERM, "")
    assert "stopped. What had finished is kept in" in err
    assert "--resume goes on from there" in err
    assert len(list(Path("results/sweeps").glob("*/cells/*.json"))) == 2
    assert signal.getsignal(signal.SIGTERM) == before


def test_an_interruption_before_any_point_is_recorded(qml, script, monkeypatch):
    start_run = PatternRegistry.start_run

    def interrupted(self, run):
        start_run(self, run)
        raise KeyboardInterrupt

    monkeypatch.setattr(PatternRegistry, "start_run", interrupted)
    db = "sqlite:///x.db"
    code, _, err = qml("sweep", "MovingAverageCross", "--data", "walk.csv", "--grid", "fast=3,5", "--set", "slow=12", "--set", "mode=record", "--db", db, *CASH)  # fmt: skip
    assert (code, "stopped." in err) == (130, True)
    assert [(run["kind"], run["status"]) for run in PatternRegistry(db).get_runs()] == [("sweep", "interrupted")]
