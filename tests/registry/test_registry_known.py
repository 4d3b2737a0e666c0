"""The columns that a memory starts from: the known patterns, in order, and only those."""

from __future__ import annotations

import json
import math

import numpy as np
import psycopg
import pytest

from qml_plugin.errors import RegistryCorrupt
from tests.registry.registry_samples import (
    FEATURE_SET,
    HOUR,
    NAMES,
    START,
    execute,
    is_on_server,
    make_outcome,
    make_pattern,
    make_run,
    save,
)

EVERY_ENGINE = True


def known_twin(path, names):
    """The slow, obvious way: read all, judge each row, sort."""
    columns = "pattern_id, user_label, barrier_outcome, feature_set, resolved_at, features_json, side"
    kept = []
    for row in execute(path, f"SELECT {columns} FROM ml_pattern_registry"):
        pattern_id, label, outcome, feature_set, resolved_at, features_json, side = row
        result = label if label is not None else outcome
        if feature_set == FEATURE_SET and resolved_at is not None and result in ("win", "loss"):
            features = json.loads(features_json)
            vector = [math.nan if features[name] is None else features[name] for name in names]
            kept.append((resolved_at, pattern_id, result == "win", side, vector))
    return sorted(kept, key=lambda item: item[:2])


def test_known_patterns_equal_the_slow_twin(registry, path):
    rng = np.random.default_rng(3)
    patterns = []
    for bar in range(120):
        features = rng.normal(size=3)
        features[rng.random(3) < 0.2] = np.nan
        resolved_at = START + int(rng.integers(130, 140)) * HOUR
        outcome = make_outcome(bar, float(rng.normal()), resolved_at) if rng.random() < 0.8 else None
        patterns.append(make_pattern(bar, features, outcome=outcome, side=int(rng.choice([-1, 1]))))
    save(registry, patterns)
    save(registry, [make_pattern(500, feature_set="other", outcome=make_outcome())], make_run("run-2"))
    for label in ("win", "loss", "ignore"):
        for pattern in rng.choice(np.array(patterns, object), 15):
            execute(
                path, "UPDATE ml_pattern_registry SET user_label = ? WHERE pattern_id = ?", (label, pattern.pattern_id)
            )
    names = NAMES[::-1]
    known, twin = registry.known_patterns(FEATURE_SET, names), known_twin(path, names)
    assert 50 < len(known) == len(twin) < 120
    assert list(known.pattern_id) == [item[1] for item in twin]
    assert known.is_win.tolist() == [item[2] for item in twin]
    assert known.side.tolist() == [item[3] for item in twin]
    assert known.features.tobytes() == np.array([item[4] for item in twin], np.float32).tobytes()
    assert (np.diff(known.resolved_at) >= 0).all()
    assert set(known.group) == {"GOOG|1h"}
    dtypes = (known.side, known.known_at, known.is_win, known.r_multiple, known.features)
    assert [column.dtype.name for column in dtypes] == ["int8", "int64", "bool", "float64", "float32"]


def test_what_resolves_later_changes_no_earlier_row(registry):
    save(registry, [make_pattern(bar, [bar, bar / 3, np.nan], outcome=make_outcome(bar)) for bar in range(20)])
    past = registry.known_patterns(FEATURE_SET, NAMES)
    later = [make_pattern(bar, [-bar, 0, 1], outcome=make_outcome(bar + 20)) for bar in range(100, 130)]
    save(registry, later, make_run("run-2"))
    now = registry.known_patterns(FEATURE_SET, NAMES)
    assert len(now) == 50
    assert now.pattern_id[:20] == past.pattern_id
    assert now.group[:20] == past.group
    for name in ("side", "known_at", "resolved_at", "is_win", "r_multiple", "confidence", "features"):
        assert getattr(now, name)[:20].tobytes() == getattr(past, name).tobytes()


def test_a_label_counts_only_once_the_pattern_is_resolved(registry, path):
    save(registry, [make_pattern(0), make_pattern(1)])
    execute(path, "UPDATE ml_pattern_registry SET user_label = 'win'")
    assert len(registry.known_patterns(FEATURE_SET, NAMES)) == 0
    execute(path, "UPDATE ml_pattern_registry SET resolved_at = '2021-01-01 00:00:00.000000'")
    known = registry.known_patterns(FEATURE_SET, NAMES)
    assert known.is_win.all()
    assert np.isnan(known.r_multiple).all()


def test_an_unknown_feature_set_is_an_empty_memory(registry):
    known = registry.known_patterns("none", NAMES)
    assert len(known) == 0
    assert known.features.shape == (0, 3)


@pytest.mark.parametrize(
    ("features_json", "what"),
    [
        ('{"ctx_atr": 1.0}', "without 'mom_return'"),
        ('{"ctx_atr": NaN', "no JSON"),
        ("[1, 2, 3]", "a list"),
        ('{"ctx_atr": "1.5", "mom_return": 0, "geo_depth": 1}', "a str for a number"),
        ('{"ctx_atr": true, "mom_return": 0, "geo_depth": 1}', "a bool for a number"),
        ('{"ctx_atr": 1e39, "mom_return": 0, "geo_depth": 1}', "beyond the range"),
    ],
)
def test_features_that_were_tampered_with_are_named(registry, path, features_json, what):
    pattern = make_pattern(outcome=make_outcome())
    save(registry, [pattern, make_pattern(1, outcome=make_outcome(1))])
    update = "UPDATE ml_pattern_registry SET features_json = ? WHERE pattern_id = ?"
    execute(path, update, (features_json, pattern.pattern_id))
    with pytest.raises(RegistryCorrupt, match=f"{pattern.pattern_id} is .*{what}"):
        registry.known_patterns(FEATURE_SET, NAMES)


def test_a_stamp_that_is_no_time_is_named(registry, path):
    save(registry, [make_pattern(outcome=make_outcome())])
    if is_on_server(path):
        with pytest.raises(psycopg.errors.InvalidDatetimeFormat, match="soon"):
            execute(path, "UPDATE ml_pattern_registry SET resolved_at = 'soon'")
        return
    execute(path, "UPDATE ml_pattern_registry SET resolved_at = 'yesterday'")
    with pytest.raises(RegistryCorrupt, match="yesterday"):
        registry.known_patterns(FEATURE_SET, NAMES)
