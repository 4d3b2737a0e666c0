"""Faster ways through many rows: the same answers, or a counted loss; and never a look ahead."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest

from qml_plugin.errors import RetrievalError
from qml_plugin.retrieval import VectorStore

N, DIM, FROM = 9_000, 20, 2_000


def world(n_rows=N, seed=0):
    """Rows that follow four factors."""
    rng = np.random.default_rng(seed)
    loadings = np.random.default_rng(99).normal(size=(4, DIM))
    rows = rng.normal(size=(n_rows, 4)) @ loadings + 0.3 * rng.normal(size=(n_rows, DIM))
    return rows.astype(np.float32)


def store_of(rows, tier, n_batches=1):
    store = VectorStore(DIM, tier=tier, tier_from_rows=FROM)
    for batch in np.array_split(np.arange(len(rows)), n_batches):
        store.add(rows[batch], ids=batch, resolved_at=batch, side=np.where(batch % 3 == 0, 1, -1), bar=batch // 4)
    return store


def assert_same(one, two):
    assert one.ids.tolist() == two.ids.tolist()
    np.testing.assert_array_equal(one.distances, two.distances)
    assert (one.n_eligible, one.coverage) == (two.n_eligible, two.coverage)


@pytest.mark.parametrize(
    "filters", [{}, {"max_age": 3_500}, {"side": 1}, {"apart_bars": 3}], ids=["none", "age", "side", "apart"]
)
def test_half_precision_gives_the_exact_answers(filters):
    rows, queries = world(), world(60, seed=1)
    exact, half = store_of(rows, "exact"), store_of(rows, "float16", n_batches=37)
    as_of = np.random.default_rng(2).integers(0, N + 100, 60)
    together = half.search_many(queries, as_of=as_of, k=10, **filters)
    for query, at, many in zip(queries, as_of.tolist(), together, strict=True):
        one = exact.search(query, as_of=at, k=10, **filters)
        assert_same(half.search(query, as_of=at, k=10, **filters), one)
        assert_same(many, one)
    assert (half.audit.n_answers > 0) == ("side" not in filters)
    assert exact.audit.n_answers == 0


def test_half_precision_tells_copies_apart_that_coincide():
    rows = world()
    rows[:5_000] = rows[7] + np.arange(5_000)[:, None].astype(np.float32) * np.float32(1e-7)
    exact, half = store_of(rows, "exact"), store_of(rows, "float16")
    for query in (rows[7], rows[3_000]):
        assert_same(half.search(query, as_of=N, k=10), exact.search(query, as_of=N, k=10))


def test_rows_beyond_half_precision_are_searched_exactly():
    rows = world()
    rows[100] = 1e6
    half = store_of(rows, "float16")
    assert half._published.blocks["", ""].segments == ()
    assert_same(half.search(rows[100], as_of=N, k=10), store_of(rows, "exact").search(rows[100], as_of=N, k=10))


def test_lists_find_most_neighbours_and_the_audit_counts_the_others():
    rows, queries = world(), world(300, seed=1)
    exact, lists = store_of(rows, "exact"), store_of(rows, "ivf", n_batches=9)
    n_found = 0
    audited = []
    for place, query in enumerate(queries):
        true = exact.search(query, as_of=N, k=10).ids
        found = lists.search(query, as_of=N, k=10)
        assert found.n_eligible == N
        hits = len(set(true.tolist()) & set(found.ids.tolist()))
        n_found += hits
        audited += [hits] * (place % 100 == 0)
    assert 0.5 < n_found / 3_000 <= 1.0
    audit = lists.audit
    assert (audit.n_answers, audit.n_audited, audit.n_true, audit.n_found) == (300, 3, 30, sum(audited))
    assert audit.recall == sum(audited) / 30
    assert math.isnan(exact.audit.recall)


def test_lists_answer_many_questions_as_they_answer_one():
    lists, queries = store_of(world(), "ivf"), world(20, seed=1)
    as_of = np.linspace(100, N, 20).astype(int)
    for query, at, many in zip(queries, as_of.tolist(), lists.search_many(queries, as_of=as_of, k=10), strict=True):
        assert_same(lists.search(query, as_of=at, k=10), many)


@pytest.mark.parametrize("tier", ["float16", "ivf"])
def test_what_becomes_known_later_changes_nothing(tier):
    rows, queries = world(), world(10, seed=1)
    whole = store_of(rows, tier)
    for n_known in (1_000, 2_000, 3_999, 4_000, 5_500):
        past = store_of(rows[:n_known], tier, n_batches=11)
        other = rows.copy()
        other[n_known:] = queries[0]
        changed = store_of(other, tier)
        for query in queries:
            one = past.search(query, as_of=n_known - 1, k=10)
            assert_same(whole.search(query, as_of=n_known - 1, k=10), one)
            assert_same(changed.search(query, as_of=n_known - 1, k=10), one)


@pytest.mark.parametrize("tier", ["float16", "ivf"])
def test_a_late_row_is_found_and_its_segments_are_made_anew(tier):
    rows, query = world(), world(1, seed=1)[0]
    store = store_of(rows, tier)
    before = store._published.blocks["", ""].segments
    store.add(query, ids=[N], resolved_at=4_100)
    after = store._published.blocks["", ""].segments
    assert [segment.end for segment in after] == [2_000, 4_000, 6_000, 8_000]
    assert after[:2] == before[:2]
    assert not set(after[2:]) & set(before)
    assert store.search(query, as_of=N, k=10).ids[0] == N


@pytest.mark.parametrize("tier", ["float16", "ivf"])
def test_searching_while_segments_are_added(tier):
    rows, query = world(), world(1, seed=1)[0]
    store = store_of(rows[:4_000], tier)
    expected = store.search(query, as_of=3_999, k=10)
    done, wrong = threading.Event(), []

    def ask():
        while not done.is_set():
            if store.search(query, as_of=3_999, k=10).ids.tolist() != expected.ids.tolist():
                wrong.append("another past")
            store.search(query, as_of=10**9, k=10, max_age=10**9 - 4_000)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for start in range(4_000, N, 100):
        batch = np.arange(start, start + 100)
        store.add(rows[batch], ids=batch, resolved_at=batch)
    done.set()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_deadline_stops_between_segments():
    store = store_of(world(), "float16")
    hits = store.search(world(1, seed=1)[0], as_of=N, k=5, deadline_s=0.0)
    assert hits.coverage == 1_000 / N  # the rows behind the last whole segment
    assert hits.ids.min() >= 8_000


@pytest.mark.parametrize(
    ("options", "message"),
    [({"tier": "hnsw"}, "tier 'hnsw' is unknown"), ({"tier_from_rows": 0}, "tier_from_rows is 0")],
)
def test_refuses_tiers(options, message):
    with pytest.raises(RetrievalError, match=message):
        VectorStore(2, **options)
