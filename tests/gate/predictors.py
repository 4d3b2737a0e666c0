"""A small predictor, trained once, and the world it was trained on."""

from functools import cache

import pandas as pd

from qml_plugin.gate.predictor import XGBoostPredictor
from tests.gate import worlds

NAMES = [f"f{place}" for place in range(8)]


def table(features):
    return pd.DataFrame(features, columns=NAMES)


@cache
def world(n_entries=300, seed=1, strength=1.0):
    features, is_win, _, known_at, resolved_at = worlds.linear(n_entries, seed, strength=strength)
    return table(features), is_win.astype(int), known_at, resolved_at


def trained(world, **options):
    X, y, known_at, resolved_at = world
    return XGBoostPredictor(seed=3).train(X, y, known_at=known_at, resolved_at=resolved_at, **options)


@cache
def predictor():
    return trained(world())
