"""Neighbours asked once, against brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest

from qml_plugin.errors import RetrievalError
from qml_plugin.records import KnownPatterns
from qml_plugin.retrieval import Scaler
from qml_plugin.retrieval.similar import nearest_known, similar_patterns

GROUPS = ["a", "a", "b", "c", "c"]


def world(n=80, seed=0):
    """Patterns of both sides, some features missing, several resolved at the same moment."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, len(GROUPS))).astype(np.float32)
    features[rng.random(features.shape) < 0.1] = np.nan
    r_multiple = np.round(rng.normal(size=n), 2)
    return KnownPatterns(
        feature_set="f" * 64,
        pattern_id=tuple(f"p{i:03d}" for i in range(n)),
        group=("X|1h",) * n,
        side=np.where(rng.random(n) < 0.5, 1, -1).astype(np.int8),
        known_at=np.arange(n, dtype=np.int64) // 3 * 10,
        resolved_at=np.arange(n, dtype=np.int64) // 3 * 10 + 100,
        is_win=r_multiple > 0,
        r_multiple=r_multiple,
        confidence=np.full(n, np.nan),
        features=features,
    )


def ask(known, query, **options):
    return similar_patterns(known, np.asarray(query, np.float32), GROUPS, **options)


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("as_of", [100, 155, 240, 10_000])
def test_the_nearest_by_brute_force(side, as_of):
    known = world()
    query = np.random.default_rng(9).normal(size=len(GROUPS)).astype(np.float32)
    resolved = [i for i in range(len(known)) if known.resolved_at[i] <= as_of]
    scaler = Scaler.fit(known.features[resolved], GROUPS)
    vectors = scaler.transform(known.features).astype(float)
    wanted = scaler.transform(query[None])[0].astype(float)
    distance = {i: math.dist(vectors[i], wanted) for i in resolved if known.side[i] == side}
    nearest = sorted(distance, key=lambda i: (distance[i], i))[:6]
    found = ask(known, query, side=side, as_of=as_of, k=6)
    assert [neighbour.pattern_id for neighbour in found] == [known.pattern_id[i] for i in nearest]
    for neighbour, i in zip(found, nearest, strict=True):
        assert neighbour.distance == pytest.approx(distance[i], rel=1e-12)
        assert (neighbour.resolved_at, neighbour.is_win) == (known.resolved_at[i], known.is_win[i])
        assert neighbour.r_multiple == known.r_multiple[i]
        assert neighbour.resolved_at <= as_of


def test_what_resolves_later_changes_nothing():
    known, as_of = world(), 200
    query = np.zeros(len(GROUPS))
    is_later = known.resolved_at > as_of
    assert 10 < is_later.sum() < 70
    before = ask(known, query, side=1, as_of=as_of)
    known.features[is_later] = 0.0
    known.is_win[is_later] = True
    assert ask(known, query, side=1, as_of=as_of) == before


def test_an_outcome_counts_from_the_moment_it_is_known():
    known = world(3)
    known.side[:] = 1
    assert ask(known, np.zeros(5), side=1, as_of=99) == ()
    assert len(ask(known, np.zeros(5), side=1, as_of=100)) == 3


def test_fewer_where_fewer_are_known():
    known = world(12)
    n_long = int((known.side == 1).sum())
    assert 0 < n_long < 12
    assert len(ask(known, np.zeros(5), side=1, as_of=10_000, k=100)) == n_long


def test_none_where_nothing_is_known():
    assert ask(KnownPatterns.empty("f" * 64, 5), np.zeros(5), side=1, as_of=10_000) == ()
    one_sided = world()
    one_sided.side[:] = -1
    assert ask(one_sided, np.zeros(5), side=1, as_of=10_000) == ()


def test_equals_come_in_the_order_they_resolved():
    known = world(9)
    known.side[:] = 1
    known.features[2:] = known.features[1]
    found = ask(known, known.features[1], side=1, as_of=10_000, k=4)
    assert [neighbour.pattern_id for neighbour in found] == ["p001", "p002", "p003", "p004"]
    assert found[0].distance == 0


def test_a_query_of_missing_features_lies_at_the_centre():
    known = world()
    missing = ask(known, np.full(5, np.nan), side=1, as_of=10_000)
    centre = Scaler.fit(known.features, GROUPS).centre
    assert [n.pattern_id for n in missing] == [n.pattern_id for n in ask(known, centre, side=1, as_of=10_000)]


def test_another_width_is_refused():
    with pytest.raises(RetrievalError, match=r"shape \(4,\) was asked of patterns with 5 features as of 1970-01-01"):
        ask(world(), np.zeros(4), side=1, as_of=100)


def test_all_that_are_eligible_are_told_with_the_nearest():
    known, query = world(), np.zeros(5, np.float32)
    types = np.where(np.arange(80) % 3 == 0, "a", "b")
    among = np.arange(80) % 5 > 0
    found = nearest_known(
        known, query, GROUPS, as_of=240, k=4, columns={"pattern_type": types, "bar": np.arange(80)}, among=among, side=-1,
        pattern_type="b", max_age=90, apart_bars=3,
    )  # fmt: skip
    wanted = [
        i for i in range(80)
        if 150 <= known.resolved_at[i] <= 240 and known.side[i] == -1 and types[i] == "b" and among[i]
    ]  # fmt: skip
    assert found.eligible.tolist() == wanted
    assert 0 < len(found.rows) <= 4 < len(wanted)
    assert set(found.rows) <= set(wanted)
    assert all(abs(a - b) > 3 for a in found.rows for b in found.rows if a != b)


def test_none_among_those_wanted_is_no_neighbour():
    found = nearest_known(world(), np.zeros(5, np.float32), GROUPS, as_of=240, k=4, among=np.zeros(80, np.bool_))
    assert (len(found.rows), len(found.distances), len(found.eligible)) == (0, 0, 0)


def test_a_filter_that_is_not_known_is_refused():
    with pytest.raises(RetrievalError, match="filter 'colour' is not known"):
        nearest_known(world(), np.zeros(5, np.float32), GROUPS, as_of=240, k=4, colour="red")
