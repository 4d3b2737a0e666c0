import math

import numpy as np
import pytest

from qml_plugin.errors import DataError
from qml_plugin.gate import Requirements, break_even_confidence, fit_confidence, judge
from tests.gate import worlds


def scored_past(n_entries=400, seed=0, *, skill=1.0):
    """Scores that tell wins from losses as well as `skill` says, and R of +1.5 and -1."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.1, 0.7, n_entries)
    is_win = rng.random(n_entries) < truth
    confidence = 0.4 + skill * (truth - 0.4)
    return {
        "confidence": confidence,
        "threshold": 0.4,
        "is_win": is_win,
        "r_multiple": np.where(is_win, 1.5, -1.0),
        "weight": np.full(n_entries, 0.9),
        "reference": np.full(n_entries, 0.4),
    }


def test_scores_with_skill_are_active():
    verdict = judge(**scored_past(), seed=1)
    assert (verdict.is_active, verdict.reason) == (True, "active")
    assert verdict.effective_labels == pytest.approx(360)
    assert 0 < verdict.brier_skill < 1
    past = scored_past()
    saved = -past["r_multiple"][past["confidence"] < 0.4].sum()
    assert 0 < verdict.saved_lower_bound < saved


def test_reasons_come_in_order():
    assert judge(**scored_past(93), seed=1).reason == "few_labels: 83 of 200 effective"
    past = scored_past() | {"is_win": np.arange(400) >= 12}
    assert judge(**past, seed=1).reason == "one_class: 12 of 50 losses"
    past = scored_past() | {"is_win": np.arange(400) < 49}
    assert judge(**past, seed=1).reason == "one_class: 49 of 50 wins"
    past = scored_past()
    past["confidence"] = 0.8 - past["confidence"]
    assert judge(**past, seed=1).reason.startswith("no_skill: Brier skill -0.")
    past = scored_past() | {"threshold": 0.0}
    assert judge(**past, seed=1).reason == "no_gain: lower bound of saved R 0.0"
    past = scored_past()
    past["r_multiple"] = np.where(past["is_win"], 20.0, -1.0)
    assert judge(**past, seed=1).reason.startswith("no_gain: lower bound of saved R -")


def test_what_was_not_asked_is_missing():
    verdict = judge(**scored_past(50), seed=1)
    assert math.isnan(verdict.brier_skill)
    assert math.isnan(verdict.saved_lower_bound)
    assert not verdict.is_active


def test_nothing_scored_is_few_labels():
    empty = np.array([])
    verdict = judge(empty, 0.5, np.array([], bool), empty, empty, empty, seed=1)
    assert verdict.reason == "few_labels: 0 of 200 effective"


def test_a_perfect_reference_leaves_no_skill():
    past = scored_past()
    past["reference"] = past["is_win"].astype(float)
    assert judge(**past, seed=1).reason == "no_skill: Brier skill nan"


def test_limits_are_met_when_reached():
    past = scored_past(200) | {"weight": np.ones(200)}
    assert not judge(**past, seed=1).reason.startswith("few_labels")
    past["weight"][0] = 0.999
    assert judge(**past, seed=1).reason == "few_labels: 199 of 200 effective"


def test_requirements_may_be_chosen():
    past = scored_past(190)
    assert judge(**past, seed=1).reason.startswith("few_labels")
    assert judge(**past, seed=1, requirements=Requirements(min_labels=100)).reason == "active"


def test_the_same_seed_gives_the_same_verdict():
    assert judge(**scored_past(), seed=4) == judge(**scored_past(), seed=4)
    assert judge(**scored_past(), seed=4) != judge(**scored_past(), seed=5)


def prequential(world, seed, refit_at=(150, 250, 400)):
    """Verdict after walking through a world: each score comes from a model fitted on what was resolved before."""
    features, is_win, weight, known_at, resolved_at = world
    r_multiple = np.where(is_win, 1.2, -1.0)
    confidence = np.full(len(is_win), np.nan)
    reference = confidence.copy()
    for start, end in zip(refit_at, (*refit_at[1:], len(is_win)), strict=True):
        past = np.flatnonzero(resolved_at <= known_at[start])
        model = fit_confidence(*(column[past] for column in world), seed=seed)
        confidence[start:end] = model.predict(features[start:end])
        reference[start:end] = model.base_rate
    scored = np.arange(refit_at[0], len(is_win))
    past = np.arange(refit_at[0])
    columns = (is_win[scored], r_multiple[scored], weight[scored], reference[scored])
    return judge(confidence[scored], break_even_confidence(r_multiple[past], is_win[past]), *columns, seed=seed)


def test_a_planted_signal_activates_the_gate():
    verdict = prequential(worlds.linear(700, 3, strength=1.0), seed=1)
    assert verdict.is_active, verdict.reason
    assert verdict.saved_lower_bound > 0


def test_without_a_signal_the_gate_stays_silent():
    verdicts = [prequential(worlds.linear(700, seed, strength=0.0), seed=1) for seed in range(8)]
    assert sum(verdict.is_active for verdict in verdicts) <= 1, [verdict.reason for verdict in verdicts]


def test_break_even_by_hand():
    r_multiple = np.array([2.0, 1.0, -1.0, -0.5, -1.5])
    confidence = break_even_confidence(r_multiple, r_multiple > 0)
    assert confidence == pytest.approx(1.0 / 2.5)
    assert confidence * 1.5 - (1 - confidence) * 1.0 == pytest.approx(0.0)


@pytest.mark.parametrize("r_multiple", [[], [1.0, 2.0], [-1.0], [0.0, 1.0]])
def test_break_even_is_a_half_where_the_past_cannot_tell(r_multiple):
    r_multiple = np.array(r_multiple)
    assert break_even_confidence(r_multiple, r_multiple > 0) == 0.5


def test_break_even_is_a_half_where_labels_by_hand_contradict_the_outcomes():
    assert break_even_confidence(np.array([-1.0, 1.0]), np.array([True, False])) == 0.5


def test_break_even_refuses_unresolved_entries():
    with pytest.raises(DataError, match="got 2 r_multiple, 1 of them not finite, and 2 outcomes"):
        break_even_confidence(np.array([1.0, np.nan]), np.array([True, False]))
    with pytest.raises(DataError, match="got 2 r_multiple, 0 of them not finite, and 1 outcomes"):
        break_even_confidence(np.array([1.0, 2.0]), np.array([True]))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("confidence", 1.2, "confidence of entry 7 is 1.2"),
        ("confidence", np.nan, "confidence of entry 7 is nan"),
        ("reference", -0.1, "reference of entry 7 is -0.1"),
        ("weight", 0.0, "weight of entry 7 is 0.0"),
        ("r_multiple", np.inf, "r_multiple of entry 7 is inf"),
    ],
)
def test_impossible_numbers_are_refused(name, value, message):
    past = scored_past(50)
    past[name][7] = value
    with pytest.raises(DataError, match=message):
        judge(**past, seed=1)


def test_columns_of_different_length_are_refused():
    past = scored_past(50)
    past["weight"] = past["weight"][1:]
    with pytest.raises(DataError, match="weight has 49 entries and is_win 50"):
        judge(**past, seed=1)


def test_an_impossible_threshold_is_refused():
    with pytest.raises(DataError, match=r"threshold 1\.5 is no probability"):
        judge(**(scored_past(50) | {"threshold": 1.5}), seed=1)
