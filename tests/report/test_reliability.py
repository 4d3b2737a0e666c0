from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qml_plugin.errors import DataError
from qml_plugin.report.reliability import reliability_bins


def test_bins_of_a_hand_computed_example():
    confidence = np.array([0.9] * 5 + [0.7] * 5 + [0.2] * 4 + [0.3] * 6)
    is_win = np.array([1, 1, 1, 1, 0, 1, 1, 1, 0, 0, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0], dtype=bool)
    low, high = reliability_bins(confidence, is_win)
    assert (low.n, high.n) == (10, 10)
    assert low.confidence == pytest.approx((4 * 0.2 + 6 * 0.3) / 10)
    assert high.confidence == pytest.approx(0.8)
    assert (low.win_share, high.win_share) == (0.3, 0.7)
    assert (low.low, low.high) == pytest.approx((0.10779, 0.60322), abs=1e-5)


def test_equal_confidences_share_a_bin():
    bins = reliability_bins(np.full(100, 0.4), np.arange(100) % 2 == 0)
    assert [(b.n, b.win_share) for b in bins] == [(100, 0.5)]
    assert bins[0].confidence == pytest.approx(0.4)


def test_too_few_scores_and_scores_that_are_missing():
    confidence = np.linspace(0.1, 0.9, 20)
    is_win = confidence > 0.5
    assert len(reliability_bins(confidence, is_win)) == 2
    assert reliability_bins(confidence[1:], is_win[1:]) == ()
    confidence[4] = np.nan
    assert reliability_bins(confidence, is_win) == ()
    assert reliability_bins(np.empty(0), np.empty(0, bool)) == ()


def test_lengths_that_differ_are_refused():
    with pytest.raises(DataError, match="2 confidences and 3 outcomes"):
        reliability_bins(np.array([0.1, 0.2]), np.array([True, False, True]))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=20, max_size=300))
def test_bins_hold_every_score_once_and_their_intervals_hold_the_share(scores):
    confidence = np.array([score / 20 for score, _ in scores])
    is_win = np.array([won for _, won in scores])
    bins = reliability_bins(confidence, is_win)
    assert sum(b.n for b in bins) == len(scores)
    assert sum(b.n * b.win_share for b in bins) == pytest.approx(is_win.sum())
    assert all(0 <= b.low <= b.win_share + 1e-12 and b.win_share <= b.high + 1e-12 <= 1 + 1e-9 for b in bins)
    assert all(a.confidence < b.confidence for a, b in pairwise(bins))


def test_without_ties_the_counts_differ_by_one_at_most():
    confidence = np.random.default_rng(0).permutation(237) / 237
    counts = [b.n for b in reliability_bins(confidence, confidence > 0.5)]
    assert len(counts) == 10
    assert max(counts) - min(counts) <= 1
