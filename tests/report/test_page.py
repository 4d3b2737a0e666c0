from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from qml_plugin.errors import DataError
from qml_plugin.report.page import render_page, write_page
from tests.report.samples import card, equity, neighbour, page, reliability, run_row

VOID = {"meta", "br", "hr", "link", "img", "input", "base"}
EVIL = "<script>alert(1)</script><a href='https://evil.example/'>x</a>%{y}"


class Document(HTMLParser):
    """Tags, attributes, visible text, styles and scripts of a page; refuses tags that do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.stack: list[str] = []
        self.text, self.styles, self.scripts, self.charts = "", [], [], {}
        self.feed(html)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        inside = self.stack[-1] if self.stack else ""
        chart = self.tags[-1][1].get("data-chart") if self.tags else None
        if inside == "script" and chart:
            self.charts[chart] = json.loads(data)
        elif inside in ("script", "style"):
            (self.scripts if inside == "script" else self.styles).append(data)
        else:
            self.text += data


@pytest.fixture(scope="module")
def full() -> Document:
    return Document(render_page(page()))


def test_nothing_is_fetched_from_anywhere(full):
    for tag, attributes in full.tags:
        assert tag not in {"link", "img", "iframe", "object", "embed", "base", "audio", "video", "source"}
        assert not {"src", "srcset", "href", "xlink:href", "background", "action", "poster"} & set(attributes)
    for style in [*full.styles, *(attributes.get("style") or "" for _, attributes in full.tags)]:
        assert not re.search(r"@import|url\(|//", style)
    assert "://" not in full.text.replace("sqlite:///results/experiments.db", "")


def test_the_browser_is_told_to_fetch_nothing(full):
    (policy,) = (a["content"] for t, a in full.tags if t == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy


def test_plotly_is_embedded_once(full):
    assert sum(len(script) > 1_000_000 for script in full.scripts) == 1
    assert len(full.scripts) == 2
    assert "://" not in min(full.scripts, key=len)


def test_every_figure_has_a_place_and_data(full):
    expected = {f"{kind}-{i}" for kind in ("equity", "reliability") for i in (1, 2)}
    expected |= {f"{kind}-{i}" for kind in ("candles", "contributions") for i in (1, 2, 3)}
    places = {attributes.get("id") for tag, attributes in full.tags if "chart" in (attributes.get("class") or "")}
    assert set(full.charts) == places == expected
    assert all(chart["data"] for chart in full.charts.values())


def test_sections_come_in_order(full):
    parts = [
        "What the memory found", "The gate abstained.", "The runs", "Market data", "Synthetic market with a planted edge",
        "registers entries only", "Equity with and without the gate", "Do the confidences come true?", "base rate of wins",
        "Why this decision", "Nearest past patterns", "What the model weighed", "sqlite:///results/experiments.db",
        "All times are UTC", "does not promise", "Nothing here is financial advice",
    ]  # fmt: skip
    positions = [full.text.index(part, full.text.index("What the memory found")) for part in parts]
    assert positions == sorted(positions)


def test_a_number_is_written_for_readers(full):
    for text in ("1,412", "41.0\u202f%", "\u22123.4\u202f%", "\u22120.21", "+0.013", "no skill shown", "+1.90", "3.25"):
        assert text in full.text
    assert "▲" in full.text
    assert "▽" in full.text


def test_text_from_outside_is_escaped_everywhere():
    shown = card(
        title=EVIL, symbol=EVIL, strategy=EVIL, timeframe=EVIL, reason=EVIL, pattern_id=EVIL, model=EVIL, action=EVIL,
        exit_reason=EVIL, points=((3, 100.0, EVIL),), neighbours=(neighbour(symbol=EVIL, strategy=EVIL),),
        contributions=((EVIL, 0.3),),
    )  # fmt: skip
    row = run_row(strategy=EVIL, data=EVIL, mode=EVIL, main_reason=EVIL)
    views = {"equities": (equity(title=EVIL),), "reliabilities": (reliability(title=EVIL),), "cards": (shown,)}
    html = render_page(
        page(title=EVIL, findings=(EVIL,), rows=(row,), database=EVIL, versions=((EVIL, EVIL),), **views)
    )
    found = Document(html)
    assert "<script>alert" not in html
    assert found.text.count("<script>alert(1)</script>") > 15
    assert not any(tag == "a" for tag, _ in found.tags)
    assert len(found.scripts) == 2
    assert len(found.charts) == 4
    for chart in found.charts.values():
        assert "<script" not in json.dumps(chart)
        assert "<a " not in json.dumps(chart)


def test_no_name_from_outside_becomes_part_of_a_hover_template():
    found = Document(render_page(page(cards=(card(exit_reason="%{y}"),))))
    templates = [
        trace.get("hovertemplate", "") for trace in found.charts["candles-1"]["data"] if trace["name"] == "exit"
    ]
    assert len(templates) == 1
    assert "%{" not in templates[0]


@pytest.mark.parametrize("missing", [None, math.nan])
def test_missing_figures_are_dashes_with_a_title(missing):
    row = run_row(win_share=missing, sharpe_annual=missing, brier_skill=missing, return_frac=math.nan, main_reason=None)
    html = render_page(page(rows=(row,)))
    table = html[html.index("<tbody") : html.index("</tbody>")]
    assert table.count('<span class="missing" title=') == 5
    assert not re.search(r"\bnan\b|\bNone\b", table, re.IGNORECASE)
    assert "Synthetic market" not in Document(html).text


def test_an_empty_page_says_so_in_every_section():
    found = Document(render_page(page(findings=(), rows=(), equities=(), reliabilities=(), cards=(), versions=())))
    for said in (
        "no runs to show",
        "no pairs of runs",
        "No run gave confidences",
        "no decisions to explain",
        "not recorded",
    ):
        assert said in found.text
    assert found.charts == {}


def test_empty_cards_and_equities_say_so():
    none = np.empty(0)
    bars = dict.fromkeys(("open", "high", "low", "close"), none) | {"opened_at": none.astype(np.int64)}
    bare = card(
        neighbours=(), contributions=(), model=None, confidence=None, threshold=None, entry_row=0, exit_row=None,
        exit_reason=None, r_multiple=None, points=(), **bars,
    )  # fmt: skip
    empty = equity(opened_at=none.astype(np.int64), with_gate=none, without_gate=none)
    found = Document(render_page(page(cards=(bare,), equities=(empty,))))
    for said in (
        "no bars to draw", "No past pattern with a known outcome", "no contributions to show", "there is no confidence",
        "No model gave a confidence", "outcome was still open",
    ):  # fmt: skip
        assert said in found.text
    assert set(found.charts) == {"reliability-1", "reliability-2"}


@pytest.mark.parametrize(
    ("n", "said"), [(0, "No score has an outcome"), (1, "Only 1 score has"), (19, "Only 19 scores have")]
)
def test_too_few_scores_are_a_sentence(n, said):
    found = Document(render_page(page(reliabilities=(reliability(n),))))
    assert said in found.text
    assert "reliability-1" not in found.charts


def test_reliability_caption_holds_the_brier_score_and_the_base_rate():
    view = reliability(20, confidence=np.repeat([0.2, 0.7], 10), is_win=np.arange(20) >= 15)
    # 10 × 0.2² and 5 × 0.7² + 5 × 0.3², over 20
    text = Document(render_page(page(reliabilities=(view,)))).text
    assert "20 scores. Brier score 0.165 (0 is perfect); base rate of wins 25.0\u202f%." in text


def test_a_gate_that_changed_nothing_is_named():
    money = np.linspace(1.0, 2.0, 50)
    text = Document(render_page(page(equities=(equity(with_gate=money, without_gate=money.copy()),)))).text
    assert "The two lines coincide" in text
    assert "The two lines coincide" not in Document(render_page(page())).text


def test_the_same_page_twice_is_the_same_text():
    assert render_page(page()) == render_page(page())


def test_write_replaces_the_old_file_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "demo.html"
    path.write_text("old")
    assert write_page(page(), path) == path
    assert path.read_text(encoding="utf-8") == render_page(page())
    assert list(tmp_path.iterdir()) == [path]


def test_a_page_that_cannot_be_drawn_leaves_the_old_file(tmp_path):
    path = tmp_path / "demo.html"
    path.write_text("old")
    with pytest.raises(DataError, match="entry_row"):
        write_page(page(cards=(card(entry_row=99),)), path)
    assert path.read_text() == "old"


def test_a_full_disk_leaves_the_old_file(tmp_path):
    path = tmp_path / "demo.html"
    path.write_text("old")
    script = (
        "import resource, sys\n"
        "from qml_plugin.report.page import write_page\n"
        "from tests.report.samples import page\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
        "try:\n    write_page(page(), sys.argv[1])\n"
        "except OSError as error:\n    print('refused', error.errno)\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], cwd=root, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith("refused"), done.stderr
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
