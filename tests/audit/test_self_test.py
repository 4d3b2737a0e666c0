"""Ten planted leaks are caught and their honest twins are not accused; small data, both kinds of hosts."""

from __future__ import annotations

import numpy as np
import pytest

from qml_plugin.audit import audit, self_test
from qml_plugin.audit.planted import LEAKS, planted_score
from qml_plugin.audit.proving import planted_subject
from tests.conftest import random_walk


@pytest.fixture(scope="module")
def walk():
    return random_walk(240, 11)


def test_there_are_ten_leaks():
    assert len(LEAKS) == 10


@pytest.mark.parametrize("leak", LEAKS)
def test_a_planted_leak_is_caught_and_its_twin_is_not_accused(walk, leak):
    result = self_test(walk, n_cuts=4, leaks=[leak], places=["indicator", "signals"])
    assert result.missed == []
    assert result.accused == []
    assert result.exit_code == 0
    assert result.leaking["indicator", leak].leaks[0].kind == "indicator"


@pytest.mark.parametrize("leak", ["future neighbour", "threshold picked on all scores"])
def test_a_leak_that_only_orders_betray_is_caught(walk, leak):
    report = audit(planted_subject(leak, "orders only", is_leaking=True), walk, n_cuts=8)
    assert report.leaks[0].kind == "order"


@pytest.mark.parametrize("leak", LEAKS)
def test_an_honest_twin_reads_no_later_row(walk, leak):
    whole, part = (planted_score(frame, leak, is_leaking=False) for frame in (walk, walk.iloc[:200]))
    assert np.array_equal(whole[:200], part, equal_nan=True)
    assert np.isfinite(whole).any()


def test_what_was_missed_or_accused_is_said(walk):
    result = self_test(walk, n_cuts=2, leaks=["backfill"], places=["signals"])
    leaking, honest = result.leaking, result.honest
    swapped = type(result)(result.data, result.n_bars, honest, leaking)
    assert swapped.exit_code == 1
    assert "signals: 0 of 1 planted leaks caught, 1 of 1 honest twins accused" in str(swapped)
    assert "- missed: backfill (signals)" in str(swapped)
