"""Planted Quasimodos: the evidence is `experiments/quasimodo_recall.py`; here is a small part of it."""

import numpy as np
import pytest

from experiments.quasimodo_recall import TICKS, judged, measured, world
from qml_plugin.detection import find_quasimodo
from qml_plugin.records import Point, Setup

SCALE = {"swing_atr": 3.5, "shoulder_tolerance": 1.0}


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_finds_the_planted_ones_and_makes_few_up(noise):
    found = measured(SCALE, noise, range(200_000, 200_005))
    assert found["planted"] == 60
    assert found["recall"] >= 0.9
    assert found["precision"] >= 0.9


def test_the_fractal_model_finds_them_too():
    found = measured({"swing_model": "fractal", "fractal_bars": 5}, 0.2, range(200_000, 200_004))
    assert min(found["recall"], found["precision"]) >= 0.9


def test_noise_leaves_the_turns_where_they_were_planted():
    bare, noisy = world(7, 0.0), world(7, 0.5)
    assert bare.truths == noisy.truths
    assert bare.planted == noisy.planted
    assert bare.planted <= {truth.turns for truth in bare.truths if truth.is_clear}
    ends = [bar - 1 for turns in bare.planted for bar in turns]  # the bar that ends at a turn
    np.testing.assert_allclose(bare.bars.close[ends], noisy.bars.close[ends])
    assert TICKS > 1


def test_a_setup_elsewhere_or_on_the_other_side_is_made_up():
    made = world(7, 0.0)
    truth = next(truth for truth in made.truths if truth.turns in made.planted)
    turned = tuple(Point(bar, 1.0, bar + 1) for bar in truth.turns)

    def setup(side, shift=0):
        points = tuple(Point(point.bar + shift, 1.0, point.confirmed_bar) for point in turned)
        return Setup("any", side, points, int(truth.retest_bar))

    assert judged([setup(truth.side)], made)["planted_hit"] == 1
    assert judged([setup(-truth.side)], made)["made_up"] == 1
    assert judged([setup(truth.side, shift=7)], made)["made_up"] == 1


def test_the_past_of_a_world_does_not_change_with_its_future():
    made = world(11, 0.4).bars
    whole = find_quasimodo(made, **SCALE)
    assert len(whole) > 5
    for setup in whole:
        cut = setup.known_bar + 1
        columns = ("opened_at", "known_at", "open", "high", "low", "close", "volume")
        known = type(made)(made.symbol, made.timeframe, *(getattr(made, name)[:cut] for name in columns))
        assert find_quasimodo(known, **SCALE) == [one for one in whole if one.known_bar < cut]
