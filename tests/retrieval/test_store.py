import threading

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qml_plugin.errors import RetrievalError
from qml_plugin.retrieval import VectorStore


def naive_search(vectors, resolved_at, query, as_of, k, mask=None):
    """Measure every row, keep the known ones, sort by distance and row."""
    found = []
    for row, (vector, at) in enumerate(zip(vectors, resolved_at, strict=True)):
        if at <= as_of and (mask is None or mask[row]):
            found.append((np.sqrt(((vector.astype(float) - query.astype(float)) ** 2).sum()), row))
    return sorted(found)[:k], len(found)


def assert_equals_naive(store, vectors, resolved_at, query, as_of, k, mask=None):
    expected, n_eligible = naive_search(vectors, resolved_at, query, as_of, k, mask)
    hits = store.search(query, as_of=as_of, k=k, mask=mask)
    assert hits.n_eligible == n_eligible
    assert len(hits) == len(expected)
    assert hits.rows.dtype == np.int64
    np.testing.assert_array_equal(hits.rows, [row for _, row in expected])
    np.testing.assert_allclose(hits.distances, [distance for distance, _ in expected], rtol=1e-12)


def filled(vectors, resolved_at):
    store = VectorStore(vectors.shape[1])
    store.add(vectors, resolved_at)
    return store


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_rows=st.integers(0, 120),
    dim=st.integers(1, 20),
    k=st.integers(1, 12),
    n_values=st.sampled_from([2, 3, 50]),
    has_mask=st.booleans(),
)
def test_equals_measuring_every_row(seed, n_rows, dim, k, n_values, has_mask):
    # Few distinct values make many rows equal, and many more equally far.
    rng = np.random.default_rng(seed)
    vectors = rng.integers(n_values, size=(n_rows, dim)).astype(np.float32)
    resolved_at = np.sort(rng.integers(0, 30, n_rows))
    query = rng.integers(n_values, size=dim).astype(np.float32)
    mask = rng.random(n_rows) < 0.5 if has_mask else None
    assert_equals_naive(filled(vectors, resolved_at), vectors, resolved_at, query, int(rng.integers(0, 32)), k, mask)


@pytest.mark.parametrize("dim", [3, 16, 100])
def test_equals_measuring_every_row_of_a_large_store(dim):
    rng = np.random.default_rng(dim)
    vectors = rng.normal(size=(3000, dim)).astype(np.float32)
    vectors[1500:1540] = vectors[7]  # more equals than spare candidates
    resolved_at = np.sort(rng.integers(0, 10_000, 3000))
    store = filled(vectors, resolved_at)
    for as_of in (0, 4000, 10_000):
        for query in (vectors[7], rng.normal(size=dim).astype(np.float32)):
            assert_equals_naive(store, vectors, resolved_at, query, as_of, 10)


def test_distances_too_close_for_single_precision_are_told_apart():
    rng = np.random.default_rng(5)
    vectors = np.full((500, 8), 1000.0, np.float32) + rng.integers(0, 2, (500, 8)).astype(np.float32) * np.float32(1e-4)
    resolved_at = np.arange(500)
    query = np.full(8, 1.0, np.float32)
    assert_equals_naive(filled(vectors, resolved_at), vectors, resolved_at, query, 500, 5)


@pytest.mark.parametrize("magnitude", [1e-30, 1e30])
def test_distances_beyond_single_precision_are_exact(magnitude):
    vectors = (np.random.default_rng(6).normal(size=(200, 5)) * magnitude).astype(np.float32)
    assert_equals_naive(filled(vectors, np.arange(200)), vectors, np.arange(200), vectors[3], 200, 4)


def test_rows_not_yet_known_change_nothing():
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(400, 30)).astype(np.float32)
    resolved_at = np.sort(rng.integers(0, 100, 400))
    query = rng.normal(size=30).astype(np.float32)
    for as_of in (-1, 0, 37, 99):
        later = resolved_at > as_of
        other = vectors.copy()
        other[later] = query
        other_at = np.where(later, resolved_at + 1000, resolved_at)
        one = filled(vectors, resolved_at).search(query, as_of=as_of, k=9)
        two = filled(other, other_at).search(query, as_of=as_of, k=9)
        three = filled(vectors[~later], resolved_at[~later]).search(query, as_of=as_of, k=9)
        for changed in (two, three):
            np.testing.assert_array_equal(one.rows, changed.rows)
            np.testing.assert_array_equal(one.distances, changed.distances)
            assert one.n_eligible == changed.n_eligible


