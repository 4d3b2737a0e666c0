import copy
import pickle
import threading
from dataclasses import asdict, replace

import numpy as np
import pytest

from qml_plugin.gate import fit_confidence
from qml_plugin.memory.explained import Explained
from qml_plugin.memory.past import _summaries
from qml_plugin.records import Decision
from tests.gate import worlds

NAMES = tuple(f"feature_{i}" for i in range(8))


@pytest.fixture(scope="module")
def world():
    return worlds.linear(400, 1, strength=1.0)


@pytest.fixture(scope="module")
def model(world):
    return fit_confidence(*world, seed=3, model="logistic")


def alone(model, row):
    """The obvious twin: one row, one call."""
    found = model.contributions(row)
    order = sorted(range(len(found)), key=lambda i: (-abs(found[i]), i))[:8]
    return tuple((NAMES[i], float(found[i])) for i in order)


def test_contributions_of_many_rows_are_those_of_each_row_to_the_last_bit(model, world):
    rows = world[0][:60].copy()
    rows[::3, 2] = np.nan
    together = model.contributions(rows)
    assert together.shape == rows.shape
    np.testing.assert_array_equal(together, np.array([model.contributions(row) for row in rows]))


def test_whoever_looks_and_whenever_sees_the_contributions_of_that_entry(model, world):
    rows = world[0][:20]
    explained = Explained(model, NAMES)
    early = [explained.add(row) for row in rows[:7]]
    assert early[3] == alone(model, rows[3])
    late = [explained.add(row) for row in rows[7:]]
    assert [tuple(found) for found in early + late] == [alone(model, row) for row in rows]


def test_threads_that_look_at_once_see_the_same(model, world):
    explained = Explained(model, NAMES)
    found = [explained.add(row) for row in world[0][:30]]
    seen = {}
    threads = [
        threading.Thread(target=lambda place=place: seen.update({place: tuple(found[place])})) for place in range(30)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {place: alone(model, row) for place, row in enumerate(world[0][:30])}


def test_a_decision_with_contributions_to_come_is_like_one_that_has_them(model, world):
    decision = Decision("p", "take", "", contributions=Explained(model, NAMES).add(world[0][0]))
    plain = replace(decision, contributions=alone(model, world[0][0]))
    assert decision == plain
    assert plain == decision
    assert hash(decision) == hash(plain)
    assert repr(decision) == repr(plain)
    assert decision != replace(plain, contributions=plain.contributions[:-1])
    for copied in (pickle.loads(pickle.dumps(decision)), copy.deepcopy(decision), Decision(**asdict(decision))):  # noqa: S301
        assert copied == plain
        assert type(copied.contributions) is tuple
    assert decision.explain() == plain.explain()
    assert decision.contributions[:2] == plain.contributions[:2]


def test_summaries_of_many_entries_are_those_of_each_to_the_last_bit():
    rng = np.random.default_rng(0)
    for n_neighbours in (1, 2, 3, 7, 8, 9, 10, 17, 50):
        shape = 40, n_neighbours
        is_win, r_multiple = rng.random(shape) < 0.4, rng.normal(size=shape)
        distances = np.sort(rng.lognormal(size=shape), axis=1)
        naive = [
            [sum(won.tolist()) / n_neighbours, r.mean(), r.std(), far[0], far.mean()]
            for won, r, far in zip(is_win, r_multiple, distances, strict=True)
        ]
        np.testing.assert_array_equal(_summaries(is_win, r_multiple, distances), np.array(naive))
