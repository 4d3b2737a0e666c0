import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qml_plugin.errors import DataError
from qml_plugin.gate import Evidence, Requirements
from tests.gate import naive

HOUR = 3_600_000_000


def scored(n, seed=0, *, skill=1.0, dies_at=None, hold=0):
    """Rows of (confidence, reference, is_win, known_at, resolved_at, group), in the order in which they resolve."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.15, 0.65, n)
    known = np.where(np.arange(n) < (dies_at or n), truth, 0.4)
    is_win = rng.random(n) < known
    confidence = 0.4 + skill * (truth - 0.4)
    return [
        (float(c), 0.4, bool(w), i * HOUR, (i + hold) * HOUR + 1, "X")
        for i, (c, w) in enumerate(zip(confidence, is_win, strict=True))
    ]  # fmt: skip


def told(rows, requirements=None):
    evidence = Evidence(requirements or Requirements())
    for row in rows:
        evidence.add(*row)
    return evidence


def test_scores_with_skill_become_active_and_stay_so():
    states, evidence = [], Evidence()
    for row in scored(1500):
        evidence.add(*row)
        states.append(evidence.verdict().is_active)
    first = states.index(True)
    assert 199 <= first < 300
    assert np.mean(states[first:]) > 0.9
    verdict = evidence.verdict()
    assert verdict.reason == "active"
    assert verdict.evidence > -math.log(0.1)
    assert 0 < verdict.brier_skill < 1


def test_reasons_come_in_order():
    assert told(scored(93)).verdict().reason == "few_labels: 93 of 200 effective"
    few_wins = [(*row[:2], i % 10 == 0, *row[3:]) for i, row in enumerate(scored(300))]
    assert told(few_wins).verdict().reason == "one_class: 30 of 50 wins"
    few_losses = [(*row[:2], i % 10 != 0, *row[3:]) for i, row in enumerate(scored(300))]
    assert told(few_losses).verdict().reason == "one_class: 30 of 50 losses"
    upside_down = told(scored(600, skill=-1.0)).verdict()
    assert upside_down.reason.startswith("no_skill: evidence -")
    assert upside_down.brier_skill < 0


def test_nothing_scored_is_few_labels():
    verdict = Evidence().verdict()
    assert verdict.reason == "few_labels: 0 of 200 effective"
    assert math.isnan(verdict.brier_skill)


def test_a_signal_that_dies_is_let_go_and_may_return():
    alive, within, returned, reasons = [], [], [], set()
    for seed in range(10):
        rows = scored(900, seed, dies_at=600) + [
            (*row[:3], row[3] + 900 * HOUR, row[4] + 900 * HOUR, "X") for row in scored(600, seed + 50)
        ]  # fmt: skip
        evidence, states = Evidence(), []
        for row in rows:
            evidence.add(*row)
            states.append(evidence.is_active)
            reasons.add(evidence.verdict().reason.split(",")[0])
        alive.append(np.mean(states[250:600]))
        within.append(not all(states[600:750]))
        returned.append(np.mean(states[1200:]))
    assert np.mean(alive) > 0.9
    assert np.mean(within) >= 0.9
    assert np.mean(returned) > 0.8
    assert "no_skill: let go" in reasons


def test_without_skill_it_is_seldom_ever_active():
    """Confidences that scatter about the base rate and know nothing, asked after every entry."""
    n_active = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        evidence = Evidence()
        for i in range(800):
            evidence.add(float(rng.uniform(0.33, 0.47)), 0.4, bool(rng.random() < 0.4), i * HOUR, i * HOUR + 1)
        n_active += evidence.was_active
    assert n_active / 300 <= 0.10


def test_the_same_move_is_not_counted_twice():
    once = scored(400)
    twice = [row for row in once for _ in range(2)]
    one, two = told(once), told(twice)
    assert two.effective_labels == pytest.approx(one.effective_labels) == pytest.approx(400)
    assert two.evidence == pytest.approx(one.evidence)
    elsewhere = [(*row[:5], group) for row in once for group in "XY"]
    assert told(elsewhere).effective_labels == pytest.approx(800)


@settings(max_examples=100, deadline=None)
@given(
    labels=st.lists(
        st.tuples(st.integers(0, 30), st.integers(0, 12), st.sampled_from("AB"), st.floats(0.05, 0.95), st.booleans()),
        max_size=40,
    )
)
def test_the_running_account_equals_the_one_made_from_scratch(labels):
    requirements = Requirements(min_labels=3, min_per_class=1, level=0.7)
    rows = sorted(
        [(c, 0.4, win, begin, begin + length, group) for begin, length, group, c, win in labels], key=lambda row: row[4]
    )
    evidence = told(rows, requirements)
    is_active, code, n_effective, total = naive.account(rows, requirements)
    assert evidence.is_active == is_active
    assert evidence.verdict().reason.split(":")[0] == code
    assert evidence.effective_labels == pytest.approx(n_effective, abs=1e-9)
    assert evidence.evidence == pytest.approx(total, abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_a_long_account_equals_the_one_made_from_scratch(seed):
    requirements = Requirements(min_labels=50, min_per_class=10, level=0.3)
    rows = scored(260, seed, dies_at=150, hold=2)
    assert told(rows, requirements).is_active == naive.account(rows, requirements)[0]


def test_a_certainty_that_was_wrong_costs_much_but_not_everything():
    evidence = told([(1.0, 0.4, False, 0, 1, "")])
    assert -15 < evidence.evidence < -10


def test_impossible_rows_are_refused():
    evidence = told(scored(3))
    with pytest.raises(DataError, match=r"confidence is 1\.2\. It is a probability"):
        evidence.add(1.2, 0.4, True, 10, 11)
    with pytest.raises(DataError, match="reference is nan"):
        evidence.add(0.4, math.nan, True, 10, 11)
    with pytest.raises(DataError, match="Add labels in the order in which they resolved"):
        evidence.add(0.4, 0.4, True, 0, HOUR, "X")
    with pytest.raises(DataError, match="Add labels in the order in which they resolved"):
        evidence.add(0.4, 0.4, True, 9 * HOUR, 8 * HOUR, "Y")
    assert evidence.n_wins + evidence.n_losses == 3
