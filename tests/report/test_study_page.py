"""The page of a study: what is left among all, against a slow twin; escaping; cells that wait, run and fail."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from qml_plugin.report.study_page import CellView, StudyView, headline, render_study, write_study
from qml_plugin.studies import overview

EVIL = '<img src=x onerror="alert(1)">&%{x}</script>'


def part(**values):
    return {"status": "done", "error": None, "warned": [], "times": None, **values}


def judged(word, p, **values):
    return part(
        verdict=word, sentence=f"{word} because {EVIL}", p_selection=p, excess_sharpe=0.8, sharpe=0.9, return_frac=0.1, n_trades=40,
        n_trials=4, n_attempts=7, source_sha256="s", data_sha256="d", **values,
    )  # fmt: skip


def searched(**values):
    surface = {"x_name": EVIL, "y_name": "slow", "x_values": [5, 10.25], "y_values": [20], "values": [[0.5, None]]}
    best = {"parameters": {EVIL: 5}, "objective": 0.5, "plateau": 0.4}
    return part(
        objective="sharpe_annual", n_points=2, n_finished=2, n_failed=0, first_error=None, best=best, best_reason=None,
        surface=surface, **values,
    )  # fmt: skip


def manifest(cells):
    return {
        "name": EVIL, "description": EVIL, "file": f"/x/{EVIL}.yaml", "run_id": "0123456789", "registry": "sqlite:///r.db",
        "objective": "sharpe_annual", "false_discovery_rate": 0.05, "is_quick": True, "fees": 0.0005, "seed": 0, "git_hash": None,
        "is_git_dirty": None, "started_at": 1_700_000_000_000_000, "versions": {"numpy": "2"}, "cells": cells,
    }  # fmt: skip


def about(strategy, symbol):
    return {
        "name": f"{strategy}_{symbol}", "strategy": strategy, "symbol": symbol, "timeframe": "1h", "strategy_path": "a:B",
        "source_sha256": "ab" * 32, "data_sha256": "cd" * 32, "n_bars": 100, "first_at": 0, "last_at": 3_600_000_000,
    }  # fmt: skip


def view() -> StudyView:
    """Two strategies on three markets, of which some wait, some failed, and one verdict is alone."""
    records = [
        {"sweep": searched(), "validation": judged("DEPLOY", 0.001)},
        {"sweep": searched(), "validation": judged("DEPLOY", 0.04)},
        {"sweep": searched(), "validation": judged("INSUFFICIENT", None)},
        {"sweep": part(status="failed", error=EVIL), "validation": part(status="failed", error="not run")},
        {"sweep": searched(), "validation": part(status="running")},
        {"sweep": part(status="waiting"), "validation": part(status="waiting")},
    ]
    cells = [about(strategy, symbol) for strategy in ("A", EVIL) for symbol in ("X", "Y", "Z")]
    return overview._view(manifest(cells), records, "running")


def test_among_all_is_what_the_definition_says():
    rng = np.random.default_rng(4)
    p = [*rng.uniform(0, 0.2, 9).round(4).tolist(), None, None]
    records = [{"sweep": searched(), "validation": judged("REJECT", one)} for one in p]
    records.append({"sweep": part(status="failed", error="x"), "validation": part(status="failed", error="x")})
    found = overview._view(manifest([about(f"S{i}", "X") for i in range(len(records))]), records, "failed")
    known = [1.0 if one is None else one for one in p]  # what is not known was tried all the same
    n = len(known)
    for cell, one in zip(found.cells, known, strict=False):
        # the smallest, over all cells at or above it, of n times p over how many are at or below
        q = min(1.0, *(n * other / sum(third <= other for third in known) for other in known if other >= one))
        assert cell.q == pytest.approx(q, abs=1e-12)
        q_any = min(1.0, *(n * sum(1 / k for k in range(1, n + 1)) * other / sum(third <= other for third in known) for other in known if other >= one))  # fmt: skip
        assert cell.q_any == pytest.approx(q_any, abs=1e-12)
        assert cell.is_discovery == (q <= 0.05)
    assert found.n_tried == n
    assert (found.cells[-1].q, found.cells[-1].is_discovery) == (None, None)


def test_a_verdict_that_does_not_hold_among_all_is_shown_as_such():
    page = view()
    assert [cell.is_alone for cell in page.cells] == [False, True, False, False, False, False]
    text = render_study(page)
    assert text.count("DEPLOY alone, not among 3") == 2
    assert "1 of 3 cells say DEPLOY and still do among all." in text
    assert page.counts() == {"DEPLOY": 2, "INSUFFICIENT": 1, "failed": 1, "running": 1, "waiting": 1}
    assert page.n_trials == (7, 12)  # three cells on one series, in this sample


def test_what_comes_from_outside_is_escaped():
    text = render_study(view())
    assert EVIL not in text
    assert "<img src=x" not in text
    assert "&lt;img src=x" in text
    links = re.findall(r'href="(cells/[^"]+)"', text)
    assert links
    assert all(re.fullmatch(r"cells/[\w.%/-]+", link) for link in links), links


def test_the_json_has_every_number_and_times_apart(tmp_path):
    page, numbers = write_study(view(), tmp_path)
    found = json.loads(numbers.read_text())
    assert [cell["q"] for cell in found["cells"]][:3] == pytest.approx([0.003, 0.06, 1.0])
    assert "times" not in found["cells"][0]["sweep"]
    assert set(found["times"]) == {"started_at", "cells"}
    assert page.name == "study.html"


def test_a_sentence_for_every_end():
    def said(*cells):
        return headline(
            overview._view(manifest([about(f"S{i}", "X") for i in range(len(cells))]), list(cells), "finished")
        )

    one = {"sweep": searched(), "validation": judged("REJECT", 0.9)}
    lonely = {"sweep": searched(), "validation": judged("DEPLOY", 0.04)}
    assert said(one) == "No edge was shown in 1 cell."
    assert said(one, one) == "No edge was shown in 2 cells."
    assert said(lonely, one, one) == "1 of 3 cells say DEPLOY, and none does among all."
    assert said({"sweep": searched(), "validation": part(status="waiting")}) == "Nothing has been judged yet."


def test_a_cell_shows_its_state():
    cell = CellView("n", "s", "X", "1h", {}, part(), part(status="waiting"), None, None, None)
    assert (cell.status, cell.verdict, cell.error) == ("searched", None, None)
