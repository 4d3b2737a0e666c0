from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from qml_plugin.errors import DataError
from qml_plugin.labelling.view import pattern_view
from qml_plugin.report import figures
from qml_plugin.report.label_page import render_label_page, write_label_page
from qml_plugin.report.views import PatternsPage
from tests.labelling.samples import pattern, series
from tests.report.test_page import EVIL, Document
from tests.report.test_page import test_nothing_is_fetched_from_anywhere as check_nothing_is_fetched

BARS = series()


def view(has_bars=True, hide_future=False, **changes):
    made = pattern(BARS, **changes)
    return pattern_view(made, (BARS, 100) if has_bars else None, n_bars=80, hide_future=hide_future)


def page(*views, **changes):
    shown = views or (view(), view(has_bars=False), view(hide_future=True))
    values = {
        "title": "Patterns to label", "patterns": shown, "commands": tuple("qml label ID LABEL" for _ in shown), "n_left": 1234,
        "is_future_hidden": False,
    }  # fmt: skip
    return PatternsPage(**(values | changes))


def names(chart):
    return {trace.get("name") for trace in chart["data"]}


def test_the_page_needs_nothing_beside_it():
    found = Document(render_label_page(page()))
    check_nothing_is_fetched(found)
    (policy,) = (a["content"] for t, a in found.tags if t == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'")
    assert sum(len(script) > 1_000_000 for script in found.scripts) == 1
    assert "light dark" in {a.get("content") for t, a in found.tags if t == "meta"}


def test_every_pattern_has_its_chart_its_words_and_its_command():
    found = Document(render_label_page(page()))
    assert names(found.charts["pattern-1"]) == {"price", "entry", "stop", "target", "setup", "exit"}
    assert names(found.charts["pattern-2"]) == {"entry", "stop", "target", "setup"}
    assert names(found.charts["pattern-3"]) == {"price", "entry", "stop", "target", "setup"}
    text = " ".join(found.text.split())
    for said in (
        "3 patterns on this page; 1,234 had no label", "1. WALK 1h, long", "bullish_qml · QML · decided 2020-01-05 04:00 UTC",
        "P1 left shoulder", "P3 head", "Outcome: target reached, a win of +2.00 R.", "RSI 28, oversold", "validity 0.62",
        "No bars around it are kept in the registry", "qml label ID LABEL",
    ):  # fmt: skip
        assert said in text


def test_what_came_after_the_decision_is_shaded_or_hidden():
    shown, hidden = figures.pattern_figure(view()), figures.pattern_figure(view(hide_future=True))
    assert len(shown.layout.shapes) == 1
    assert len(hidden.layout.shapes) == 0
    text = Document(render_label_page(page(view(hide_future=True), is_future_hidden=True))).text
    assert "what came after it is hidden" in text
    assert "Outcome" not in text
    assert "Result of its trade" not in text


def test_a_hidden_future_is_nowhere_on_the_page():
    other = pattern(BARS, exit_bars=3, r_multiple=-1.0, exit_reason="stop", trade_outcome=9.0, entry_px=1.0)
    after = {
        name: np.where(np.arange(len(BARS)) > 100, 3.0, 1.0) * getattr(BARS, name)
        for name in ("open", "high", "low", "close")
    }
    changed = pattern_view(other, (dataclasses.replace(BARS, **after), 100), n_bars=80, hide_future=True)
    assert render_label_page(page(changed)) == render_label_page(page(view(hide_future=True)))


def test_text_from_outside_is_escaped_everywhere():
    texts = dict.fromkeys(
        ("symbol", "timeframe", "strategy", "pattern_type", "pattern_id", "user_label", "exit_reason"), EVIL
    )
    evil = view(**texts)
    evil = dataclasses.replace(
        evil, points=tuple((row, px, EVIL) for row, px, _ in evil.points), point_words=(EVIL,) * 5, key_features=((EVIL, EVIL),)
    )  # fmt: skip
    html = render_label_page(
        page(evil, dataclasses.replace(evil, close=np.empty(0)), title=EVIL, commands=(EVIL, EVIL))
    )
    assert "<script>alert" not in html
    assert "href='https" not in html
    found = Document(html)
    assert not any(tag == "a" for tag, _ in found.tags)
    assert len(found.scripts) == 2
    for chart in found.charts.values():
        assert "<script" not in json.dumps(chart)


def test_levels_that_do_not_exist_are_not_drawn():
    bare = view(has_bars=False, n_points=0, stop_px=None, target_px=None, order=None, exit_bars=None)
    assert len(figures.pattern_figure(bare).data) == 0
    assert Document(render_label_page(page(bare))).charts


def test_an_empty_page_and_commands_that_do_not_match_are_refused(tmp_path):
    path = tmp_path / "labels.html"
    path.write_text("old")
    with pytest.raises(DataError, match="0 patterns and 0 commands"):
        write_label_page(page(patterns=(), commands=()), path)
    with pytest.raises(DataError, match="3 patterns and 1 commands"):
        write_label_page(page(commands=("one",)), path)
    assert path.read_text() == "old"
    assert write_label_page(page(), path) == path
    assert list(tmp_path.iterdir()) == [path]
