"""The store against a search that looks at every row."""

import threading
from datetime import timedelta

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qml_plugin.errors import RetrievalError
from qml_plugin.retrieval import VectorStore
from qml_plugin.retrieval.kernels import candidate_distances
from tests.retrieval.twin import FILTERS, brute_force, make_rows


def filled(rows, n_batches=1):
    store = VectorStore(rows["vectors"].shape[1])
    for batch in np.array_split(np.arange(len(rows["ids"])), n_batches):
        store.add(**{name: np.asarray(column)[batch] for name, column in rows.items()})
    return store


def plain(vectors, resolved_at=None):
    store = VectorStore(vectors.shape[1])
    store.add(vectors, resolved_at=np.arange(len(vectors)) if resolved_at is None else resolved_at)
    return store


def assert_same(one, two):
    assert one.ids.tolist() == two.ids.tolist()
    np.testing.assert_array_equal(one.distances, two.distances)
    assert (one.n_eligible, one.coverage) == (two.n_eligible, two.coverage)


def assert_is(hits, expected):
    ids, distances, n_eligible = expected
    assert hits.ids.tolist() == ids
    assert len(hits) == len(ids)
    np.testing.assert_allclose(hits.distances, distances, rtol=1e-12)
    assert hits.n_eligible == n_eligible
    assert hits.coverage == 1.0


@pytest.mark.parametrize("name", FILTERS)
def test_every_filter_finds_what_brute_force_finds(name):
    rows, filters = make_rows(400, 6, seed=3), FILTERS[name]
    store, rng = filled(rows, n_batches=5), np.random.default_rng(8)
    queries = rng.normal(size=(60, 6)).astype(np.float32)
    as_of = rng.integers(-1, 401, 60)
    together = store.search_many(queries, as_of=as_of, k=5, **filters)
    for query, at, hits in zip(queries, as_of.tolist(), together, strict=True):
        alone = store.search(query, as_of=at, k=5, **filters)
        assert_is(alone, brute_force(rows, query, at, 5, filters))
        assert_same(hits, alone)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_rows=st.integers(0, 120),
    dim=st.integers(1, 20),
    k=st.integers(1, 12),
    n_values=st.sampled_from([2, 3, 50]),
    name=st.sampled_from(sorted(FILTERS)),
    n_batches=st.integers(1, 4),
)
def test_equal_rows_and_equal_distances_come_in_the_order_of_their_ids(seed, n_rows, dim, k, n_values, name, n_batches):
    rows, filters = make_rows(n_rows, dim, seed, n_values=n_values), FILTERS[name]
    rng = np.random.default_rng(seed)
    store = filled(rows, n_batches)
    queries = rng.integers(n_values, size=(3, dim)).astype(np.float32)
    as_of = rng.integers(0, n_rows + 1, 3)
    for query, at, hits in zip(
        queries, as_of.tolist(), store.search_many(queries, as_of=as_of, k=k, **filters), strict=True
    ):
        alone = store.search(query, as_of=at, k=k, **filters)
        assert_is(alone, brute_force(rows, query, at, k, filters))
        assert_same(hits, alone)


@pytest.mark.parametrize("dim", [3, 16, 100])
def test_a_large_store_with_more_equals_than_spare_candidates(dim):
    rng = np.random.default_rng(dim)
    rows = make_rows(3000, dim, seed=dim)
    rows["vectors"][1500:1540] = rows["vectors"][7]
    store = filled(rows)
    for as_of in (0, 1400, 3000):
        for query in (rows["vectors"][7], rng.normal(size=dim).astype(np.float32)):
            for filters in ({}, {"side": 1}, {"regime": "calm", "scale": "minor", "min_quality": 0.6}):
                expected = brute_force(rows, query, as_of, 10, filters)
                assert_is(store.search(query, as_of=as_of, k=10, **filters), expected)
                assert_is(store.search_many(query[None], as_of=[as_of], k=10, **filters)[0], expected)


