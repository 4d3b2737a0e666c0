"""The pages of a sweep and of a walk-forward, each made once: as text, and in a real browser."""

import base64
import json
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from qml_plugin import sweep, walk_forward
from qml_plugin.errors import DataError
from qml_plugin.report import sweep_figures as draw
from qml_plugin.report import sweep_page
from qml_plugin.report.sweep_page import render_sweep_page, write_sweep_page
from qml_plugin.report.walk_forward_page import write_walk_forward_page
from qml_plugin.vrd.sensitivity import PickingCost
from tests.conftest import random_walk
from tests.report.test_dossier import EARLY, LATE
from tests.report.test_page import EVIL, Document
from tests.report.test_page import test_nothing_is_fetched_from_anywhere as check_nothing_is_fetched
from tests.sweeps.conftest import HOST
from tests.sweeps.troubled import Plain

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


class Needle(Plain):
    """Pays at one place by luck, and well all around another; what fails is called by a name that is markup."""

    note = ""

    def init(self):
        if self.fast == 6 and self.slow == 8:
            raise ValueError(EVIL)
        super().init()


def by_hand(stats):
    """An objective with a needle at fast=2, slow=14 and a plateau around fast=4, slow=8."""
    fast, slow = stats["_strategy"].fast, stats["_strategy"].slow
    return 3.0 if (fast, slow) == (2, 14) else 2.0 - abs(fast - 4) / 10 - abs(slow - 8) / 20 if slow < 12 else -1.0


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    grid = {"fast": [2, 3, 4, 5, 6], "slow": [8, 10, 12, 14], "note": [EVIL]}
    return sweep(
        Needle, {EVIL: random_walk(160, 5)}, grid, objective=by_hand, retries=0, folder=tmp_path_factory.mktemp("swept"),
        progress=False, **HOST,
    )  # fmt: skip


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    return walk_forward(
        Plain, random_walk(420, 8), {"fast": [2, 3, 4], "slow": [6, 9]}, train=120, test=100,
        folder=tmp_path_factory.mktemp("walked"), progress=False, **HOST,
    )  # fmt: skip


@pytest.fixture(scope="module")
def pages(swept, walked, tmp_path_factory):
    place = tmp_path_factory.mktemp("pages")
    return {
        "sweep": write_sweep_page(swept, place / "s.html"),
        "walk": write_walk_forward_page(walked, place / "w.html"),
    }


def numbers(packed):
    """An array as the chart carries it."""
    if not isinstance(packed, dict):
        return np.array(packed, float)
    flat = np.frombuffer(base64.b64decode(packed["bdata"]), packed["dtype"])
    return flat.reshape([int(n) for n in packed["shape"].split(",")]) if "shape" in packed else flat


def words(document):
    return " ".join(document.text.split())


def test_the_plateau_comes_first_and_why_it_is_not_the_highest(swept, pages):
    text = words(Document(pages["sweep"][0].read_text()))
    order = [
        "Go on with the plateau: fast 4, slow 8", "The highest single point is fast 2, slow 14", "+3.000, but a quarter of the points around it do worse than",
        "Price of picking", "19 of 20 points were tested; 1 failed and counts as not tested", "What was searched", "All points", "What went wrong", "Fingerprints",
    ]  # fmt: skip
    assert [text.index(part) for part in order] == sorted(text.index(part) for part in order)
    assert swept.run_id in text
    assert "by_hand" in text


def test_what_earns_nothing_is_not_recommended_and_no_share_is_more_than_all(swept, monkeypatch):
    poor = swept.table.assign(objective=swept.table["objective"] - 10)
    cost = PickingCost(1.0, -0.48, 1.48, np.full(19, 1 / 19), 200, 5.0)
    monkeypatch.setattr(sweep_page, "_picking", lambda *_: (cost, ""))
    text = words(Document(render_sweep_page(replace(swept, table=poor, objective="sharpe_annual"))))
    assert "Nothing here is worth going on with. The plateau, fast 4, slow 8, note" in text
    assert ", earns nothing: sharpe_annual −8.000; a quarter" in text
    assert "Go on with" not in text
    assert "the best of 19 points that traded" in text
    assert ": more than all of it is owed to having been picked. The host compounds its own" in text


def test_the_map_has_every_place_the_ring_the_diamond_and_the_cross(swept, pages):
    document = Document(pages["sweep"][0].read_text())
    assert set(document.charts) == {"map-1", "objective", "equity"}
    heat, *others = document.charts["map-1"]["data"]
    assert (heat["x"], heat["y"]) == (["8", "10", "12", "14"], ["2", "3", "4", "5", "6"])
    z = numbers(heat["z"])
    assert z.shape == (5, 4)
    assert np.isnan(z[4][0])
    places = {one["name"]: (one["x"], one["y"]) for one in others}
    assert places == {"failed": (["8"], ["6"]), "plateau": (["8"], ["4"]), "highest": (["14"], ["2"])}
    assert z[2][0] == swept.surface("fast", "slow").loc[4, 8] == 2.0


def test_names_from_outside_stay_text_and_nothing_is_fetched(pages):
    html = pages["sweep"][0].read_text()
    document = Document(html)
    assert "<script>alert" not in html
    assert document.text.count("<script>alert(1)</script>") >= 4
    assert not any(tag == "a" for tag, _ in document.tags)
    for drawn in document.charts.values():
        assert "<script" not in json.dumps(drawn)
    check_nothing_is_fetched(Document(pages["walk"][0].read_text()))


