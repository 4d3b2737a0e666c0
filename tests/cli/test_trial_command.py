"""`qml trial`: a verdict on a recorded run, as text, as JSON and as a page."""

from __future__ import annotations

import pytest

from qml_plugin.registry import PatternRegistry
from tests.cli.test_commands import is_refused, strict
from tests.registry.registry_samples import execute
from tests.report.test_page import Document


@pytest.fixture
def run_id(url):
    return PatternRegistry(url).get_runs()[0]["run_id"]


def judge_all(database, wins, losses):
    """Write into the record that the gate had judged: entries that won by one reason, those that lost by another."""
    for outcome, reason in (("win", wins), ("loss", losses)):
        execute(
            database,
            "UPDATE run_decisions SET action = 'take', reason = ?, confidence = ? WHERE pattern_id IN "
            "(SELECT pattern_id FROM ml_pattern_registry WHERE barrier_outcome = ?)",
            (reason, 0.3 if reason.startswith("would") else 0.6, outcome),
        )


def test_a_gate_that_did_not_speak_is_no_result(qml, url, run_id, tmp_path):
    code, out, err = qml("trial", run_id[:8], "--db", url, "--html", tmp_path / "trial.html")
    assert (code, err) == (0, "")
    assert out.startswith("TOO_FEW: 0 judged entries")
    assert f"page  {tmp_path / 'trial.html'}" in out
    text = " ".join(Document((tmp_path / "trial.html").read_text()).text.split())
    assert "Too few entries: this is no result." in text
    assert "strategy MovingAverageCross · market GOOG 1d · mode shadow" in text


@pytest.mark.parametrize(("right", "verdict"), [(True, "WORTH_IT"), (False, "HARMFUL")])
def test_a_gate_that_spoke_gets_a_verdict(qml, url, database, run_id, right, verdict):
    reasons = ("confident: 0.600 >= 0.400", "would_skip: 0.300 < 0.400")
    judge_all(database, *(reasons if right else reasons[::-1]))
    code, out, err = qml("trial", run_id, "--db", url, "--permutations", 200)
    assert (code, err) == (0, "")
    assert out.startswith(f"{verdict}: skipping saved ")
    assert "of the trades" in out
    code, out, err = qml("trial", run_id, "--db", url, "--permutations", 200, "--json")
    data = strict(out)
    assert (data["verdict"], data["run_id"], err) == (verdict, run_id, "")
    assert data["saved_r"] == pytest.approx(data["gated"]["total_r"] - data["ungated"]["total_r"])


def test_the_latest_run_is_known_by_that_word_and_a_failed_one_is_called_so(qml, url, database, run_id):
    execute(database, "UPDATE experiments SET status = 'failed', error = 'KeyError: x' WHERE run_id = ?", (run_id,))
    for command in ("trial", "decisions"):
        code, out, err = qml(command, "latest", "--db", url)
        assert (code, err) == (0, f"run {run_id[:8]} is failed: KeyError: x\n")
        assert out == qml(command, run_id, "--db", url)[1]


def test_what_cannot_be_tried_is_refused(qml, url, database, run_id, tmp_path):
    assert is_refused(qml("trial", "nothing", "--db", url), 1, "is not in")
    assert is_refused(qml("trial", run_id, "--db", url, "--html", tmp_path / "no" / "x.html"), 1, "cannot be written")
    execute(database, "UPDATE run_decisions SET reason = 'record_only'")
    assert is_refused(qml("trial", run_id, "--db", url), 1, "mode 'record'")