@pytest.mark.parametrize(("magnitude", "base"), [(1e-30, 0.0), (1e30, 0.0), (1e-4, 1000.0)])
def test_distances_that_single_precision_cannot_tell_apart_are_told_apart(magnitude, base):
    rows = make_rows(400, 8, seed=6, n_values=5)
    rows["vectors"] = (base + rows["vectors"] * magnitude).astype(np.float32)
    store, query = filled(rows), rows["vectors"][3]
    expected = brute_force(rows, query, 400, 9, {})
    assert_is(store.search(query, as_of=400, k=9), expected)
    assert_is(store.search_many(query[None], as_of=[400], k=9)[0], expected)


def test_a_distance_is_that_of_a_plain_sum():
    rng = np.random.default_rng(0)
    vectors, query = rng.normal(size=(50, 32)).astype(np.float32), rng.normal(size=32).astype(np.float32)
    found = np.empty((1, 50))
    candidate_distances(vectors, 0, query[None], np.arange(50)[None], found)
    np.testing.assert_allclose(found[0], ((vectors.astype(float) - query) ** 2).sum(axis=1), rtol=1e-14)


def test_rows_not_yet_known_change_nothing():
    rng, rows = np.random.default_rng(1), make_rows(400, 30, seed=1)
    query = rng.normal(size=30).astype(np.float32)
    for as_of in (-1, 0, 137, 399):
        later = rows["resolved_at"] > as_of
        other = {name: np.array(column) for name, column in rows.items()}
        other["vectors"][later] = query
        other["resolved_at"][later] += 1000
        other["quality"][later] = 1.0
        only = {name: np.asarray(column)[~later] for name, column in rows.items()}
        for filters in FILTERS.values():
            one, two, three = (
                store.search(query, as_of=as_of, k=9, **filters)
                for store in (filled(rows), filled(other), filled(only))
            )
            assert_same(one, two)
            assert_same(one, three)
            assert_same(one, filled(other, 3).search_many(query[None], as_of=[as_of], k=9, **filters)[0])


def test_a_later_question_never_hides_an_eligible_row():
    rows = make_rows(300, 4, seed=2)
    store, query = filled(rows), np.zeros(4, np.float32)
    counts = [store.search(query, as_of=at, k=300).n_eligible for at in range(-1, 301, 20)]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, 300)


def test_batches_in_any_order_are_one_store():
    rows = make_rows(1500, 6, seed=4)
    whole, parts = filled(rows), filled(rows, n_batches=300)
    assert len(whole) == len(parts) == 1500
    for query in rows["vectors"][:5]:
        assert_same(whole.search(query, as_of=1400, k=7), parts.search(query, as_of=1400, k=7))


def test_a_search_that_has_begun_goes_on_with_what_it_saw():
    store = plain(np.zeros((3, 2), np.float32), [10, 20, 30])
    before = store._published
    store.add(np.ones(2, np.float32), resolved_at=15)
    block = before.blocks["", ""]
    assert block.column("resolved_at").tolist() == [10, 20, 30]
    assert store.search(np.ones(2, np.float32), as_of=15, k=1).ids.tolist() == [3]


def test_too_few_eligible_rows_are_counted_and_not_padded():
    hits = plain(np.zeros((3, 2), np.float32)).search(np.zeros(2), as_of=1, k=10)
    assert hits.ids.tolist() == [0, 1]
    assert hits.n_eligible == 2
    empty = VectorStore(2).search(np.zeros(2), as_of=1, k=10)
    assert (len(empty), empty.n_eligible, empty.coverage) == (0, 0, 1.0)


def test_overlapping_neighbours_are_one_neighbour():
    store = VectorStore(1)
    store.add(
        [[0.0], [1.0], [2.0], [3.0], [4.0]], resolved_at=0, symbol=["A", "A", "B", "A", "A"], bar=[10, 12, 11, 14, 9]
    )
    # 12 lies within two bars of 10; 14 does of 12, which does not count; 9 does of 10; B is another symbol.
    assert store.search([0.0], as_of=0, k=9, apart_bars=2).ids.tolist() == [0, 2, 3]


