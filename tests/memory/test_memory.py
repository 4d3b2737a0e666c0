"""What a memory promises of its decisions: order, modes, refusals, snapshots, the gate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from qml_plugin.errors import DataError, FeatureMismatch, LookAheadError
from qml_plugin.features import CATALOGUE
from qml_plugin.gate import Requirements
from qml_plugin.memory import PatternMemory, Policy
from qml_plugin.memory.past import NEIGHBOUR_FEATURES
from qml_plugin.records import KnownPatterns
from tests.conftest import random_walk
from tests.memory.conftest import EAGER
from tests.memory.worlds import cross_entries, make_bars, make_entry, snapshot, walk

SHADOW = Policy(mode="shadow")
HOUR = 3_600_000_000


def decisions(memory):
    return list(memory.decisions.values())


def noise(n, *, win_share=0.5, known_until, seed=0, confidence=None, group="NOISE|1h"):
    """A snapshot of `n` patterns whose features say nothing, the last resolved at `known_until`."""
    rng = np.random.default_rng(seed)
    is_win = rng.permutation(np.arange(n) < round(win_share * n))
    resolved_at = known_until - np.arange(n)[::-1] * 4 * HOUR
    return KnownPatterns(
        feature_set=CATALOGUE.feature_set,
        pattern_id=tuple(f"noise-{i:04d}" for i in range(n)),
        group=(group,) * n,
        side=np.where(rng.random(n) < 0.5, 1, -1).astype(np.int8),
        known_at=resolved_at - 3 * HOUR,
        resolved_at=resolved_at,
        is_win=is_win,
        r_multiple=np.where(is_win, 2.0, -1.0),
        confidence=np.full(n, np.nan) if confidence is None else np.where(is_win, *confidence),
        features=rng.normal(size=(n, len(CATALOGUE))).astype(np.float32),
    )


# Refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "live"}, r"mode 'live' is unknown\. Use one of 'record', 'shadow', 'gate'"),
        ({"min_confidence": 1.2}, r"min_confidence is 1\.2\. It is a probability"),
        ({"min_confidence": -0.1}, r"min_confidence is -0\.1\."),
        ({"min_confidence": float("nan")}, r"min_confidence is nan\."),
        ({"n_neighbours": 0}, r"n_neighbours is 0\."),
        ({"n_neighbours": 2.5}, r"n_neighbours is 2\.5\."),
        ({"model": "magic"}, r"model 'magic' is unknown\. Use one of 'auto', 'logistic', 'xgboost'"),
        ({"seed": -1}, r"seed is -1\."),
        ({"on_abstain": "open"}, r"on_abstain 'open' is unknown\. Use one of 'fail_open', 'fail_closed'"),
        ({"teachers": "all"}, r"teachers 'all' is unknown\. Use one of 'shadow', 'executed'"),
        ({"cost_r": -0.1}, r"cost_r is -0\.1\."),
    ],
)
def test_a_policy_refuses_what_it_cannot_do(options, message):
    with pytest.raises(DataError, match=message):
        Policy(**options)


def test_a_snapshot_of_other_features_is_refused(hourly):
    with pytest.raises(
        FeatureMismatch, match=rf"feature set eeeeeeeeeeee, this version computes {CATALOGUE.feature_set[:12]}"
    ):
        PatternMemory(hourly, KnownPatterns.empty("e" * 64, len(CATALOGUE)))
    others = {**CATALOGUE.versions, "ctx_rsi_7": "another"}
    del others["ctx_rsi_14"]
    known = replace(KnownPatterns.empty("e" * 64, len(CATALOGUE)), versions=others)
    with pytest.raises(FeatureMismatch, match=r"recorded without ctx_rsi_14; with another version of ctx_rsi_7\."):
        PatternMemory(hourly, known)


def test_a_memory_refuses_to_go_back(hourly):
    memory = walk(hourly, [make_entry(hourly, 200)])
    with pytest.raises(LookAheadError, match=r"entry of .* came after one of .*; sort the entries"):
        memory.decide(make_entry(hourly, 199))
    assert len(memory.decisions) == 1
    assert memory.decide(make_entry(hourly, 200, -1)).action == "abstain", "the same bar is not the past"


# One entry, one decision


def test_the_same_entry_gets_the_same_decision(hourly, hourly_entries):
    memory = walk(hourly, hourly_entries[:100], policy=SHADOW)
    before = decisions(memory)
    for entry, decision in zip(hourly_entries[:100], before, strict=True):
        assert memory.decide(entry) is decision, "also one that is long past"
    assert decisions(memory) == before
    assert len(memory.patterns()) == 100


def test_decisions_are_in_time_order(hourly_entries, first_walk):
    assert list(first_walk.decisions) == [entry.pattern_id for entry in hourly_entries]


def test_a_walk_is_repeatable(hourly, hourly_entries, first_walk):
    again = walk(hourly, hourly_entries[:110], policy=SHADOW)
    assert decisions(again) == decisions(first_walk)[:110]


@pytest.mark.parametrize("model", ["logistic", "xgboost"])
def test_contributions_name_the_inputs_and_come_largest_first(hourly, hourly_entries, model):
    known = noise(150, known_until=hourly_entries[0].known_at)
    known.features[:, 3] += np.where(known.is_win, 2, -2)
    policy = Policy(mode="shadow", model=model)
    explained = decisions(walk(hourly, hourly_entries[:12], known, policy))
    assert explained == decisions(walk(hourly, hourly_entries[:12], known, policy)), "a walk is repeatable"
    for decision in explained:
        assert decision.model == model
        assert CATALOGUE.names[3] in dict(decision.contributions)
        names, sizes = zip(*decision.contributions, strict=True)
        assert set(names) <= {*CATALOGUE.names, "entry_side", *NEIGHBOUR_FEATURES}
        assert len(set(names)) == len(names) <= 8
        assert len(names) == 8 or model == "xgboost", "trees may use fewer"
        assert all(sizes)
        assert list(np.abs(sizes)) == sorted(np.abs(sizes), reverse=True)


def test_the_base_rate_weighs_no_feature(first_walk):
    found = [d for d in decisions(first_walk) if d.model == "base_rate"]
    assert found
    assert not any(d.contributions for d in found)


def test_recording_scores_nothing(hourly, hourly_entries, first_walk):
    memory = walk(hourly, hourly_entries, snapshot(first_walk.patterns()), Policy(mode="record"))
    for decision in decisions(memory):
        assert (decision.action, decision.reason, decision.is_taken) == ("take", "record_only", True)
        assert decision.confidence is decision.model is decision.base_rate is decision.threshold is None
        assert (decision.n_known, decision.neighbours, decision.contributions) == (0, (), ())
    for recorded, scored in zip(memory.patterns(), first_walk.patterns(), strict=True):
        assert recorded.entry == scored.entry
        assert recorded.outcome == scored.outcome
        np.testing.assert_array_equal(recorded.features, scored.features)


def test_a_withdrawn_entry_leaves_no_trace(hourly, hourly_entries):
    kept, dropped = hourly_entries[:70], {entry.pattern_id for entry in hourly_entries[3:60:7]}
    memory = PatternMemory(hourly, policy=SHADOW)
    for entry in kept:
        memory.decide(entry)
        if entry.pattern_id in dropped:
            memory.withdraw(entry.pattern_id)
    without = walk(hourly, [entry for entry in kept if entry.pattern_id not in dropped], policy=SHADOW)
    assert decisions(memory) == decisions(without)
    assert [p.pattern_id for p in memory.patterns()] == [p.pattern_id for p in without.patterns()]
    memory.withdraw("never heard of")


# Snapshots


@pytest.mark.parametrize("has_confidence", [True, False], ids=["with scores", "without scores"])
def test_a_snapshot_of_the_same_patterns_changes_nothing(hourly, hourly_entries, first_walk, has_confidence):
    known = snapshot(first_walk.patterns(), has_confidence=has_confidence)
    assert len(known) > 100
    again = walk(hourly, hourly_entries, known, SHADOW)
    assert decisions(again) == decisions(first_walk)
    assert any(decision.confidence is not None for decision in decisions(again))


@pytest.mark.parametrize("has_confidence", [True, False], ids=["with scores", "without scores"])
def test_a_snapshot_of_the_same_patterns_leaves_the_gate_as_it_was(planted, planted_entries, has_confidence):
    policy = Policy(mode="gate", requirements=EAGER)
    first = walk(planted, planted_entries[:170], policy=policy)
    assert any(decision.action == "skip" for decision in decisions(first))
    again = walk(planted, planted_entries[:170], snapshot(first.patterns(), has_confidence=has_confidence), policy)
    assert decisions(again) == decisions(first)


def test_a_snapshot_of_a_part_changes_nothing(hourly, hourly_entries, first_walk):
    known = snapshot(first_walk.patterns()[::3])
    assert decisions(walk(hourly, hourly_entries, known, SHADOW)) == decisions(first_walk)


def test_another_market_enters_only_when_resolved(hourly):
    entries = [make_entry(hourly, bar) for bar in (300, 400, 500)]
    known = noise(40, known_until=entries[1].known_at)
    seen = [walk(hourly, [entry], known).decisions[entry.pattern_id] for entry in entries]
    n_before = int((known.resolved_at <= entries[0].known_at).sum())
    assert 0 < n_before < 40
    assert [decision.n_known for decision in seen] == [n_before, 40, 40]
    resolved = dict(zip(known.pattern_id, known.resolved_at, strict=True))
    for entry, decision in zip(entries[1:], seen[1:], strict=True):
        assert len(decision.neighbours) == 10
        assert all(resolved[n.pattern_id] == n.resolved_at <= entry.known_at for n in decision.neighbours)
    one_too_late = replace(known, resolved_at=known.resolved_at + 1)
    assert walk(hourly, entries[1:2], one_too_late).decisions[entries[1].pattern_id].n_known == 39


def test_what_the_snapshot_will_know_later_changes_nothing_now(hourly):
    entry = make_entry(hourly, 400)
    known = noise(90, known_until=entry.known_at + 100 * HOUR)
    is_later = known.resolved_at > entry.known_at
    assert 10 < is_later.sum() < 40
    lies = replace(
        known,
        is_win=known.is_win ^ is_later,
        r_multiple=np.where(is_later, 50.0, known.r_multiple),
        features=np.where(is_later[:, None], np.float32(9), known.features),
        confidence=np.where(is_later, 0.99, np.nan),
    )
    policy = Policy(mode="shadow", n_neighbours=4)
    assert decisions(walk(hourly, [entry], known, policy)) == decisions(walk(hourly, [entry], lies, policy))


def test_a_label_by_hand_wins_over_the_outcome(hourly, hourly_entries, first_walk):
    known = snapshot(first_walk.patterns())
    turned = replace(known, is_win=~known.is_win)
    is_win = dict(zip(turned.pattern_id, turned.is_win, strict=True))
    memory = walk(hourly, hourly_entries[:50], turned, SHADOW)
    neighbours = [n for d in decisions(memory) for n in d.neighbours]
    assert neighbours
    assert all(n.is_win == is_win[n.pattern_id] for n in neighbours)


def test_a_pattern_ignored_by_hand_is_never_known(hourly, hourly_entries, first_walk):
    """Its own run would know it; the label says otherwise."""
    used = [n.pattern_id for d in decisions(first_walk)[:60] for n in d.neighbours]
    ignored = max(set(used), key=lambda pattern_id: (used.count(pattern_id), pattern_id))
    known = replace(KnownPatterns.empty(CATALOGUE.feature_set, len(CATALOGUE)), ignored=frozenset({ignored}))
    memory = walk(hourly, hourly_entries[:60], known, SHADOW)
    assert all(n.pattern_id != ignored for d in decisions(memory) for n in d.neighbours)
    assert decisions(memory)[-1].n_known == decisions(first_walk)[59].n_known - 1
    assert ignored in {pattern.pattern_id for pattern in memory.patterns()}, "it is still registered"


# Why the gate abstains


def test_few_labels_are_named(hourly):
    entry = make_entry(hourly, 400)
    decision = walk(hourly, [entry], noise(30, known_until=entry.known_at)).decide(entry)
    assert (decision.action, decision.reason) == ("abstain", "few_labels: 30 of 62 outcomes known")
    assert len(decision.neighbours) == 10, "neighbours are shown before a model can speak"
    assert walk(hourly, [entry]).decide(entry).neighbours == ()


@pytest.mark.parametrize("n_known", [60, 61])
def test_few_labels_are_fewer_than_needed(hourly, n_known):
    entry = make_entry(hourly, 400)
    decision = walk(hourly, [entry], noise(n_known, known_until=entry.known_at)).decide(entry)
    if decision.reason.startswith("few_labels: ") and decision.model is None:
        seen, needed = (int(word) for word in decision.reason.split() if word.isdigit())
        assert seen < needed


def test_one_class_is_named(hourly):
    entry = make_entry(hourly, 400)
    decision = walk(hourly, [entry], noise(80, win_share=0.1, known_until=entry.known_at)).decide(entry)
    assert (decision.action, decision.model) == ("abstain", None)
    assert decision.reason == "one_class: fewer than 10 wins or losses of 75"


def test_the_base_rate_never_gates(hourly):
    """Scores of the past earned the right to skip, but no model can speak today."""
    entry = make_entry(hourly, 400)
    known = noise(150, known_until=entry.known_at, confidence=(0.8, 0.1), seed=2)
    decision = walk(hourly, [entry], known, Policy(requirements=EAGER)).decide(entry)
    assert decision.model == "base_rate"
    assert (decision.action, decision.reason) == ("abstain", "no_skill: no model beats the base rate now")
    assert decision.base_rate == pytest.approx(0.5)


def test_unskilled_scores_never_gate(hourly):
    entry = make_entry(hourly, 400)
    known = noise(150, known_until=entry.known_at, confidence=(0.1, 0.8), seed=1)
    decision = walk(hourly, [entry], known, Policy(requirements=EAGER)).decide(entry)
    assert decision.action == "abstain"
    assert decision.reason.startswith("no_skill: evidence -")


def test_too_few_scores_never_gate(hourly):
    entry = make_entry(hourly, 400)
    known = noise(150, known_until=entry.known_at, confidence=(0.8, 0.1), seed=1)
    decision = walk(hourly, [entry], known).decide(entry)
    assert decision.action == "abstain"
    assert decision.reason.startswith("few_labels: ")
    assert decision.reason.endswith("of 200 effective")


def test_a_random_walk_is_not_gated():
    bars = make_bars(random_walk(4_000, 8))
    memory = walk(bars, cross_entries(bars)[:220], policy=Policy(requirements=Requirements(60, 20)))
    assert any(decision.confidence is not None for decision in decisions(memory))
    assert {decision.action for decision in decisions(memory)} == {"abstain"}


# The gate at work


def test_the_gate_skips_and_the_shadow_says_so(planted, planted_entries):
    gate = decisions(walk(planted, planted_entries, policy=Policy(mode="gate", requirements=EAGER)))
    shadow = decisions(walk(planted, planted_entries, policy=Policy(mode="shadow", requirements=EAGER)))
    skips = [i for i, decision in enumerate(gate) if decision.action == "skip"]
    assert len(skips) > 20
    for ours, theirs in zip(gate, shadow, strict=True):
        assert ours.confidence == theirs.confidence, "an outcome does not depend on whether the entry was traded"
        assert ours.neighbours == theirs.neighbours
        assert theirs.is_taken
        if ours.action == "skip":
            assert not ours.is_taken
            assert ours.confidence < ours.threshold
            assert ours.reason == f"unconvinced: {ours.confidence:.3f} < {ours.threshold:.3f}"
            assert (theirs.action, theirs.reason) == ("take", ours.reason.replace("unconvinced", "would_skip"))
        else:
            assert ours == theirs
        if ours.action == "take":
            assert ours.confidence >= ours.threshold
            assert ours.reason.startswith("confident: ")


def test_what_the_gate_skips_is_worse_than_what_it_takes(planted, planted_entries):
    memory = walk(planted, planted_entries, policy=Policy(requirements=EAGER))
    r_multiple = {"skip": [], "take": []}
    for pattern in memory.patterns():
        action = memory.decisions[pattern.pattern_id].action
        if pattern.outcome is not None and action in r_multiple:
            r_multiple[action].append(pattern.outcome.r_multiple)
    assert len(r_multiple["skip"]) > 20
    assert np.mean(r_multiple["skip"]) < min(0.0, np.mean(r_multiple["take"]))


def test_min_confidence_is_the_threshold(planted, planted_entries):
    policy = Policy(mode="gate", min_confidence=0.0, requirements=EAGER)
    memory = walk(planted, planted_entries[:170], policy=policy)
    assert {d.threshold for d in decisions(memory) if d.confidence is not None} == {0.0}
    assert all(decision.is_taken for decision in decisions(memory))


def test_fail_closed_skips_what_cannot_be_judged(hourly, hourly_entries, first_walk):
    few = hourly_entries[:30]
    closed = decisions(walk(hourly, few, policy=Policy(on_abstain="fail_closed")))
    assert {(d.action, d.reason.rpartition(" ")[2], d.is_taken) for d in closed} == {("skip", "(fail_closed)", False)}
    shadow = decisions(walk(hourly, few, policy=Policy(mode="shadow", on_abstain="fail_closed")))
    for theirs, ours in zip(shadow, closed, strict=True):
        assert (theirs.action, theirs.reason) == ("take", f"would_skip: {ours.reason}")


def test_executed_memory_learns_only_from_what_was_not_skipped(planted, planted_entries):
    entries = planted_entries[:170]
    shadow = decisions(walk(planted, entries, policy=Policy(requirements=EAGER)))
    executed = decisions(walk(planted, entries, policy=Policy(requirements=EAGER, teachers="executed")))
    first = [decision.action for decision in shadow].index("skip")
    assert executed[: first + 1] == shadow[: first + 1]
    n_skipped = sum(decision.action == "skip" for decision in executed)
    assert n_skipped > 3
    assert executed[-1].n_known < shadow[-1].n_known - n_skipped / 2


def test_a_decision_holds_its_interval_and_its_bucket(planted, planted_entries):
    judged = [d for d in decisions(walk(planted, planted_entries[:170], policy=Policy())) if d.confidence is not None]
    assert all(d.low <= d.confidence <= d.high for d in judged)
    assert any(d.bucket and d.bucket.low <= d.confidence for d in judged)
    assert "past entries with P(win)" in str(judged[-1].explain())


def test_n_neighbours_is_obeyed(hourly, hourly_entries):
    memory = walk(hourly, hourly_entries[:60], policy=Policy(mode="shadow", n_neighbours=3))
    assert max(len(decision.neighbours) for decision in decisions(memory)) == 3
    for decision in decisions(memory):
        distances = [neighbour.distance for neighbour in decision.neighbours]
        assert distances == sorted(distances)


def test_a_memory_makes_the_entries_of_its_series(hourly):
    memory = PatternMemory(hourly)
    entry = memory.entry(400, -1, stop_px=hourly.close[400] * 1.01)
    assert (entry.known_at, entry.symbol, entry.bar) == (hourly.known_at[400], hourly.symbol, 400)
    assert entry.target_px < entry.reference_px < entry.stop_px
    assert memory.decide(entry).action == "abstain"


@pytest.mark.parametrize(
    "arguments",
    [{"bar": -1, "side": 1}, {"bar": 10**6, "side": 1}, {"bar": 5, "side": 0}, {"bar": 5, "side": 1, "fill": "x"}],
)
def test_an_impossible_entry_is_refused(hourly, arguments):
    with pytest.raises(DataError, match=r"lies outside the|is no entry"):
        PatternMemory(hourly).entry(**arguments)


def test_an_entry_of_another_series_is_refused(hourly):
    entry = PatternMemory(hourly).entry(400, 1)
    for change in ({"known_at": entry.known_at + 1}, {"bar": 10**6}, {"symbol": "OTHER"}):
        with pytest.raises(DataError, match=r"is not of the .* bars of .* that this memory walks"):
            PatternMemory(hourly).decide(replace(entry, **change))


def test_a_frame_is_no_series():
    with pytest.raises(DataError, match=r"a memory walks over Bars, not over a DataFrame"):
        PatternMemory(pd.DataFrame())
