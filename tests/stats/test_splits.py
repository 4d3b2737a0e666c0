import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qml_plugin.errors import DataError
from qml_plugin.stats.splits import purged_walk_forward


def naive_training_rows(known_at, resolved_at, test):
    """Every event decided before the block and resolved before its first decision, found one by one."""
    first = min(known_at[i] for i in test)
    return {i for i in range(len(known_at)) if i not in set(test) and known_at[i] < first and resolved_at[i] < first}


@settings(max_examples=60, deadline=None)
@given(
    events=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 12)), min_size=5, max_size=40),
    n_splits=st.integers(1, 4),
)
def test_training_rows_are_those_resolved_before_the_block(events, n_splits):
    known_at = np.array([begin for begin, _ in events])
    resolved_at = known_at + np.array([length for _, length in events])
    splits = purged_walk_forward(known_at, resolved_at, n_splits)
    assert len(splits) == n_splits
    for train, test in splits:
        assert set(train.tolist()) == naive_training_rows(known_at, resolved_at, test.tolist())


def test_blocks_are_contiguous_and_cover_the_later_part():
    rng = np.random.default_rng(0)
    known_at = rng.permutation(103)
    splits = purged_walk_forward(known_at, known_at, 4)
    tested = np.concatenate([test for _, test in splits])
    np.testing.assert_array_equal(known_at[tested], np.arange(20, 103))
    assert [len(test) for _, test in splits] == [21, 21, 21, 20]


def test_a_training_set_may_be_empty():
    known_at = np.arange(10)
    (train, _), *_ = purged_walk_forward(known_at, known_at + 100, 3)
    assert len(train) == 0


def test_later_events_do_not_change_the_training_rows():
    known_at = np.arange(50)
    resolved_at = known_at + np.arange(50) % 7
    changed = resolved_at.copy()
    changed[40:] += 1000
    for (train, test), (train_too, test_too) in zip(
        purged_walk_forward(known_at, resolved_at, 4), purged_walk_forward(known_at, changed, 4), strict=True
    ):
        np.testing.assert_array_equal(test, test_too)
        if test[0] <= 40:
            np.testing.assert_array_equal(train, train_too)


@pytest.mark.parametrize(
    ("known_at", "resolved_at", "n_splits", "message"),
    [
        ([1, 2, 3], [1, 2], 1, "known_at has 3 events and resolved_at 2"),
        ([1, 2, 3], [1, 2, 3], 3, "3 events cannot be cut into 3"),
        ([1, 2, 3], [1, 2, 3], 0, "cannot be cut into 0"),
        ([1, 2, 3], [1, 1, 3], 1, "event 1 resolves at 1, before it is known at 2"),
    ],
)
def test_refuses(known_at, resolved_at, n_splits, message):
    with pytest.raises(DataError, match=message):
        purged_walk_forward(np.array(known_at), np.array(resolved_at), n_splits)