def test_an_age_may_be_a_timedelta():
    store = plain(np.zeros((5, 1), np.float32), np.arange(5) * 1_000_000)
    assert store.search([0.0], as_of=4_000_000, k=9, max_age=timedelta(seconds=2)).ids.tolist() == [2, 3, 4]


def test_searching_while_another_thread_adds():
    rng = np.random.default_rng(4)
    vectors = rng.normal(size=(20_000, 12)).astype(np.float32)
    query = rng.normal(size=12).astype(np.float32)
    symbols = np.array(["A", "B"])[np.arange(20_000) % 2]
    store = VectorStore(12)
    store.add(vectors[:500], resolved_at=np.arange(500), symbol=symbols[:500])
    expected = store.search(query, as_of=499, k=10)
    done = threading.Event()
    wrong = []

    def ask():
        while not done.is_set():
            before = len(store)
            past = store.search(query, as_of=499, k=10)
            many = store.search_many(query[None], as_of=[499], k=10)[0]
            latest = store.search(query, as_of=10**9, k=10)
            is_batch_whole = latest.n_eligible % 50 == 0
            if past.ids.tolist() != expected.ids.tolist() or many.ids.tolist() != expected.ids.tolist():
                wrong.append("another past")
            if latest.n_eligible < before or not is_batch_whole:
                wrong.append("half a batch")

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    starts = rng.permutation(np.arange(500, 20_000, 50))  # late batches too: the store must copy
    for start in starts.tolist():
        batch = slice(start, start + 50)
        store.add(
            vectors[batch],
            ids=np.arange(start, start + 50),
            resolved_at=np.arange(start, start + 50),
            symbol=symbols[batch],
        )
    done.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    rows = {"vectors": vectors, "ids": range(20_000), "resolved_at": np.arange(20_000)}
    assert_is(store.search(query, as_of=19_999, k=10), brute_force(rows, query, 19_999, 10, {}))


def test_a_deadline_returns_the_newest_rows_exactly_and_is_counted():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(100_000, 16)).astype(np.float32)
    store, query = plain(vectors), rng.normal(size=16).astype(np.float32)
    hits = store.search(query, as_of=99_999, k=5, deadline_s=0.0)
    assert store.n_cut_short == 1
    n_scanned = round(hits.coverage * 100_000)
    assert hits.n_eligible == 100_000
    assert n_scanned == 32_768
    newest = plain(vectors[-n_scanned:]).search(query, as_of=10**9, k=5)
    assert hits.ids.tolist() == (newest.ids + 100_000 - n_scanned).tolist()
    np.testing.assert_array_equal(hits.distances, newest.distances)


@pytest.mark.parametrize("filters", [{}, {"side": 1}, {"apart_bars": 4}])
def test_a_deadline_that_does_not_strike_changes_nothing(filters):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(70_000, 16)).astype(np.float32)
    store = VectorStore(16)
    store.add(
        vectors, resolved_at=np.arange(70_000), symbol=rng.choice(["A", "B"], 70_000), side=rng.choice([1, -1], 70_000),
        bar=rng.integers(0, 1000, 70_000),
    )  # fmt: skip
    query = rng.normal(size=16).astype(np.float32)
    with_deadline = store.search(query, as_of=60_000, k=5, deadline_s=600.0, **filters)
    assert_same(with_deadline, store.search(query, as_of=60_000, k=5, **filters))
    assert store.n_cut_short == 0


def test_what_a_deadline_leaves_unproved_is_not_returned():
    store = plain(np.zeros((40_000, 4), np.float32))
    hits = store.search(np.zeros(4), as_of=10**9, k=5, deadline_s=0.0)
    assert len(hits) == 0  # all are equally far, and which ids come first is not known yet
    assert hits.coverage < 1


def test_the_number_of_threads_is_restored():
    before = faiss.omp_get_max_threads()
    store = plain(np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32))
    try:
        faiss.omp_set_num_threads(3)
        store.search(np.zeros(4, np.float32), as_of=200, k=2)
        assert faiss.omp_get_max_threads() == 3
    finally:
        faiss.omp_set_num_threads(before)


