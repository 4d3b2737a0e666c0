from __future__ import annotations

import pytest

from qml_plugin.audit.findings import AuditReport, Finding
from qml_plugin.report.audit_page import render_audit_page, write_audit_page
from tests.report.test_page import EVIL, Document
from tests.report.test_page import test_nothing_is_fetched_from_anywhere as check_nothing_is_fetched


def report(**changes):
    leak = Finding(
        "leak", "future", "indicator", EVIL, f"indicator {EVIL} at bar 12 is 1.5, but 2.5", 12, "2024-01-01", EVIL, 1.5, 2.5, 14,
        "garbage", 3, 20, 3,
    )  # fmt: skip
    start = Finding("start", "start", "order", "order", "orders depend on where the bars begin", bar=30)
    made = {
        "subject": EVIL, "data": "GOOG", "n_bars": 100, "seed": 0, "tolerance": 0.0, "cuts": (14, 50), "n_runs": 9, "seconds": 1.0,
        "findings": (leak, start), "compared": {"indicator": 1, "order": 7}, "checks": ("rerun", "future", "threads", "start"),
    }  # fmt: skip
    return AuditReport(**(made | changes))


def test_the_page_needs_nothing_beside_it_and_escapes_all():
    check_nothing_is_fetched(Document(render_audit_page(report(subject="Mine", findings=()))))
    html = render_audit_page(report())
    found = Document(html)
    assert "<script>alert" not in html
    assert not any(tag == "a" for tag, _ in found.tags)
    assert set(found.charts) == {"cuts"}
    ids = [value for _, attributes in found.tags for name, value in dict(attributes).items() if name == "id"]
    assert "cuts" in ids
    assert len(ids) == len(set(ids))


def test_it_says_what_was_found_and_what_was_checked(tmp_path):
    text = Document(render_audit_page(report())).text
    for said in (
        "Has seen the future",
        "Depends on where the bars begin",
        "3 of 20",
        "Another future, the same past. 1 finding.",
        "order 7",
    ):
        assert said in text
    clean = Document(render_audit_page(report(findings=()))).text
    assert "changed when later bars changed, at 2 cuts in 100 bars" in clean
    assert "Has seen the future" not in clean
    assert write_audit_page(report(), tmp_path / "a.html").read_text().startswith("<!DOCTYPE html>")


def test_a_page_that_cannot_be_written_names_its_own_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nodir: '.*a\.html'"):
        write_audit_page(report(), tmp_path / "nodir" / "a.html")
    (tmp_path / "b.html").mkdir()
    with pytest.raises(OSError, match=r"b\.html'$") as refused:
        write_audit_page(report(), tmp_path / "b.html")
    assert ".tmp" not in str(refused.value)
