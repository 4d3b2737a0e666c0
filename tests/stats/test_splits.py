import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score

from qml_plugin.errors import DataError
from qml_plugin.stats.splits import CombinatorialPurgedCV, PurgedWalkForward, purged_walk_forward


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


@settings(max_examples=60, deadline=None)
@given(
    events=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12)), min_size=6, max_size=40),
    embargo=st.integers(0, 5),
)
def test_no_combinatorial_training_label_meets_a_test_label(events, embargo):
    known_at = np.array([begin for begin, _ in events])
    resolved_at = known_at + np.array([length for _, length in events])
    splitter = CombinatorialPurgedCV(known_at, resolved_at, n_blocks=4, n_test_blocks=2, embargo=embargo)
    splits = list(splitter.split(np.empty((len(events), 1))))
    assert len(splits) == splitter.get_n_splits() == 6
    for train, test in splits:
        assert not set(train) & set(test)
        for i in train:
            for j in test:
                assert resolved_at[i] < known_at[j] or known_at[i] > resolved_at[j]
    tested = np.concatenate([test for _, test in splits])
    assert (np.bincount(tested) == 3).all()


def test_an_embargo_follows_each_test_block():
    known_at = np.arange(40)
    splitter = CombinatorialPurgedCV(known_at, known_at, n_blocks=4, n_test_blocks=1, embargo=3)
    assert [sorted(set(range(40)) - set(train) - set(test)) for train, test in splitter.split()] == [
        [10, 11, 12], [20, 21, 22], [30, 31, 32], [],
    ]  # fmt: skip


def test_paths_use_each_test_of_a_block_once():
    known_at = np.arange(60)
    splitter = CombinatorialPurgedCV(known_at, known_at, n_blocks=6, n_test_blocks=2)
    paths = splitter.paths()
    assert paths.shape == (5, 6)
    tests = [set(test // 10) for _, test in splitter.split()]
    for block in range(6):
        assert sorted(paths[:, block]) == [i for i, tested in enumerate(tests) if block in tested]


def test_both_splitters_work_in_scikit_learn():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 3))
    y = X[:, 0] + rng.normal(size=200) > 0
    known_at = rng.permutation(200)
    for splitter in (
        PurgedWalkForward(known_at, known_at + 5, n_splits=4),
        CombinatorialPurgedCV(known_at, known_at + 5, n_blocks=5),
    ):
        scores = cross_val_score(LogisticRegression(), X, y, cv=splitter)
        assert len(scores) == splitter.get_n_splits(X)
        assert scores.mean() > 0.6
    search = GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=PurgedWalkForward(known_at, known_at + 5))
    assert search.fit(X, y).n_splits_ == 5


def test_the_walk_forward_splitter_gives_the_splits_of_the_function():
    known_at = np.arange(50)
    resolved_at = known_at + known_at % 7
    splitter = PurgedWalkForward(known_at, resolved_at, n_splits=4)
    for mine, theirs in zip(splitter.split(), purged_walk_forward(known_at, resolved_at, 4), strict=True):
        np.testing.assert_array_equal(mine[0], theirs[0])
        np.testing.assert_array_equal(mine[1], theirs[1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda t: PurgedWalkForward(t, t - 1), "event 0 resolves at -1"),
        (lambda t: PurgedWalkForward(t, t, n_splits=20), "10 events cannot be cut into 20"),
        (lambda t: CombinatorialPurgedCV(t, t, n_blocks=2, n_test_blocks=2), "2 of 2 blocks of 10 events"),
        (lambda t: CombinatorialPurgedCV(t, t, n_blocks=11), "2 of 11 blocks of 10 events"),
        (lambda t: CombinatorialPurgedCV(t, t, embargo=-1), "embargo -1 refused"),
        (lambda t: CombinatorialPurgedCV(np.arange(99), np.arange(99), 40, 20), "more than 10000"),
        (lambda t: list(CombinatorialPurgedCV(t, t).split(np.empty(9))), "X has 9 rows and the splitter 10 events"),
        (lambda t: list(PurgedWalkForward(t, t).split(np.empty((11, 2)))), "X has 11 rows and the splitter 10 events"),
    ],
)
def test_impossible_splitters_are_refused(make, message):
    with pytest.raises(DataError, match=message):
        make(np.arange(10))
