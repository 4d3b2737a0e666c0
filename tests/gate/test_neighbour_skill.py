"""The study of the neighbour features walks as the memory does, and keeps what it has computed."""

from __future__ import annotations

import json

import numpy as np
import pytest

from experiments import neighbour_skill
from experiments.gate_worlds import Kind
from qml_plugin.memory import Policy
from tests.memory.conftest import planted, planted_entries  # noqa: F401
from tests.memory.worlds import walk


@pytest.fixture(scope="module")
def patterns(planted, planted_entries):  # noqa: F811
    memory = walk(planted, planted_entries[:130], policy=Policy(mode="shadow"))
    return [pattern for pattern in memory.patterns() if pattern.outcome is not None]


def test_the_gate_with_neighbours_says_what_the_memory_said(patterns):
    walked = neighbour_skill.walk(neighbour_skill.of_patterns(patterns))
    ordered = sorted(patterns, key=lambda pattern: (pattern.entry.known_at, pattern.pattern_id))
    expected = [ordered[entry].confidence for entry in walked["entry"]]
    assert len(expected) > 40
    assert walked["with"] == pytest.approx(expected, abs=1e-12)
    assert walked["without"] != walked["with"]
    assert sum(walked["spoke"]["with"].values()) == len(expected)


def test_scores_by_hand():
    rng = np.random.default_rng(0)
    win, p = rng.random(200) < 0.5, rng.uniform(0.2, 0.8, 200)
    walked = {"is_win": win.astype(int).tolist(), "base_rate": [0.5] * 200, "with": p.tolist(), "without": [0.5] * 200}
    own, none, difference = neighbour_skill.scores(walked)
    assert own[0] == pytest.approx(1 - ((p - win) ** 2).mean() / 0.25)
    assert own[1] == pytest.approx(np.mean(np.log(np.where(win, p, 1 - p) / 0.5)))
    pairs = [(a > b) + (a == b) / 2 for a in p[win] for b in p[~win]]
    assert own[2] == pytest.approx(np.mean(pairs))
    assert none.tolist() == [0.0, 0.0, 0.5]
    assert difference == pytest.approx(own - none)


def test_a_finished_walk_is_read_again_and_not_computed(tmp_path):
    path = tmp_path / "world.json"
    table = neighbour_skill.of_world(Kind("tiny", 0.71, 90, 1), 3)
    first = neighbour_skill.kept(path, lambda: table)
    assert json.loads(path.read_text()) == first
    assert neighbour_skill.kept(path, lambda: pytest.fail("computed again")) == first
    assert neighbour_skill.of_worlds("tiny", {"3": first, "4": first})["n_worlds"] == 2
