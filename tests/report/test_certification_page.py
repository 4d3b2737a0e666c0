from __future__ import annotations

import pytest

from qml_plugin.report.certification_page import render_certification_page, write_certification_page
from qml_plugin.vrd.certification import Certification, Count, Draws, Market, Share
from qml_plugin.vrd.gates import GATES
from qml_plugin.vrd.thresholds import load_thresholds
from tests.report.test_page import EVIL, Document
from tests.report.test_page import test_nothing_is_fetched_from_anywhere as check_nothing_is_fetched


def count(world, family, *, n=20, n_deploy=1, is_permuted=False):
    share = Share(n_deploy, n_deploy / n, 0.01, 0.2)
    judges = ("ours", "naive", "classic", *(["permuted"] if is_permuted else []))
    words = {"DEPLOY": n_deploy / n, "CAUTION": 0.0, "REJECT": 1 - n_deploy / n, "INSUFFICIENT": 0.0}
    true = 1.97 if world.startswith("edge") else None
    return Count(
        world, family, n, dict.fromkeys(judges, share), words, dict.fromkeys(GATES, 0.25), 0.05 if is_permuted else None, true,
        0.4, 0.3,
    )  # fmt: skip


def found(*, worlds=("null", "edge2"), families=("breakout", "all"), n_permutations=0, is_own=False):
    rows = tuple(count(world, family, is_permuted=n_permutations > 0) for world in worlds for family in families)
    return Certification(
        rows, rows[0] if rows else None, is_own, 7, 20, Market(), Draws(n_permutations=n_permutations), load_thresholds(),
        {"numpy": "2"}, {"breakout": 15},
    )  # fmt: skip


def test_the_page_needs_nothing_beside_it_and_escapes_all():
    check_nothing_is_fetched(Document(render_certification_page(found())))
    html = render_certification_page(found(families=(EVIL,), is_own=True))
    document = Document(html)
    assert "<script>alert" not in html
    assert set(document.charts) == {"shares-noise", "shares-edges", "gates-passed"}
    ids = [value for _, attributes in document.tags for name, value in dict(attributes).items() if name == "id"]
    assert len(ids) == len(set(ids))


def test_it_says_how_often_and_by_whom(tmp_path):
    text = Document(render_certification_page(found(n_permutations=99))).text
    for said in (
        "Of 20 markets without an edge, searches would be called DEPLOY on 1: 5.0 %",
        "Edge of Sharpe 2",
        "annual Sharpe ratio of 1.97",
        "99 permutations of the bars",
        "all together",
    ):
        assert said in text
    without = Document(render_certification_page(found(worlds=("null",))))
    assert "edges" not in " ".join(without.charts)
    assert "permutations" not in without.text
    assert "No market without an edge" in Document(render_certification_page(found(worlds=()))).text
    assert write_certification_page(found(), tmp_path / "c.html").read_text().startswith("<!DOCTYPE html>")


def test_a_point_has_its_interval():
    figure = Document(render_certification_page(found())).charts["shares-noise"]
    (ours,) = [trace for trace in figure["data"] if trace["name"] == "qml vrd"]
    assert ours["x"] == [0.05]
    assert ours["error_x"]["array"] == pytest.approx([0.15])
    assert ours["error_x"]["arrayminus"] == pytest.approx([0.04])
