"""Labels that are put in the place of what was seen, and taken back without a trace."""

from __future__ import annotations

import pytest

from qml_plugin.errors import DataError
from qml_plugin.registry.maintenance import doctor
from tests.registry.registry_samples import execute, make_outcome, make_pattern, make_run, save, start

STATES = {
    "open": {},
    "resolved": {"outcome": make_outcome(0, r_multiple=-1.0)},
    "traded": {"outcome": make_outcome(0), "trade_return_frac": 0.0125},
    "traded and open": {"trade_return_frac": -0.5},
}


def row(path, pattern_id):
    """Every column but the time of the last change."""
    names = [name for _, name, *_ in execute(path, "PRAGMA table_info(ml_pattern_registry)") if name != "updated_at"]
    return execute(path, f"SELECT {', '.join(names)} FROM ml_pattern_registry WHERE pattern_id = ?", (pattern_id,))[0]


@pytest.fixture(params=STATES, ids=list(STATES))
def pattern(request, registry):
    made = make_pattern(0, **STATES[request.param])
    save(registry, [made, make_pattern(9, outcome=make_outcome(9))])
    return made


def mark(registry, pattern_id):
    found = registry.get_pattern(pattern_id)
    return found["user_label"], found["trade_outcome"]


@pytest.mark.parametrize("label", ["win", "loss", "ignore"])
@pytest.mark.parametrize("outcome", [None, 0.0, -2.5])
def test_an_undo_leaves_no_trace(registry, path, url, pattern, label, outcome):
    before, seen = row(path, pattern.pattern_id), mark(registry, pattern.pattern_id)
    assert registry.replace_label(pattern.pattern_id, label, outcome, seen=seen)
    assert mark(registry, pattern.pattern_id) == (label, outcome)
    assert row(path, pattern.pattern_id) != before
    assert doctor(url, deep=True)["damages"] == []
    assert registry.replace_label(pattern.pattern_id, *seen, seen=(label, outcome))
    assert row(path, pattern.pattern_id) == before
    assert doctor(url, deep=True)["damages"] == []


def test_a_label_makes_an_open_pattern_known_as_label_pattern_does(registry, path):
    one, other = make_pattern(0), make_pattern(1)
    save(registry, [one, other])
    assert registry.replace_label(one.pattern_id, "win", None, seen=(None, None))
    assert registry.label_pattern(other.pattern_id, "win")
    known = execute(path, "SELECT resolved_at IS NOT NULL, known_seq FROM ml_pattern_registry")
    assert sorted(known) == [(1, 1), (1, 2)]


@pytest.mark.parametrize("seen", [("win", None), (None, 1.0), ("loss", 2.5)])
def test_what_somebody_else_changed_stays(registry, path, seen):
    pattern = make_pattern(0)
    save(registry, [pattern])
    assert registry.label_pattern(pattern.pattern_id, "ignore", outcome=7.0)
    before = row(path, pattern.pattern_id)
    assert not registry.replace_label(pattern.pattern_id, "win", 2.5, seen=seen)
    assert row(path, pattern.pattern_id) == before


def test_an_undo_after_a_run_resolved_the_pattern_keeps_what_the_run_found(registry, path):
    pattern = make_pattern(0)
    save(registry, [pattern])
    assert registry.replace_label(pattern.pattern_id, "loss", None, seen=(None, None))
    save(registry, [make_pattern(0, outcome=make_outcome(0))], make_run("run-2"))
    assert registry.replace_label(pattern.pattern_id, None, None, seen=("loss", None))
    found = registry.get_pattern(pattern.pattern_id)
    assert (found["user_label"], found["barrier_outcome"]) == (None, "win")
    ((resolved_at, known_seq),) = execute(path, "SELECT resolved_at, known_seq FROM ml_pattern_registry")
    assert resolved_at.startswith("2020-09-13")
    assert known_seq == 1


RACE = """
import sys
from qml_plugin.registry import PatternRegistry
registry = PatternRegistry(sys.argv[1])
print(sum(registry.replace_label(p, sys.argv[2], None, seen=(None, None)) for p in sys.argv[3:]))
"""


def test_of_two_people_each_pattern_gets_the_label_of_one(registry, url, path):
    patterns = [make_pattern(bar) for bar in range(40)]
    save(registry, patterns)
    ids = [pattern.pattern_id for pattern in patterns]
    people = [start(RACE, url, label, *ids) for label in ("win", "loss")]
    counts = [int(person.communicate(timeout=120)[0]) for person in people]
    assert sum(counts) == 40
    stored = dict(execute(path, "SELECT user_label, count(*) FROM ml_pattern_registry GROUP BY user_label"))
    assert [stored.get("win", 0), stored.get("loss", 0)] == counts


def test_what_is_no_label_or_no_outcome_is_refused(registry):
    pattern = make_pattern(0)
    save(registry, [pattern])
    with pytest.raises(DataError, match=r"label is 'maybe'. It must be 'win', 'loss' or 'ignore'"):
        registry.replace_label(pattern.pattern_id, "maybe", None, seen=(None, None))
    with pytest.raises(DataError, match=r"outcome is nan. It must be a finite number"):
        registry.replace_label(pattern.pattern_id, "win", float("nan"), seen=(None, None))
    assert not registry.replace_label("no such id", "win", None, seen=(None, None))
    assert mark(registry, pattern.pattern_id) == (None, None)


def test_patterns_without_a_label_are_counted(registry):
    patterns = [make_pattern(bar) for bar in range(3)] + [make_pattern(0, symbol="AAPL", timeframe="1d")]
    save(registry, patterns)
    registry.label_pattern(patterns[0].pattern_id, "ignore")
    assert registry.count_unlabeled() == 3
    assert registry.count_unlabeled("GOOG") == registry.count_unlabeled(timeframe="60m") == 2
    assert registry.count_unlabeled("AAPL", "24h") == 1
    assert registry.count_unlabeled("'; DROP TABLE ml_pattern_registry") == 0