def test_vectors_of_another_scaler_are_refused():
    store = VectorStore(2, scaler_id="a" * 64)
    store.add(np.zeros(2), resolved_at=0, scaler_id="a" * 64)
    assert len(store.search(np.zeros(2), as_of=0, k=1, scaler_id="a" * 64)) == 1
    with pytest.raises(RetrievalError, match="vectors of scaler bbbbbbbbbbbb came to a store of scaler aaaaaaaaaaaa"):
        store.add(np.zeros(2), resolved_at=0, scaler_id="b" * 64)
    with pytest.raises(RetrievalError, match="a query of scaler no id came"):
        store.search(np.zeros(2), as_of=0, k=1)
    with pytest.raises(RetrievalError, match="queries of scaler bbbb"):
        store.search_many(np.zeros((1, 2)), as_of=[0], k=1, scaler_id="b" * 64)
    assert len(store) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vectors": np.zeros((2, 3))}, r"shape \(2, 3\) refused: this store holds vectors of length 2"),
        ({"resolved_at": [1]}, "got 2 vectors and 1 resolved_at"),
        ({"side": [1, 1, 1]}, "got 2 vectors and 3 side"),
        ({"vectors": np.array([[0.0, 1.0], [0.0, np.nan]])}, "vector 1 has nan at position 1"),
        ({"ids": ["a"]}, "got 2 vectors and 1 ids"),
        ({"ids": ["b", "b"]}, "id 'b' is there already"),
        ({"ids": ["b", "first"]}, "id 'first' is there already"),
        ({"ids": [1, 2]}, "id 1 is of another kind than 'first'"),
        ({"ids": [1.5, 2.5]}, "id 1.5 is neither a text nor an integer"),
    ],
)
def test_refused_rows_leave_the_store_as_it_was(options, message):
    store = VectorStore(2)
    store.add(np.zeros(2), ids=["first"], resolved_at=0)
    with pytest.raises(RetrievalError, match=message):
        store.add(**({"vectors": np.ones((2, 2)), "ids": ["x", "y"], "resolved_at": [1, 2]} | options))
    assert len(store) == 1
    store.add(np.ones((2, 2)), ids=["b", "y"], resolved_at=[1, 2])
    assert store.search(np.ones(2), as_of=2, k=1).ids.tolist() == ["b"]


@pytest.mark.parametrize(
    ("query", "options", "message"),
    [
        (np.zeros(3), {}, r"shape \(1, 3\) refused"),
        (np.full(2, np.inf), {}, "vector 0 has inf"),
        (np.zeros(2), {"k": 0}, "k = 0"),
        (np.zeros(2), {"simbol": "A"}, "filter 'simbol' is not known. Filter by symbol, timeframe"),
        (np.zeros(2), {"side": 0}, "side is 0"),
        (np.zeros(2), {"max_age": -1}, "max_age is -1"),
        (np.zeros(2), {"min_quality": np.nan}, "min_quality is NaN"),
        (np.zeros(2), {"apart_bars": -1}, "apart_bars is -1"),
        (np.zeros(2), {"apart_bars": 1}, "apart_bars was asked of rows of '' '' without a bar"),
    ],
)
def test_refuses_questions(query, options, message):
    store = plain(np.zeros((2, 2), np.float32), [1, 2])
    with pytest.raises(RetrievalError, match=message):
        store.search(query, **({"as_of": 9, "k": 1} | options))
    with pytest.raises(RetrievalError, match=message):
        store.search_many(query[None], **({"as_of": [9], "k": 1} | options))


def test_refuses_queries_without_times():
    with pytest.raises(RetrievalError, match="got 2 queries and 1 as_of"):
        VectorStore(2).search_many(np.zeros((2, 2)), as_of=[1], k=1)
    assert VectorStore(2).search_many(np.zeros((0, 2)), as_of=[], k=1) == []


def test_refuses_vectors_without_values():
    with pytest.raises(RetrievalError, match="length 0"):
        VectorStore(0)
