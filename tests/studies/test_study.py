"""A study that is run, killed and gone on with, that meets failing strategies and dying workers, and is looked at meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from qml_plugin import PatternRegistry
from qml_plugin.errors import DataError
from qml_plugin.report.study_page import render_study, write_study
from qml_plugin.studies import read_description, run_study, study_page
from qml_plugin.studies.folder import StudyFolder
from qml_plugin.sweeps.loky_workers import LokyWorker
from tests.studies.conftest import TINY

ROOT = Path(__file__).parents[2]
CELLS = ["Momentum_AAA_1h", "Every_AAA_1h"]


@pytest.fixture(scope="module", autouse=True)
def _workers_end_with_the_file():
    yield
    LokyWorker.end_idle()


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """The study without interruption: its place, its outcome, and its page."""
    place = tmp_path_factory.mktemp("whole")
    study = read_description(tiny)
    outcome = run_study(study, place / "study", registry=f"sqlite:///{place}/r.db")
    return place, outcome, study_page(study, place / "study")


def numbers(view, place):
    """All numbers of a study but times, wherever it was run."""
    found = view.as_dict()
    del found["times"]
    return json.loads(json.dumps(found).replace(str(place), "PLACE"))


def shown(view, place):
    """Its page but for the line of the time."""
    lines = render_study(view).replace(str(place), "PLACE").splitlines()
    return [line for line in lines if "<dt>Begun</dt>" not in line]


def test_every_cell_is_searched_and_judged(whole):
    place, outcome, view = whole
    assert (outcome.n_run, outcome.n_kept, outcome.is_whole) == (4, 0, True)
    assert [cell.name for cell in view.cells] == CELLS
    assert view.status == "finished"
    assert all(cell.verdict in ("DEPLOY", "CAUTION", "REJECT", "INSUFFICIENT") for cell in view.cells)
    for cell in view.cells:
        assert cell.sweep["n_finished"] == 2
        assert cell.sweep["surface"]["x_name"] == "n_bars"
        assert (place / "study" / "cells" / cell.name / "dossier.html").stat().st_size > 1_000_000
        assert len((place / "study" / "cells" / cell.name / "sweep.csv").read_text().splitlines()) == 3


def test_the_trials_of_search_and_validation_are_one_attempt(whole):
    place, _, view = whole
    assert [cell.validation["n_attempts"] for cell in view.cells] == [2, 2]
    assert view.n_trials == (4, 4)
    registry = PatternRegistry(f"sqlite:///{place}/r.db")
    (study,) = [run for run in registry.get_runs(1000) if run["kind"] == "study"]
    assert (study["run_id"], study["status"]) == (view.manifest["run_id"], "finished")
    sweeps = [run for run in registry.get_runs(1000) if run["parent_run_id"] == study["run_id"]]
    assert [run["kind"] for run in sweeps] == ["sweep"]  # that of the strategy that has a memory
    assert registry.n_trials("tiny", study["data_hash"]) == 0


SCRIPT = """
import sys
from qml_plugin.studies import read_description, run_study
if __name__ == "__main__":
    study, place = read_description(sys.argv[1]), sys.argv[2]
    tell = lambda done, total, text: print(done, text, flush=True)
    run_study(study, f"{place}/study", registry=f"sqlite:///{place}/r.db", progress=tell)
