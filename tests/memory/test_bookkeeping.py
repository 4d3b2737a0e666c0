"""The memory against its slow twin: what is known at each entry, who is near, what the model says."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from qml_plugin.memory import PatternMemory, Policy
from tests.conftest import random_walk
from tests.memory.conftest import EAGER
from tests.memory.worlds import Twin, cross_entries, make_bars, make_entry, mixed_entries, schedule, snapshot, walk


def compare(bars, entries, known, policy):
    """Walk both and return the memory's decisions."""
    memory, twin = PatternMemory(bars, known, policy), Twin(bars, known, policy)
    for entry in entries:
        decision, expected = memory.decide(entry), twin.decide(entry)
        assert decision.pattern_id == entry.pattern_id
        assert decision.n_known == expected["n_known"]
        assert [n.pattern_id for n in decision.neighbours] == [row.pattern_id for row, _ in expected["neighbours"]]
        for neighbour, (row, distance) in zip(decision.neighbours, expected["neighbours"], strict=True):
            assert neighbour.distance == pytest.approx(distance, rel=1e-12)
            assert (neighbour.resolved_at, neighbour.is_win) == (row.resolved_at, row.is_win)
            assert neighbour.r_multiple == row.r_multiple
        assert (decision.action, decision.reason.split(":")[0]) == (expected["action"], expected["code"])
        assert decision.model == expected["model"]
        if expected["confidence"] is None:
            assert decision.confidence is decision.base_rate is decision.threshold is None
            assert decision.contributions == ()
        else:
            assert decision.confidence == pytest.approx(expected["confidence"], abs=1e-9)
            assert decision.base_rate == expected["base_rate"]
            assert decision.threshold == pytest.approx(expected["threshold"], rel=1e-12)
    return list(memory.decisions.values())


@pytest.mark.slow
def test_decisions_on_real_bars_equal_the_twin(hourly, hourly_entries):
    decisions = compare(hourly, hourly_entries[:150], None, Policy(mode="shadow", requirements=EAGER))
    assert sum(decision.confidence is not None for decision in decisions) > 40
    assert sum(len(decision.neighbours) == 10 for decision in decisions) > 80


@pytest.mark.slow
def test_decisions_beside_another_market_equal_the_twin(hourly, hourly_entries):
    other = make_bars(random_walk(2000, 4).set_axis(pd.to_datetime(hourly.opened_at[:2000], unit="us")), "OTHER")
    past = walk(other, cross_entries(other), policy=Policy(mode="shadow"))
    known = snapshot(past.patterns())
    assert len(known) > 60
    policy = Policy(mode="gate", n_neighbours=3, min_confidence=0.4, model="logistic", requirements=EAGER, seed=5)
    decisions = compare(hourly, hourly_entries[:60], known, policy)
    others = set(known.pattern_id)
    assert any(n.pattern_id in others for d in decisions for n in d.neighbours), "the other market was asked"
    assert any(n.pattern_id not in others for d in decisions for n in d.neighbours), "and so was this one"


def test_decisions_in_a_planted_market_equal_the_twin(planted, planted_entries):
    decisions = compare(planted, planted_entries[:170], None, Policy(mode="gate", requirements=EAGER))
    assert {decision.action for decision in decisions} == {"abstain", "take", "skip"}


def test_the_last_epoch_holds_until_the_next(hourly, first_walk):
    """Between two epochs the model is the same, so the same features would get the same confidence."""
    break_evens = {}
    for decision in first_walk.decisions.values():
        if decision.threshold is not None:
            break_evens.setdefault(schedule(decision.n_known), set()).add(decision.threshold)
    assert len(break_evens) > 2
    assert all(len(thresholds) == 1 for thresholds in break_evens.values())


def test_mixed_entries_are_mixed(hourly, hourly_entries, first_walk):
    """The comparisons above mean little unless every kind of order occurs."""
    patterns = first_walk.patterns()
    assert [p.entry for p in patterns] == hourly_entries
    reasons = {p.outcome.exit_reason for p in patterns if p.outcome}
    assert reasons == {"stop", "target", "time"}
    assert {e.fill for e in hourly_entries} == {"open", "close"}
    assert any(p.outcome is None and p.entry.limit_px for p in patterns)
    assert any(p.outcome is not None and p.entry.limit_px for p in patterns)
    assert len({e.bar for e in hourly_entries}) < len(hourly_entries), "two entries on one bar"


def test_limits_that_never_fill_have_no_outcome(hourly, hourly_entries, first_walk):
    hopeless = {e.pattern_id for e in hourly_entries if e.limit_px and abs(e.limit_px / hourly.close[e.bar] - 1) > 0.4}
    assert len(hopeless) > 5
    for pattern in first_walk.patterns():
        if pattern.pattern_id in hopeless:
            assert pattern.outcome is None
    neighbours = {n.pattern_id for d in first_walk.decisions.values() for n in d.neighbours}
    assert neighbours
    assert not neighbours & hopeless


def test_patterns_are_in_time_order_with_features_and_outcomes(first_walk):
    patterns = first_walk.patterns()
    times = [pattern.entry.known_at for pattern in patterns]
    assert times == sorted(times)
    assert sum(pattern.outcome is not None for pattern in patterns) > 100
    for pattern in patterns:
        assert pattern.features.dtype == "float64"
        assert pattern.confidence == first_walk.decisions[pattern.pattern_id].confidence
        if pattern.outcome is not None:
            assert pattern.outcome.resolved_at > pattern.entry.known_at
            assert math.isfinite(pattern.outcome.r_multiple)
    assert [p.pattern_id for p in first_walk.patterns()] == [p.pattern_id for p in patterns], "asking again is safe"


def test_an_entry_at_the_end_of_the_bars_is_open(hourly):
    memory = walk(hourly, mixed_entries(hourly)[:1])
    memory.decide(make_entry(hourly, len(hourly) - 1))
    assert [p.outcome is None for p in memory.patterns()] == [False, True]


def test_looking_at_the_patterns_changes_no_later_decision(hourly, hourly_entries, first_walk):
    memory = PatternMemory(hourly, policy=Policy(mode="shadow"))
    for i, entry in enumerate(hourly_entries[:60]):
        memory.decide(entry)
        if i == 25:
            memory.patterns()
    assert list(memory.decisions.values()) == list(first_walk.decisions.values())[:60]