def test_adding_row_by_row_is_adding_at_once():
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(1500, 6)).astype(np.float32)  # grows twice
    resolved_at = np.sort(rng.integers(0, 50, 1500))
    store = VectorStore(6)
    for vector, at in zip(vectors, resolved_at, strict=True):
        store.add(vector, at)
    whole = filled(vectors, resolved_at)
    assert len(store) == len(whole) == 1500
    for query in vectors[:5]:
        one, two = (each.search(query, as_of=40, k=7) for each in (store, whole))
        np.testing.assert_array_equal(one.rows, two.rows)
        np.testing.assert_array_equal(one.distances, two.distances)


def test_many_queries_are_answered_as_one_by_one():
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(300, 10)).astype(np.float32)
    store = filled(vectors, np.arange(300))
    as_of = rng.integers(-5, 300, 25)
    for query, at, hits in zip(vectors, as_of, store.search_many(vectors[:25], as_of=as_of, k=4), strict=False):
        alone = store.search(query, as_of=int(at), k=4)
        np.testing.assert_array_equal(hits.rows, alone.rows)
        np.testing.assert_array_equal(hits.distances, alone.distances)


def test_searching_while_another_thread_adds():
    rng = np.random.default_rng(4)
    vectors = rng.normal(size=(20_000, 12)).astype(np.float32)
    query = rng.normal(size=12).astype(np.float32)
    store = VectorStore(12)
    store.add(vectors[:500], np.arange(500))
    expected = store.search(query, as_of=499, k=10)
    done = threading.Event()
    wrong = []

    def ask():
        while not done.is_set():
            before = len(store)
            past = store.search(query, as_of=499, k=10)
            latest = store.search(query, as_of=10**9, k=10)
            if not np.array_equal(past.rows, expected.rows) or latest.n_eligible < before:
                wrong.append((past, latest))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for start in range(500, 20_000, 50):
        store.add(vectors[start : start + 50], np.arange(start, start + 50))
    done.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert_equals_naive(store, vectors, np.arange(20_000), query, 19_999, 10)


def test_the_number_of_threads_is_restored():
    before = faiss.omp_get_max_threads()
    store = filled(np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32), np.arange(200))
    try:
        faiss.omp_set_num_threads(3)
        store.search(np.zeros(4, np.float32), as_of=200, k=2)
        assert faiss.omp_get_max_threads() == 3
    finally:
        faiss.omp_set_num_threads(before)


def test_a_mask_may_reach_beyond_the_known_rows():
    vectors = np.arange(5, dtype=np.float32)[:, None]
    hits = filled(vectors, np.arange(5)).search(
        vectors[0], as_of=2, k=9, mask=np.array([False, True, True, True, True])
    )
    np.testing.assert_array_equal(hits.rows, [1, 2])
    np.testing.assert_array_equal(hits.distances, [1.0, 2.0])


def test_refuses_time_going_backwards_and_adds_nothing():
    store = filled(np.zeros((3, 2), np.float32), [5, 6, 6])
    with pytest.raises(RetrievalError, match="backwards at new row 0: 5 after 6"):
        store.add(np.zeros(2, np.float32), 5)
    with pytest.raises(RetrievalError, match="backwards at new row 2: 7 after 8"):
        store.add(np.zeros((3, 2), np.float32), [7, 8, 7])
    assert len(store) == 3


@pytest.mark.parametrize(
    ("vectors", "resolved_at", "message"),
    [
        (np.zeros((2, 3)), [1, 2], r"shape \(2, 3\) refused: this store holds vectors of length 2"),
        (np.zeros((2, 2)), [1], "got 2 vectors and 1 resolved_at"),
        (np.array([[0.0, 1.0], [0.0, np.nan]]), [1, 2], "vector 1 has nan at position 1"),
    ],
)
def test_refuses_rows(vectors, resolved_at, message):
    with pytest.raises(RetrievalError, match=message):
        VectorStore(2).add(vectors, resolved_at)


@pytest.mark.parametrize(
    ("query", "options", "message"),
    [
        (np.zeros(3), {}, r"shape \(1, 3\) refused"),
        (np.full(2, np.inf), {}, "vector 0 has inf"),
        (np.zeros(2), {"k": 0}, "k = 0"),
        (np.zeros(2), {"mask": np.ones(1, bool)}, "mask has 1 rows but 2 rows are known at 9"),
    ],
)
def test_refuses_questions(query, options, message):
    store = filled(np.zeros((2, 2), np.float32), [1, 2])
    with pytest.raises(RetrievalError, match=message):
        store.search(query, **({"as_of": 9, "k": 1} | options))


def test_refuses_queries_without_times():
    with pytest.raises(RetrievalError, match="got 2 queries and 1 as_of"):
        VectorStore(2).search_many(np.zeros((2, 2), np.float32), as_of=[1], k=1)


def test_refuses_vectors_without_values():
    with pytest.raises(RetrievalError, match="length 0"):
        VectorStore(0)