"""


def test_a_killed_study_that_is_gone_on_with_equals_one_that_was_not(tiny, whole, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tiny), str(tmp_path)], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), "TQDM_DISABLE": "1"},
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    study, folder = read_description(tiny), tmp_path / "study"
    url = f"sqlite:///{tmp_path}/r.db"
    line = ""
    while not line.startswith("2 Momentum AAA 1h validation walk"):
        line = process.stdout.readline()
        assert line, "it ended before it was killed"
    process.send_signal(signal.SIGSTOP)
    view = study_page(study, folder)
    assert (view.status, view.cells[0].status, view.cells[1].status) == ("running", "running", "searched")
    with pytest.raises(DataError, match=rf"process {process.pid} is at this study"):
        run_study(study, folder, registry=url, resume=True)
    kept = StudyFolder(folder)
    with pytest.raises(DataError, match=rf"process {process.pid} is at this study"):
        kept.claim(kept.read_manifest())  # as one would that had looked a moment before
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    view = study_page(study, folder)
    assert (view.status, view.cells[0].status) == ("interrupted", "searched")
    assert "The study is interrupted: 2 searched." in render_study(view)
    with pytest.raises(DataError, match=r"the study tiny was begun in .*Go on with it: qml study resume tiny\.yaml"):
        run_study(study, folder, registry=url)
    with pytest.raises(DataError, match=r"the study began with the registry .*r\.db, and this is .*other\.db"):
        run_study(study, folder, registry=f"sqlite:///{tmp_path}/other.db", resume=True)
    outcome = run_study(study, folder, registry=url, resume=True)
    assert (outcome.n_kept, outcome.n_run) == (2, 2)
    resumed = study_page(study, folder)
    assert numbers(resumed, tmp_path) == numbers(whole[2], whole[0])
    assert shown(resumed, tmp_path) == shown(whole[2], whole[0])
    assert run_study(study, folder, registry=url, resume=True).n_run == 0


@pytest.fixture
def short(folder, tiny):
    """A study without a memory: the same class twice, of which one fails while the flag is there."""
    file = folder / "short.yaml"
    text = TINY.format(flag=folder / "flag", mode="record")
    file.write_text(text.replace("rules.py:Momentum", "rules.py:Every\n    name: Fine"))
    yield read_description(file)
    (folder / "flag").unlink(missing_ok=True)


def test_workers_that_die_and_strategies_that_raise_cost_their_own_cells_and_are_tried_again(folder, short, tmp_path):
    flag, place, about = folder / "flag", tmp_path / "study", {"registry": f"sqlite:///{tmp_path}/r.db"}
    flag.write_text("kill")
    outcome = run_study(short, place, n_jobs=2, **about)
    assert set(outcome.failed) == {"Every_AAA_1h"}
    assert outcome.failed["Every_AAA_1h"].startswith("WorkerDied: its process was ended (SIGKILL")
    view = study_page(short, place)
    assert (view.status, [cell.status for cell in view.cells], view.n_tried) == ("failed", ["done", "failed"], 1)
    assert view.cells[1].validation["error"] == "not run: the search of this cell failed"
    # One class on one series: each validation counts the different trials of both grids, in whatever order they run.
    assert view.cells[0].validation["n_attempts"] == 4

    flag.write_text("raise")
    outcome = run_study(short, place, resume=True, **about)
    error = "QmlError: no point of the search finished; the first: RuntimeError: the flag is <up>"
    assert outcome.failed == {"Every_AAA_1h": error}
    page, _ = write_study(study_page(short, place), place)
    assert "the flag is &lt;up&gt;" in page.read_text()
    assert "<up>" not in page.read_text()

    flag.unlink()
    outcome = run_study(short, place, resume=True, **about)
    assert outcome.is_whole
    cells = study_page(short, place).cells
    assert [cell.status for cell in cells] == ["done", "done"]
    assert [cell.validation["n_attempts"] for cell in cells] == [4, 4]


def test_bars_of_another_length_and_registries_that_vanish_are_refused_before_anything_runs(folder, tiny, tmp_path):
    file = folder / "wrong.yaml"
    file.write_text(tiny.read_text().replace("timeframe: 1h", "timeframe: 30m"))
    with pytest.raises(
        DataError, match=r"wrong\.yaml: markets\[0\], AAA 30m, is refused: its bars are 1h long, not 30m"
    ):
        run_study(read_description(file), tmp_path / "study", registry=f"sqlite:///{tmp_path}/r.db")
    with pytest.raises(DataError, match=r"the registry 'sqlite://' lives in the memory of one process"):
        run_study(read_description(tiny), tmp_path / "study", registry="sqlite://")
    assert not (tmp_path / "study").exists()


def test_a_study_that_has_not_begun_has_a_page(tiny, tmp_path):
    view = study_page(read_description(tiny), tmp_path / "study")
    assert view.status == "waiting"
    assert view.counts() == {"waiting": 2}
    assert "Nothing has been judged yet." in render_study(view)
    assert not (tmp_path / "study").exists()
