"""The dossier of one small validation, made once: as text, and in a real browser."""

import json
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from qml_plugin.report.dossier import render_dossier, write_dossier
from qml_plugin.report.dossier_figures import drawdown, fan_figure, thinned
from qml_plugin.vrd import Plan
from qml_plugin.vrd.gates import GATES
from qml_plugin.vrd.strategies import validate_strategy, validate_trades
from strategies.moving_average import MovingAverageCross
from tests.conftest import random_walk
from tests.report.test_page import Document

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
SYMBOL = "<script>alert(1)</script>%{y}"
PLAN = Plan(n_windows=4, n_draws=99, n_paths=200, n_cuts=2, is_importance=False)
# Before anything else runs: what goes wrong is written on the page. After all: a table is sorted, and what it shows too.
EARLY = """<script>window.qml = [];
["error", "warn"].forEach(function (kind) { console[kind] = function (text) { window.qml.push(kind + ": " + text); }; });
window.addEventListener("error", function (event) { window.qml.push("error: " + event.message); });
document.addEventListener("securitypolicyviolation", function (event) { window.qml.push("blocked: " + event.blockedURI); });
</script>"""
LATE = """<script>window.addEventListener("load", function () {
  var table = document.querySelector("#parameters table.sortable"), said = [];
  function column(i) { return Array.prototype.map.call(table.tBodies[0].rows, function (row) { return row.cells[i].textContent; }).join("|"); }
  var buttons = table.querySelectorAll("th button");
  buttons[0].click(); said.push(column(0)); buttons[0].click(); said.push(column(0)); said.push(table.tHead.rows[0].cells[0].getAttribute("aria-sort"));
  document.body.setAttribute("data-sorted", said.join(" / "));
  document.body.setAttribute("data-wrong", window.qml.join("; "));
  document.body.setAttribute("data-fetched", performance.getEntriesByType("resource").length);
  document.body.setAttribute("data-overflow", document.documentElement.scrollWidth - document.documentElement.clientWidth);
});</script>"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    place = tmp_path_factory.mktemp("vrd")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TQDM_DISABLE", "1")
        return validate_strategy(
            MovingAverageCross, random_walk(900, 4), symbol=SYMBOL, grid={"fast": [5, 10, 9], "slow": [20, 30]},
            registry=f"sqlite:///{place}/r.db", plan=PLAN,
        )  # fmt: skip


@pytest.fixture(scope="module")
def written(found, tmp_path_factory):
    return write_dossier(found, tmp_path_factory.mktemp("dossier") / "made")


@pytest.fixture(scope="module")
def document(written):
    return Document(written[0].read_text())


def test_the_verdict_comes_first_and_then_the_gates(found, document):
    text = " ".join(document.text.split())
    verdict = found.validation.verdict
    head, rest = text.split("Eight gates", 1)
    order = [verdict.word, verdict.sentence, "This is attempt 6."]
    assert [head.index(part) for part in order] == sorted(head.index(part) for part in order)
    places = [rest.index(gate.reason) for gate in found.validation.gates]
    assert places == sorted(places)
    for name in GATES:
        assert name in text
    for heading in (
        "Could it be luck?",
        "How bad can it get?",
        "In which markets",
        "Attempts",
        "Fingerprints",
        "Glossary",
    ):
        assert rest.index(heading) > places[-1]
    assert found.source_sha256 in text
    assert found.validation.data_sha256 in text


def test_every_part_has_its_chart(document):
    assert set(document.charts) == {
        "equity", "drawdown", "decay", "moves", "fan", "pessimist", "surface-1", "null-1", "null-2", "null-4", "null-5", "gate-r",
    }  # fmt: skip
    lines = {line.get("name"): line for line in document.charts["equity"]["data"]}
    assert {"strategy", "market", "market at its mean exposure"} <= set(lines)
    assert document.charts["equity"]["data"][0]["type"] == "heatmap"


def test_names_from_outside_stay_text_and_nothing_is_fetched(document):
    assert document.text.count(SYMBOL) >= 3
    allowed = {
        "#result",
        "#luck",
        "#risk",
        "#parameters",
        "#markets",
        "#gate",
        "#attempts",
        "#fingerprints",
        "#glossary",
    }
    for tag, attributes in document.tags:
        assert tag not in {"link", "img", "iframe", "object", "embed", "base"}
        assert not {"src", "srcset", "action"} & set(attributes)
        assert attributes.get("href", "#gate") in allowed
    assert not re.search(r"@import|url\(", "".join(document.styles))
    assert not any("alert(1)" in script for script in document.scripts)


def test_the_numbers_beside_it_are_those_of_the_validation(found, written):
    numbers = json.loads(written[1].read_text())
    assert numbers["validation"]["verdict"]["word"] == found.validation.verdict.word
    assert numbers["n_attempts"] == 6
    assert numbers["validation"]["walk"]["equity"] == found.validation.walk.equity.tolist()
    assert len(numbers["validation"]["gates"]) == 8
    assert len(numbers["attempts"]) == 7


def test_what_is_missing_says_why(tmp_path):
    rows = {"exit_at": pd.date_range("2020-01-01", periods=60, freq="W"), "return_frac": np.full(60, 0.001)}
    pd.DataFrame(rows).to_csv(tmp_path / "<b>same.csv", index=False)
    document = Document(render_dossier(validate_trades(tmp_path / "<b>same.csv", is_quick=True)))
    text = " ".join(document.text.split())
    assert "Nobody counted the attempts." in text
    assert "<b>same" in text
    assert "returns alone do not hold the strategy or the market that this needs" in text
    assert "a file of returns has no attempts" in text
    assert set(document.charts) <= {"equity", "drawdown", "fan", "pessimist", "null-5", "decay"}
    nothing = validate_strategy(MovingAverageCross, random_walk(60, 1), symbol="X", is_quick=True, plan=PLAN)
    text = " ".join(Document(render_dossier(nothing)).text.split())
    assert "INSUFFICIENT" in text
    assert "leave one of" in text
    assert ".." not in text


def test_periods_have_dates_and_parameters_stand_where_something_was_searched(found):
    html = render_dossier(found)
    text = " ".join(Document(html).text.split())
    first = found.validation.walk.bar[0]
    day = np.datetime64(int(found.bars.opened_at[first]), "us").astype("datetime64[D]")
    assert f'<th scope="row">period 1</th><td class="when">{day}</td>' in html
    assert "the parameters that were best before it are traded" in text
    assert text.count("Parameters") > Document(render_dossier(_unsearched(found))).text.count("Parameters")


def _unsearched(found):
    """The same with one trial alone."""
    v = found.validation
    cut = {name: getattr(v.trials, name)[:, :1] for name in ("returns", "exposure", "costs")}
    one = replace(v.trials, parameters=v.trials.parameters[:1], n_trades=v.trials.n_trades[:1], **cut)
    return replace(found, validation=replace(v, trials=one, chosen=0))


def test_the_line_of_ruin_is_drawn_where_paths_come_near(found):
    paths = found.validation.monte_carlo
    near = replace(paths, ruin_equity=float(paths.fan.min()))
    far = replace(paths, fan=1 + (paths.fan - 1) / 1000)
    assert len(fan_figure(near, 1.0).layout.shapes) == 1
    figure = fan_figure(far, 1.0)
    assert not figure.layout.shapes
    assert "lies far below" in figure.layout.annotations[0].text


def test_long_series_are_thinned_to_their_ends_and_falls_are_from_the_highest():
    rows = thinned(100_000)
    assert len(rows) <= 1_200
    assert rows[0] == 0
    assert rows[-1] == 99_999
    assert thinned(3).tolist() == [0, 1, 2]
    np.testing.assert_allclose(drawdown(np.array([0.9, 1.2, 0.6, 1.3])), [-0.1, 0, -0.5, 0])


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_a_browser_draws_it_on_a_narrow_page_sorts_its_tables_and_asks_for_nothing(written, tmp_path):
    html = written[0].read_text()
    page = tmp_path / "page.html"
    page.write_text(
        html.replace('<meta name="viewport"', EARLY + '<meta name="viewport"', 1).replace(
            "</body>", LATE + "</body>", 1
        )
    )
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=10000",
        "--window-size=500,1000", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    drawn = len(re.findall(r'<div[^>]*class="[^"]*\bjs-plotly-plot\b', done.stdout))
    assert drawn == len(re.findall(r'<div[^>]*class="[^"]*\bchart\b', html)) > 10
    (body,) = re.findall(r"<body[^>]*>", done.stdout)
    assert 'data-wrong=""' in body
    assert 'data-fetched="0"' in body
    assert 'data-overflow="0"' in body
    assert 'data-sorted="5|5|9|9|10|10 / 10|10|9|9|5|5 / descending"' in body
