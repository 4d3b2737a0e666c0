"""``qml study``: exit codes, what is said, and what an interrupt leaves."""

from __future__ import annotations

import json
import signal

import pytest

from tests.conftest import random_walk

STUDY = """
strategies:
  - strategy: every.py:Every
    grid: {n_bars: [6, 10]}
markets:
  - {symbol: AAA, timeframe: 1h, file: aaa.csv}
validation: {quick: true, windows: 2, draws: 19, paths: 100}
"""
EVERY = """
from backtesting import Strategy

class Every(Strategy):
    n_bars = 8

    def init(self):
        pass

    def next(self):
        if len(self.data) % self.n_bars == 0:
            self.position.close() if self.position else self.buy()
"""


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random_walk(260, 1).to_csv("aaa.csv", index_label="time")
    (tmp_path / "every.py").write_text(EVERY)
    (tmp_path / "my.yaml").write_text(STUDY)
    return tmp_path


def test_from_nothing_to_a_page(study, qml):
    db = ("--db", f"sqlite:///{study}/r.db")
    code, out, _ = qml("study", "status", "my.yaml")
    assert code == 0
    assert "study     my, not begun: 1 waiting" in out
    code, out, err = qml("study", "run", "my.yaml", *db)
    assert code == 0, err
    assert f"page      {study}/results/studies/my/study.html" in out
    assert (study / "results/studies/my/study.html").exists()
    code, out, _ = qml("study", "status", "my.yaml", "--json")
    found = json.loads(out)
    assert (found["status"], found["cells"][0]["status"], found["n_tried"]) == ("finished", "done", 1)
    code, _, err = qml("study", "run", "my.yaml", *db)
    assert code == 1
    assert "Go on with it: qml study resume my.yaml; or begin again with --afresh" in err
    code, out, _ = qml("study", "resume", "my.yaml", *db)
    assert (code, "kept      2 parts from before, 0 run now" in out) == (0, True)

    # The file has changed: what it still asks for is kept.
    (study / "my.yaml").write_text(STUDY.replace("[6, 10]", "[6, 0]"))
    code, out, _ = qml("study", "resume", "my.yaml", *db)
    assert code == 1
    assert "0 cells failed, and 1 points of searches; they count as not tested" in out
    assert "ZeroDivisionError" in (study / "results/studies/my/study.html").read_text()
    code, out, _ = qml("study", "run", "my.yaml", "--afresh", *db)
    assert code == 1
    assert f"before    {study}/results/studies/my.before-1" in out


def test_ctrl_c_keeps_what_has_finished_and_says_how_to_go_on(study, qml, monkeypatch):
    from qml_plugin.studies import course

    real = course._finish

    def finish(*arguments):
        real(*arguments)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(course, "_finish", finish)
    db = ("--db", f"sqlite:///{study}/r.db")
    code, _, err = qml("study", "run", "my.yaml", *db)
    assert code == 130
    assert "stopped. What had finished is kept in" in err
    assert "qml study resume my.yaml goes on from there" in err
    monkeypatch.undo()
    monkeypatch.chdir(study)
    code, out, _ = qml("study", "status", "my.yaml")
    assert "study     my, interrupted: 1 searched" in out
    code, out, _ = qml("study", "report", "my.yaml")
    assert (code, "Nothing has been judged yet." in out) == (0, True)
    code, out, _ = qml("study", "resume", "my.yaml", *db)
    assert (code, "kept      1 parts from before, 1 run now" in out) == (0, True)


def test_a_new_study_is_written_once(study, qml):
    code, out, _ = qml("study", "new", "first.yaml")
    assert (code, "next      qml study run first.yaml" in out) == (0, True)
    code, _, err = qml("study", "new", "first.yaml")
    assert (code, "first.yaml is there already" in err) == (1, True)
    code, out, _ = qml("study", "status", "first.yaml")
    assert (code, "study     first, not begun: 4 waiting" in out) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "quick"], 1, "`qml study new quick` writes one to begin with"),
        (["run", "my.yaml", "--jobs", "0"], 2, "--jobs is 0"),
        (["status", "aaa.csv"], 1, "aaa.csv: the file is"),
    ],
)
def test_what_is_refused_says_so(study, qml, arguments, code, message):
    found, _, err = qml("study", *arguments)
    assert found == code
    assert message in " ".join(err.replace("│", " ").split())
    assert not (study / "results").exists()


def test_help_teaches(qml):
    code, out, _ = qml("study", "--help")
    assert code == 0
    for word in ("strategies:", "markets:", "qml study new my.yaml", "resume"):
        assert word in out
