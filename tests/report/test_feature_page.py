from __future__ import annotations

import json

import numpy as np
import pytest

from qml_plugin.errors import DataError
from qml_plugin.report.feature_page import render_feature_page, write_feature_page
from qml_plugin.report.views import FeatureView
from qml_plugin.stats.distribution import distribution
from tests.report.samples import HOUR_US, START_AT
from tests.report.test_page import EVIL, Document
from tests.report.test_page import test_nothing_is_fetched_from_anywhere as check_nothing_is_fetched


def view(n_bars=80, n_before=0, **changes):
    rng = np.random.default_rng(0)
    close = 100 + np.sin(np.arange(n_bars) / 3)
    values = rng.normal(size=n_before + n_bars)
    values[:10] = np.nan
    found = {
        "name": "ctx_rsi_14", "definition": "|C - O| < 2 & more", "source": "Wilder 1978", "needs": "bars", "window": 14,
        "warmup": 10, "version": "ab" * 32, "symbol": "GOOG", "timeframe": "1h", "n_bars": n_before + n_bars,
        "opened_at": START_AT + HOUR_US * np.arange(n_bars), "open": close - 0.1, "high": close + 0.3, "low": close - 0.3,
        "close": close, "values": values[n_before:], "distribution": distribution(values, warmup=10),
    }  # fmt: skip
    return FeatureView(**(found | changes))


def test_the_page_needs_nothing_beside_it():
    found = Document(render_feature_page(view()))
    check_nothing_is_fetched(found)
    (policy,) = (a["content"] for t, a in found.tags if t == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'")
    assert sum(len(script) > 1_000_000 for script in found.scripts) == 1


def test_the_price_lies_over_the_feature_on_one_axis_of_bars():
    charts = Document(render_feature_page(view())).charts
    assert set(charts) == {"feature", "distribution"}
    candles, line = charts["feature"]["data"]
    layout = charts["feature"]["layout"]
    assert (candles["type"], line["yaxis"]) == ("candlestick", "y2")
    assert layout["yaxis"]["domain"][0] > layout["yaxis2"]["domain"][1]
    assert layout["yaxis2"]["title"]["text"] == "ctx_rsi_14"
    assert line["customdata"][0].startswith("2023-11-14")
    assert "xaxis" not in line, "one axis for both"


def test_what_it_says():
    text = Document(render_feature_page(view(n_before=1000))).text
    for said in (
        "|C - O| < 2 & more", "Source: Wilder 1978.", "Window: 14 bars.", "Warm-up: 10 bars", "the last 80 of 1,080 bars",
        "smallest", "25\u202f%", "largest", "Missing: 0.9\u202f% of the bars, 10 of them in the warm-up and 0 after it", "ab" * 32,
    ):  # fmt: skip
        assert said in text
    assert "the feature has no value" not in text
    whole = Document(render_feature_page(view())).text
    assert "the last" not in whole.partition("Drag over")[0].rpartition("Under the price")[2]
    assert "Where the line has a gap, the feature has no value." in whole


def test_small_quantiles_are_not_rounded_to_nothing():
    values = np.linspace(-3e-6, 1e-6, 80)
    text = Document(render_feature_page(view(values=values, distribution=distribution(values)))).text
    assert "\u22123e\u221206" in text


def test_flags_have_a_bar_a_value():
    values = np.tile([0.0, 1.0], 40)
    charts = Document(render_feature_page(view(values=values, distribution=distribution(values)))).charts
    assert charts["distribution"]["data"][0]["x"] == ["0", "1"]


def test_text_from_outside_is_escaped_everywhere():
    texts = dict.fromkeys(("name", "definition", "source", "symbol", "timeframe", "version"), EVIL)
    html = render_feature_page(view(**texts))
    found = Document(html)
    assert "<script>alert" not in html
    assert not any(tag == "a" for tag, _ in found.tags)
    assert len(found.scripts) == 2
    for chart in found.charts.values():
        assert "<script" not in json.dumps(chart)


def test_a_feature_without_values_is_refused_and_the_old_page_stays(tmp_path):
    path = tmp_path / "f.html"
    path.write_text("old")
    none = np.full(80, np.nan)
    with pytest.raises(
        DataError, match=r"no value on GOOG 1h, so there is no page to draw. It needs more than 10 bars"
    ):
        write_feature_page(view(values=none, distribution=distribution(none)), path)
    with pytest.raises(DataError, match=r"has columns of .*'values': 3"):
        write_feature_page(view(values=np.ones(3)), path)
    assert path.read_text() == "old"
    assert write_feature_page(view(), path) == path
    assert list(tmp_path.iterdir()) == [path]
