import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qml_plugin.errors import DataError
from qml_plugin.gate import best_threshold, break_even_confidence, expected_r
from tests.gate import naive


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


def test_what_an_entry_was_worth_is_half_what_it_brought():
    r_multiple = np.array([2.0, 1.0, -1.0])
    worth = expected_r(np.array([0.5, 0.4, 0.0]), r_multiple, r_multiple > 0)
    np.testing.assert_allclose(worth, [(2 + 0.5 * 1.5 - 0.5) / 2, (1 + 0.4 * 1.5 - 0.6) / 2, -1.0])
    np.testing.assert_array_equal(expected_r(np.full(2, 0.5), np.ones(2), np.ones(2, bool)), np.ones(2))


def test_the_best_threshold_by_hand():
    confidence, worth = np.array([0.2, 0.3, 0.5, 0.6]), np.array([-1.0, -0.5, 0.25, 1.0])
    assert best_threshold(confidence, worth, 0.4) == 0.5
    assert best_threshold(confidence, -np.abs(worth), 0.4) == 0.4, "no threshold earns"
    assert best_threshold(np.empty(0), np.empty(0), 0.4) == 0.4
    assert best_threshold(np.array([0.3, 0.3, 0.5]), np.array([1.0, -2.0, 0.5]), 0.4) == 0.5, "equals go together"


@given(st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5]), st.integers(-4, 4), st.just(1.0)), min_size=1))
def test_the_best_threshold_is_that_of_trying_all(rows):
    scored = [(c, float(r), r > 0, w) for c, r, w in rows] + [(0.35, 1.0, True, 1.0), (0.35, -1.0, False, 1.0)]
    r_multiple = np.array([row[1] for row in scored])
    is_win = r_multiple > 0
    confidence = np.array([row[0] for row in scored])
    worth = expected_r(confidence, r_multiple, is_win)
    found = best_threshold(confidence, worth, -1.0)
    tried = naive.threshold(scored, r_multiple, is_win)

    def earned(threshold):
        return worth[confidence >= threshold].sum()

    if found == -1.0:
        assert max(earned(c) for c in confidence) <= 1e-12
    else:
        assert earned(found) == pytest.approx(earned(tried))
