"""`qml decisions`: what a run decided, and why one decision was made, as text, JSON and a page."""

from __future__ import annotations

import pytest

from qml_plugin.registry import PatternRegistry
from tests.cli.test_commands import is_refused, strict
from tests.registry.registry_samples import execute
from tests.report.test_page import EVIL, Document


@pytest.fixture
def run_id(url):
    return PatternRegistry(url).get_runs()[0]["run_id"]


@pytest.fixture
def scored(database):
    """The last decision that has a confidence, as if logistic regression had spoken."""
    query = (
        "SELECT pattern_id FROM run_decisions JOIN ml_pattern_registry USING (pattern_id) WHERE confidence IS NOT NULL "
        "AND bucket_json IS NOT NULL ORDER BY detection_time DESC LIMIT 1"
    )
    pattern_id = execute(database, query)[0][0]
    weighed = '{"mom_rsi_14": -0.25, "vol_atr_14": 0.125}'
    execute(
        database,
        "UPDATE run_decisions SET model = 'logistic', contributions_json = ? WHERE pattern_id = ?",
        (weighed, pattern_id),
    )
    return pattern_id


def test_a_run_keeps_the_interval_and_the_bucket_of_its_decisions(url, run_id, scored):
    decision = PatternRegistry(url).get_decision(run_id[:8], scored[:12])
    assert decision.pattern_id == scored
    assert 0 <= decision.low <= decision.confidence <= decision.high <= 1
    assert decision.bucket.low <= decision.bucket.high
    assert len(decision.neighbours) == 10
    assert decision.contributions == (("mom_rsi_14", -0.25), ("vol_atr_14", 0.125))


def test_the_list_is_a_line_a_decision(qml, url, run_id):
    code, out, err = qml("decisions", run_id[:8], "--db", url, "-n", 5)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split()[:4] == ["when", "side", "action", "P(win)"]
    assert len(lines) == 7
    assert lines[-1].startswith("and ")
    listed = strict(qml("decisions", run_id, "--db", url, "--json", "-n", 10_000)[1])
    assert len(listed) == len(PatternRegistry(url).get_decisions(run_id))
    assert [row["detection_time"] for row in listed] == sorted((r["detection_time"] for r in listed), reverse=True)
    abstained = strict(qml("decisions", run_id, "--db", url, "--json", "--action", "abstain", "-n", 10_000)[1])
    assert abstained == [row for row in listed if row["action"] == "abstain"]
    assert qml("decisions", run_id, "--db", url, "--action", "skip")[1].startswith("The run decided nothing")


def test_one_decision_is_explained_in_text_and_data(qml, url, run_id, scored):
    decision = PatternRegistry(url).get_decision(run_id, scored)
    code, out, err = qml("decisions", run_id, scored, "--db", url)
    assert (code, err) == (0, "")
    text = " ".join(out.split())
    assert f"P(win) {decision.confidence:.3f}, {decision.low:.3f} to {decision.high:.3f}; base rate" in text
    assert f"of {decision.bucket.n} past entries with P(win)" in text
    assert "nearest past patterns" in text
    assert "log-odds added: mom_rsi_14 -0.250, vol_atr_14 +0.125" in text
    assert "What became of it, not known then: a " in text
    assert out.count("GOOG 1d") == 1
    assert out.count("MovingAverageCross") == 11
    data = strict(qml("decisions", run_id, scored, "--db", url, "--json")[1])
    assert data == {"run_id": run_id} | decision.explain().data


def test_the_page_shows_interval_bucket_neighbours_and_contributions(qml, url, run_id, scored, tmp_path):
    code, out, err = qml("decisions", run_id, scored, "--db", url, "--html", tmp_path / "why.html")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == f"page  {tmp_path / 'why.html'}"
    document = Document((tmp_path / "why.html").read_text())
    text = " ".join(document.text.split())
    decision = PatternRegistry(url).get_decision(run_id, scored)
    assert f"({90}\u202f% interval {100 * decision.low:.1f}\u202f% to {100 * decision.high:.1f}\u202f%)".replace(
        "\u202f", " "
    ) in text.replace("\u202f", " ")
    assert f"Of {decision.bucket.n} past entries with a confidence of" in text
    assert set(document.charts) == {"candles-1", "contributions-1"}
    bars = document.charts["contributions-1"]["data"][0]
    assert dict(zip(bars["y"], bars["x"], strict=True)) == pytest.approx(dict(decision.contributions))
    assert text.count("MovingAverageCross") >= 10


def test_a_decision_from_before_the_interval_was_kept_is_still_explained(qml, url, database, run_id, scored, tmp_path):
    execute(database, "UPDATE run_decisions SET confidence_low = NULL, confidence_high = NULL, bucket_json = NULL")
    execute(database, "UPDATE run_decisions SET reason = ?", (EVIL,))
    code, out, _ = qml("decisions", run_id, scored, "--db", url, "--html", tmp_path / "why.html")
    assert code == 0
    assert "P(win) " in out
    document = Document((tmp_path / "why.html").read_text())
    assert "<script>alert(1)</script>" in document.text
    assert not {"a"} & {tag for tag, _ in document.tags}


def test_what_cannot_be_explained_is_refused(qml, url, run_id, scored, tmp_path):
    assert is_refused(qml("decisions", run_id, "nothing", "--db", url), 1, "decided no pattern 'nothing'")
    assert is_refused(qml("decisions", "nothing", scored, "--db", url), 1, "is not in")
    missing = tmp_path / "no" / "x.html"
    assert is_refused(qml("decisions", run_id, scored, "--db", url, "--html", missing), 1, "cannot be written")
    assert qml("decisions", run_id, "--db", url, "--html", tmp_path / "x.html")[0] == 2
    assert qml("decisions", run_id, "--db", url, "--action", "perhaps")[0] == 2
