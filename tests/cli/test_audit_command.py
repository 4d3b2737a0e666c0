"""The command: its exit codes, and what it prints and writes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

SUBJECTS = Path(__file__).parents[1] / "audit" / "subjects.py"


@pytest.fixture
def bars(tmp_path):
    from tests.conftest import random_walk

    path = tmp_path / "walk.csv"
    random_walk(200, 4).to_csv(path, index_label="datetime")
    return path


def test_clean_is_0_a_leak_1_and_what_cannot_be_said_2(qml, bars):
    code, out, _ = qml(
        "audit", f"{SUBJECTS}:Honest", "--data", bars, "--cuts", 3, "--set", "n_bars=12", "--host", "commission=0.001"
    )
    assert code == 0
    assert "clean: " in out
    assert "200 bars of walk.csv" in out
    code, out, _ = qml("audit", f"{SUBJECTS}:Peeks", "--data", bars, "--cuts", 3)
    assert code == 1
    assert "Peeks has seen the future: attribute ahead" in out
    code, out, _ = qml("audit", "tests.audit.subjects:Random", "--data", bars, "--cuts", 2)
    assert code == 2
    assert "nothing can be said about Random" in out


def test_a_function_is_audited_too(qml, bars):
    assert qml("audit", "tests.audit.subjects:centred_cross", "--data", bars, "--cuts", 4)[0] == 1


def test_a_module_of_the_current_folder_is_found(qml, bars, tmp_path, monkeypatch):
    (tmp_path / "strategies_of_mine.py").write_text(SUBJECTS.read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in ("", str(tmp_path))])
    assert qml("audit", "strategies_of_mine:Peeks", "--data", bars, "--cuts", 2)[0] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((f"{SUBJECTS}:Nothing",), "there is no class at"),
        ((f"{SUBJECTS}:Nothing",), "subjects.py has no Nothing; it has Honest, Peeks"),
        ((str(SUBJECTS),), "subjects.py is named; it has Honest, Peeks"),
        (("nofile.py:X",), "there is no file nofile.py"),
        ((f"{SUBJECTS}:Honest", "--host", "exclusive_order=true"), "Did you mean 'exclusive_orders'?"),
        ((f"{SUBJECTS}:Honest", "--set", "n_bar=4"), "Did you mean 'n_bars'?"),
        ((f"{SUBJECTS}:Honest", "--html", "nodir/a.html"), "there is no folder nodir. Create it first."),
        ((f"{SUBJECTS}:Honest", "--data", "none.csv"), "none.csv cannot be read"),
        ((f"{SUBJECTS}:Honest", "--set", "n_bars"), "Write NAME=VALUE, such as --set fast=10"),
        ((), "give a STRATEGY, or --self-test alone"),
        ((f"{SUBJECTS}:Honest", "--self-test"), "give a STRATEGY, or --self-test alone"),
        (("--self-test", "--html", "a.html"), "--self-test takes --data, --cuts, --seed and --json only"),
    ],
)
def test_what_is_refused_is_2_with_the_reason(qml, arguments, said):
    code, _, err = qml("audit", *arguments)
    assert code == 2
    assert said in " ".join(err.replace("│", " ").split())


def test_the_page_and_the_json_hold_the_findings(qml, bars, tmp_path):
    page, data = tmp_path / "audit.html", tmp_path / "audit.json"
    qml("audit", f"{SUBJECTS}:Peeks", "--data", bars, "--cuts", 3, "--html", page, "--json", data)
    found = json.loads(data.read_text())
    assert (found["verdict"], found["exit_code"], found["findings"][0]["name"]) == ("leak", 1, "ahead")
    assert found["findings"][0]["text"] in page.read_text()
    code, out, _ = qml("audit", f"{SUBJECTS}:Peeks", "--data", bars, "--cuts", 3, "--json", "-")
    assert code == 1
    assert json.loads(out)["findings"] == found["findings"]
    code, _, err = qml("audit", f"{SUBJECTS}:Peeks", "--data", bars, "--cuts", 2, "--html", tmp_path / "no" / "a.html")
    assert code == 2
    assert "there is no folder" in err
    assert "Create it first." in err


def test_the_self_test_says_how_many_it_caught(qml, bars, tmp_path, monkeypatch):
    import qml_plugin.audit.proving as proving

    monkeypatch.setattr(proving, "PLACES", ("indicator",))
    data = tmp_path / "self.json"
    code, out, _ = qml("audit", "--self-test", "--data", bars, "--cuts", 1, "--json", data)
    assert code == 0, out
    assert "indicator: 10 of 10 planted leaks caught, 0 of 10 honest twins accused" in out
    assert json.loads(data.read_text())["missed"] == []
