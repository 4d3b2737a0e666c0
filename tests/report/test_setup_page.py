import dataclasses

import pytest

from qml_plugin.bars import bars_from_frame
from qml_plugin.detection import find_quasimodo
from qml_plugin.errors import DataError
from qml_plugin.records import Setup
from qml_plugin.report.setup_page import render_setups_page, write_setups_page
from tests.conftest import random_walk
from tests.report.test_page import EVIL, Document
from tests.report.test_page import test_nothing_is_fetched_from_anywhere as check_nothing_is_fetched

BARS = bars_from_frame(random_walk(1500, 5), symbol="WALK")
SETUPS = find_quasimodo(BARS)


def names(chart):
    return {trace.get("name") for trace in chart["data"]}


def words(chart):
    return {note["text"].split(" ")[0] for note in chart["layout"]["annotations"]}


def test_every_setup_has_its_chart_with_all_that_was_seen():
    found = Document(render_setups_page(BARS, SETUPS, len(SETUPS)))
    check_nothing_is_fetched(found)
    assert sum(len(script) > 1_000_000 for script in found.scripts) == 1
    assert len(found.charts) == len(SETUPS) > 3
    seen = set()
    for i, setup in enumerate(SETUPS, 1):
        chart = found.charts[f"setup-{i}"]
        levels = {level.name for level in setup.levels}
        seen |= levels
        assert names(chart) == {"price", "setup", "stop", "target", "entry"} | levels
        assert {"stop", "target", "entry"} <= words(chart)
        assert ("order" in words(chart)) == (setup.order_block is not None)
    assert seen == {"first break", "change of character", "second break", "sweep"}
    assert f"{len(SETUPS)} setups on 1,500 bars" in found.text
    assert sum(tag == "option" for tag, _ in found.tags) == len(SETUPS)


def test_text_from_outside_is_escaped():
    evil = dataclasses.replace(BARS, symbol=EVIL)
    shown = dataclasses.replace(SETUPS[0], pattern_type=EVIL)
    html = render_setups_page(evil, [shown], 1)
    assert "<script>alert" not in html


def test_the_chart_of_a_setup_at_the_last_bar_has_no_future():
    last = SETUPS[-1]
    cut = bars_from_frame(random_walk(1500, 5)[: last.known_bar + 1], symbol="WALK")
    found = Document(render_setups_page(cut, [last], 1))
    assert "what" not in words(found.charts["setup-1"])


def test_what_cannot_be_drawn_is_refused(tmp_path):
    with pytest.raises(DataError, match="no setup was found on WALK 1h"):
        render_setups_page(BARS, [], 0)
    with pytest.raises(DataError, match="known at bar 7 lacks points, a stop or a target"):
        write_setups_page(BARS, [Setup("any", 1, (), 7)], 1, tmp_path / "setups.html")
    assert not list(tmp_path.iterdir())
