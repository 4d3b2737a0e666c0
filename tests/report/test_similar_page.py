from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from qml_plugin.errors import DataError
from qml_plugin.labelling.view import pattern_view
from qml_plugin.report import similar_figures
from qml_plugin.report.similar_page import render_similar_page, write_similar_page
from qml_plugin.report.views import AnswerView, PastView, PathView, SimilarPage
from tests.labelling.samples import pattern, series
from tests.report.samples import HOUR_US, START_AT
from tests.report.test_page import EVIL, Document
from tests.report.test_page import test_nothing_is_fetched_from_anywhere as check_nothing_is_fetched

BARS = series()


def path(n_after=20, exit_bar=7, seed=0):
    moves = np.random.default_rng(seed).normal(size=11 + n_after).cumsum()
    return PathView(-10, moves - moves[10], exit_bar)


def past(**changes):
    values = {
        "symbol": "GBPUSD", "timeframe": "4h", "strategy": "Cross", "detection_at": START_AT - 100 * HOUR_US, "distance": 3.25,
        "is_win": True, "r_multiple": 1.9, "pattern_id": "6f7b9a50-1d43-5e26-9a0e-1d2f3c4b5a69", "pattern_type": "long_signal",
        "resolved_at": START_AT - 90 * HOUR_US, "path": path(),
    }  # fmt: skip
    return PastView(**(values | changes))


def answer(**changes):
    neighbours = (past(), past(is_win=False, r_multiple=-1.0, path=path(12, None, 1)), past(path=None))
    values = {
        "side": 1, "as_of": START_AT, "neighbours": neighbours, "win_share": 2 / 3, "share_low": 0.21, "share_high": 0.94,
        "mean_r": 0.93, "median_r": 1.9, "eligible_r": np.array([1.9, -1.0, np.nan, 25.0, 0.5]), "base_share": 0.4, "base_mean_r": 0.1,
        "fan": np.linspace(-1, 1, 5)[:, None] * np.arange(21) / 5, "n_paths": np.full(21, 3),
    }  # fmt: skip
    return AnswerView(**(values | changes))


def view(has_bars=True, **changes):
    found = (BARS, 100) if has_bars else None
    return pattern_view(pattern(BARS, **changes), found, n_bars=80, hide_future=True)


NONE = {
    "neighbours": (), "win_share": None, "share_low": None, "share_high": None, "mean_r": None, "median_r": None,
    "eligible_r": np.empty(0), "base_share": None, "base_mean_r": None, "fan": np.empty((5, 0)), "n_paths": np.empty(0, np.int64),
}  # fmt: skip


def page(**changes):
    values = {
        "title": "Past patterns like WALK 1h", "patterns": (view(), view(has_bars=False)), "befores": (path(0, None, 5), None),
        "answers": (answer(), answer(**NONE)), "sentences": (("Two of three won.",), ("Nothing was known.",)),
    }  # fmt: skip
    return SimilarPage(**(values | changes))


def test_the_page_needs_nothing_beside_it():
    found = Document(render_similar_page(page()))
    check_nothing_is_fetched(found)
    (policy,) = (a["content"] for t, a in found.tags if t == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'")
    assert "light dark" in {a.get("content") for t, a in found.tags if t == "meta"}


def test_a_question_has_its_charts_and_its_words():
    found = Document(render_similar_page(page()))
    assert set(found.charts) == {"pattern-1", "paths-1", "fan-1", "r-1", "pattern-2"}
    text = " ".join(found.text.split())
    for said in (
        "Past patterns like WALK 1h", "Two of three won.", "WALK 1h, long", "asked as of 2023-11-14 22:00 UTC", "GBPUSD 4h",
        "3.250", "▲ win", "▽ loss", "−1.00", "3 paths at the decision", "all 5 that were eligible, of which 40.0 % won",
        "Nothing was known.", "No bars around it are kept",
    ):  # fmt: skip
        assert said in text


def test_paths_are_thin_before_and_coloured_by_outcome_after():
    figure = similar_figures.paths_figure(answer(), path(0, None, 5))
    traces = [(trace.name, trace.line.color, trace.line.width) for trace in figure.data if trace.mode == "lines"]
    assert [name for name, *_ in traces] == ["before", "win", "before", "loss", "asked about"]
    assert traces[0][2] < 1 < traces[1][2] < traces[4][2]
    assert traces[0][1] == traces[2][1]
    assert (traces[1][1], traces[3][1]) == (similar_figures.BLUE, similar_figures.ORANGE)
    (exit_mark,) = (trace for trace in figure.data if trace.name == "exit")
    assert (exit_mark.x[0], exit_mark.y[0]) == (7, path().move_atr[17])
    before, after = figure.data[0], figure.data[1]
    assert (before.x[0], before.x[-1], after.x[0], after.x[-1]) == (-10, 0, 0, 20)
    assert before.y[-1] == after.y[0] == 0


def test_the_fan_ends_where_there_are_too_few_paths():
    fan = answer().fan.copy()
    fan[:, 15:] = np.nan
    figure = similar_figures.fan_figure(answer(fan=fan))
    assert [trace.name for trace in figure.data] == ["10 to 90 %", "25 to 75 %", "median"]
    assert list(figure.data[2].x) == list(range(15))
    assert list(figure.data[0].y[:15]) == list(fan[4, :15])
    assert list(figure.data[0].y[15:]) == list(fan[0, :15][::-1])


def test_the_histogram_holds_shares_of_both():
    figure = similar_figures.r_figure(answer())
    bars, line = figure.data
    assert sum(bars.y) == pytest.approx(1.0)
    assert sum(line.y) / 2 == pytest.approx(1.0)
    assert max(line.x) == pytest.approx(10.0), "25 R are counted as 10"
    (alone,) = (trace for trace in similar_figures.r_figure(answer(neighbours=())).data if trace.name == "nearest")
    assert set(alone.y) == {0.0}


def test_text_from_outside_is_escaped_everywhere():
    texts = dict.fromkeys(("symbol", "timeframe", "strategy", "pattern_type", "pattern_id"), EVIL)
    shown = dataclasses.replace(view(**texts), key_features=((EVIL, EVIL),))
    html = render_similar_page(
        page(
            title=EVIL,
            patterns=(shown, shown),
            sentences=((EVIL,), (EVIL,)),
            answers=(answer(neighbours=(past(**texts), past(**texts, is_win=False))), answer(**NONE)),
        )
    )
    assert "<script>alert" not in html
    assert "href='https" not in html
    found = Document(html)
    assert not any(tag == "a" for tag, _ in found.tags)
    assert len(found.scripts) == 2
    for drawn in found.charts.values():
        assert "<script" not in json.dumps(drawn)
        for trace in drawn["data"]:
            assert "%{y}<" not in trace.get("hovertemplate", "").replace("%{y}<extra", "")


def test_a_page_without_answers_to_its_questions_is_refused(tmp_path):
    target = tmp_path / "similar.html"
    target.write_text("old")
    with pytest.raises(DataError, match="2 questions and 1 answers"):
        write_similar_page(page(answers=(answer(),)), target)
    with pytest.raises(DataError, match="0 questions and 0 answers"):
        write_similar_page(page(patterns=(), befores=(), answers=(), sentences=()), target)
    assert target.read_text() == "old"
    assert write_similar_page(page(), target) == target
    assert list(tmp_path.iterdir()) == [target]