def test_the_table_beside_it_has_every_point_with_its_error(swept, pages):
    beside = pd.read_csv(pages["sweep"][1])
    assert pages["sweep"][1].name == "s.points.csv"
    assert list(beside["run_id"]) == list(swept.table["run_id"])
    assert beside["error"].notna().sum() == 1


def test_a_walk_shows_each_window_its_choice_and_what_came_of_it(walked, pages):
    document = Document(pages["walk"][0].read_text())
    text = words(document)
    assert text.index("Out of sample:") < text.index("sharpe_annual was") < text.index("values were chosen, ")
    assert set(document.charts) == {"equity", "drawdown", "samples", "choice-1", "choice-2"}
    before, after = document.charts["samples"]["data"]
    assert len(numbers(before["x"])) == len(numbers(after["x"])) == len(walked.folds)
    chosen = [str(value) for value in walked.folds["fast"]]
    assert document.charts["choice-1"]["data"][0]["y"] == chosen
    assert document.charts["choice-1"]["layout"]["yaxis"]["categoryarray"] == ["2", "3", "4"]
    assert len(document.charts["equity"]["layout"]["shapes"]) == len(walked.folds) // 2
    folds, equity = (pd.read_csv(file) for file in pages["walk"][1:])
    assert list(folds["test_start"]) == list(walked.folds["test_start"])
    assert list(equity["Equity"]) == list(walked.equity)


def test_one_parameter_is_a_line_and_nothing_to_choose_says_why(tmp_path):
    about = {"folder": tmp_path, "progress": False, "retries": 0, **HOST}
    bars = random_walk(160, 5)
    line = Document(render_sweep_page(sweep(Needle, bars, {"fast": [3, 4, 6]}, **about)))
    assert [one["name"] for one in line.charts["profile"]["data"]][:2] == ["sharpe_annual", "failed"]
    assert line.charts["profile"]["data"][0]["x"] == [3, 4, 6]
    nothing = Document(render_sweep_page(sweep(Needle, bars, {"trouble": ["raise"]}, **about)))
    assert nothing.charts == {}
    assert "There is no plateau to go on with. no point has a value of sharpe_annual: 0 of 1 points" in words(nothing)
    gone = sweep(Needle, bars, {"fast": [3, 5]}, **about)
    shutil.rmtree(gone.folder)
    with pytest.raises(DataError, match="holds no search any more"):
        render_sweep_page(gone)


def test_several_symbols_are_named_and_taken_together(tmp_path, monkeypatch):
    data = {"A": random_walk(160, 1), "B": random_walk(200, 2)}
    result = sweep(Plain, data, {"fast": [3, 4], "slow": [8, 9]}, folder=tmp_path, progress=False, **HOST)
    document = Document(render_sweep_page(result))
    assert "Plain on A, B" in document.text
    monkeypatch.setattr(sweep_page, "_MOST_ROWS", 3)
    cut = render_sweep_page(result, table_name="all.csv")
    assert "The 3 highest of 8 points; all are in all.csv" in words(Document(cut))
    assert cut.count("<tr><td>A</td>") + cut.count("<tr><td>B</td>") == 3
    assert len(numbers(document.charts["equity"]["data"][0]["x"])) == 200
    assert numbers(document.charts["map-1"]["data"][0]["z"])[0][0] == result.table["objective"].iloc[[0, 4]].mean()


def test_colours_turn_at_zero_and_labels_never_coincide():
    assert draw._colours(np.array([[-1.0, 2.0]]))["zmin"] == -2.0
    assert draw._colours(np.array([[1.0, 2.0]]))["colorscale"][1][1] == draw.BLUE
    assert draw._colours(np.array([[-3.0, -2.0]]))["colorscale"][0][1] == draw.ORANGE
    assert draw._colours(np.full((2, 2), np.nan))["zmin"] < 0
    assert draw.labels([0.100001, 0.100002]) == ["0.100001", "0.100002"]
    assert draw.labels([0.1, 0.30000000000000004, "<b>"]) == ["0.1", "0.3", "&lt;b&gt;"]


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
@pytest.mark.parametrize(("name", "table"), [("sweep", "#all-part"), ("walk", "#windows-part")])
def test_a_browser_draws_it_on_a_narrow_page_sorts_its_table_and_asks_for_nothing(pages, tmp_path, name, table):
    html = pages[name][0].read_text()
    late = LATE.replace("#parameters table", f"{table} table")
    page = tmp_path / "page.html"
    page.write_text(html.replace('<meta name="viewport"', EARLY + '<meta name="viewport"', 1).replace("</body>", late + "</body>", 1))  # fmt: skip
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=10000",
        "--window-size=500,1000", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    drawn = len(re.findall(r'<div[^>]*class="[^"]*\bjs-plotly-plot\b', done.stdout))
    assert drawn == len(re.findall(r'<div[^>]*class="[^"]*\bchart\b', html)) >= 3
    (body,) = re.findall(r"<body[^>]*>", done.stdout)
    assert 'data-wrong=""' in body
    assert 'data-fetched="0"' in body
    assert 'data-overflow="0"' in body
    sorted_up, sorted_down, direction = re.search(r'data-sorted="([^"]*)"', body)[1].split(" / ")
    values = [float(text) for text in sorted_up.split("|")]
    assert values == sorted(values)
    assert [float(text) for text in sorted_down.split("|")] == values[::-1]
    assert direction == "descending"
