from __future__ import annotations

import numpy as np
import pytest

from qml_plugin.gate import gate_trial
from qml_plugin.report.trial_page import render_trial_page, write_trial_page
from tests.gate.test_trial import judged
from tests.report.test_page import EVIL, Document
from tests.report.test_page import test_nothing_is_fetched_from_anywhere as check_nothing_is_fetched


def test_the_verdict_comes_first_and_every_figure_is_there():
    trial = gate_trial(**judged())
    document = Document(render_trial_page(trial, {"strategy": "Cross"}))
    text = " ".join(document.text.split())
    assert text.index("The gate was worth it.") < text.index("WORTH_IT: skipping saved") < text.index("strategy Cross")
    assert text.index("strategy Cross") < text.index("The same entries, three ways") < text.index("PR-AUC")
    assert set(document.charts) == {"cumulative", "reliability", "lift"}
    check_nothing_is_fetched(document)
    lines = {line["name"]: line["y"] for line in document.charts["cumulative"]["data"]}
    assert set(lines) == {"gated", "ungated", "random", "90 % of random gates"}
    assert len(document.charts["reliability"]["data"][1]["customdata"]) == len(trial.reliability.n)


@pytest.mark.parametrize(("n", "charts"), [(5, {"cumulative"}), (104, {"cumulative", "lift"})])
def test_too_few_entries_are_said_to_be_no_result(n, charts):
    trial = gate_trial(**{name: column[:n] for name, column in judged().items()})
    document = Document(render_trial_page(trial))
    assert "Too few entries: this is no result." in document.text
    assert set(document.charts) == charts


def test_no_outcomes_at_all_still_make_a_page():
    trial = gate_trial(["abstain"] * 3, np.full(3, np.nan), np.full(3, np.nan))
    document = Document(render_trial_page(trial))
    assert "No entry has an outcome yet." in document.text
    assert "The gate judged no entry" in document.text
    assert document.charts == {}


def test_names_from_outside_stay_text(tmp_path):
    path = write_trial_page(gate_trial(**judged()), tmp_path / "trial.html", {EVIL: EVIL})
    document = Document(path.read_text())
    assert EVIL in document.text
    check_nothing_is_fetched_but_text(document)


def check_nothing_is_fetched_but_text(document):
    assert not {"a", "iframe"} & {tag for tag, _ in document.tags}
