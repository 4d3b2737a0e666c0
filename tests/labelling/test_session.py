from __future__ import annotations

import random

import pytest

from qml_plugin.features import CATALOGUE
from qml_plugin.labelling.session import LabellingSession, Progress, progress
from qml_plugin.registry import PatternRegistry
from tests.registry.registry_samples import execute, make_outcome, make_pattern, save


@pytest.fixture
def path(tmp_path):
    return tmp_path / "registry.db"


@pytest.fixture
def registry(path):
    registry = PatternRegistry(f"sqlite:///{path}")
    save(registry, [make_pattern(bar, outcome=make_outcome(bar) if bar % 2 else None) for bar in range(6)])
    return registry


def session(registry):
    return LabellingSession(registry, registry.get_unlabeled_patterns())


def stored(path):
    columns = "pattern_id, user_label, trade_outcome, resolved_at, known_seq, row_sha256"
    return execute(path, f"SELECT {columns} FROM ml_pattern_registry ORDER BY detection_time DESC")


def test_answers_are_stored_one_by_one(registry, path):
    asked = session(registry)
    assert asked.label("win")
    assert stored(path)[0][1:3] == ("win", None)
    assert asked.outcome(2.5)
    assert stored(path)[0][1:3] == ("win", 2.5)
    asked.skip()
    assert asked.label("ignore")
    assert [label for _, label, *_ in stored(path)] == ["win", None, "ignore", None, None, None]
    assert (asked.position, asked.n_labelled) == (3, 2)


def test_whatever_was_answered_can_be_undone_step_by_step(registry, path):
    chance = random.Random(5)
    asked = session(registry)
    history = [stored(path)]
    for _ in range(300):
        act = chance.choice(["label", "label", "skip", "undo"])
        if act == "undo":
            assert asked.undo() is (None if len(history) == 1 else True)
            history = history[:-1] or history
        elif asked.current is not None:
            if act == "skip":
                asked.skip()
            else:
                assert asked.label(chance.choice(["win", "loss", "ignore"]))
                if chance.random() < 0.5:
                    assert asked.outcome(chance.uniform(-5, 5))
            history.append(stored(path))
        # The time at which an open pattern became known is new with each label; everything else is as it was.
        assert [row[:3] for row in stored(path)] == [row[:3] for row in history[-1]]
        assert asked.position == len(history) - 1
    while asked.undo():
        pass
    assert stored(path) == history[0]
    assert asked.n_labelled == 0


def test_what_somebody_else_labelled_meanwhile_stays(registry, path):
    asked = session(registry)
    first = asked.current["pattern_id"]
    registry.label_pattern(first, "loss", outcome=-3.0)
    assert not asked.label("win")
    assert stored(path)[0][1:3] == ("loss", -3.0)
    assert (asked.position, asked.n_labelled) == (1, 0)
    assert asked.undo() is True, "there is nothing of ours to take back"
    assert stored(path)[0][1:3] == ("loss", -3.0)


def test_what_somebody_else_changed_since_is_not_undone(registry, path):
    asked = session(registry)
    first = asked.current["pattern_id"]
    assert asked.label("win")
    registry.label_pattern(first, "loss")
    assert asked.undo() is False
    assert stored(path)[0][1] == "loss"
    assert asked.current["pattern_id"] == first
    assert asked.label("win") is False
    registry.update_trade_status(first, outcome=1.0)
    assert asked.outcome(2.0) is False
    assert stored(path)[0][2] == 1.0


def test_the_end_and_the_beginning(registry):
    empty = LabellingSession(registry, [])
    assert (empty.current, empty.undo(), empty.position) == (None, None, 0)
    asked = session(registry)
    for _ in range(6):
        asked.skip()
    assert asked.current is None
    assert asked.undo() is True
    assert asked.current is not None


def test_progress_counts_what_training_needs(registry):
    assert progress(registry) == Progress(n_left=6, n_known=0, n_missing=30), (
        "these patterns follow another feature set"
    )
    known = [
        make_pattern(bar, [0.0] * len(CATALOGUE.names), CATALOGUE.feature_set, outcome=make_outcome(bar))
        for bar in range(100, 128)
    ]
    save(registry, known, names=CATALOGUE.names)
    registry.label_pattern(known[0].pattern_id, "ignore")
    assert progress(registry, "GOOG", "1h") == Progress(n_left=33, n_known=27, n_missing=3)
    assert progress(registry, "AAPL").n_left == 0
    X, _ = registry.get_training_data(min_labels=27)
    assert len(X) == 27
