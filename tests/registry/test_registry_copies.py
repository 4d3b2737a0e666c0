"""The compact copies of features, the row hashes, the feature sets and the snapshots: what follows from the rows."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qml_plugin.errors import DataError, RegistryCorrupt
from qml_plugin.records import Decision
from qml_plugin.registry import PatternRegistry
from qml_plugin.registry.feature_sets import catalogue
from qml_plugin.registry.maintenance import doctor
from tests.registry.registry_samples import (
    FEATURE_SET,
    HOUR,
    NAMES,
    START,
    execute,
    make_outcome,
    make_pattern,
    make_run,
    save,
)

TIMES = {"created_at", "updated_at"}


def copies(path):
    return [row[0] for row in execute(path, "SELECT features_f32 FROM ml_pattern_registry ORDER BY detection_time")]


def test_the_copy_is_the_json_in_float32(registry, path):
    save(registry, [make_pattern(features=[0.1, np.nan, -0.0], outcome=make_outcome())])
    assert copies(path) == [np.array([0.1, np.nan, -0.0], "<f4").tobytes()]


def test_json_that_changes_without_its_copy_loses_it_and_is_read_itself(registry, path, url):
    save(registry, [make_pattern(bar, outcome=make_outcome(bar)) for bar in range(3)])
    execute(
        path,
        """UPDATE ml_pattern_registry SET features_json = '{"ctx_atr": 7, "mom_return": null, "geo_depth": 2.5}' """
        "WHERE detection_time = (SELECT min(detection_time) FROM ml_pattern_registry)",
    )
    assert [copy is None for copy in copies(path)] == [True, False, False]
    known = registry.known_patterns(FEATURE_SET, NAMES[::-1])
    assert known.features[0].tobytes() == np.array([2.5, np.nan, 7], np.float32).tobytes()
    assert known.features[1:].tobytes() == np.array([[-0.1, np.nan, 1.0]] * 2, np.float32).tobytes()
    (finding,) = doctor(url, deep=True)["damages"]
    assert "is not as it was written" in finding


def test_a_copy_that_was_changed_alone_is_found(registry, path, url):
    pattern = make_pattern(outcome=make_outcome())
    save(registry, [pattern])
    execute(path, "UPDATE ml_pattern_registry SET features_f32 = ?", (np.array([1, 2, 3], "<f4").tobytes(),))
    assert doctor(url, deep=True)["damages"] == [
        f"features_f32 of pattern {pattern.pattern_id} differs from its features_json"
    ]


@pytest.mark.parametrize(
    ("copy", "what"),
    [
        (b"\0" * 11, "11 bytes long"),
        (b"", "0 bytes long"),
        (np.array([1, np.inf, 2], "<f4").tobytes(), "beyond the range"),
    ],
)
def test_a_copy_that_cannot_be_one_is_refused(registry, path, copy, what):
    pattern = make_pattern(outcome=make_outcome())
    save(registry, [pattern])
    execute(path, "UPDATE ml_pattern_registry SET features_f32 = ?", (copy,))
    with pytest.raises(
        RegistryCorrupt, match=f"features_f32 of pattern {pattern.pattern_id} is {what}.*set it to NULL"
    ):
        registry.known_patterns(FEATURE_SET, NAMES)
    execute(path, "UPDATE ml_pattern_registry SET features_f32 = NULL")
    assert len(registry.known_patterns(FEATURE_SET, NAMES)) == 1


def test_patterns_of_a_changed_catalogue_take_its_copy_too(registry, path, url):
    save(registry, [make_pattern(outcome=make_outcome())])
    changed = make_pattern(features=[4.0, 5.0], feature_set="g" * 64, outcome=make_outcome())
    save(registry, [changed], names=["a", "b"])
    assert copies(path) == [np.array([4, 5], "<f4").tobytes()]
    assert registry.known_patterns("g" * 64, ["b", "a"]).features.tolist() == [[5.0, 4.0]]
    assert doctor(url, deep=True)["damages"] == []


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_any_column_that_changes_breaks_the_hash(data):
    registry = PatternRegistry("sqlite://")
    save(registry, [make_pattern(outcome=make_outcome(), confidence=0.5)])
    from qml_plugin.registry.checks import pattern_fault
    from qml_plugin.registry.schema import ml_pattern_registry

    with registry._database.read() as connection:
        row = dict(connection.execute(ml_pattern_registry.select()).mappings().one())
    assert pattern_fault(row, NAMES) is None
    name = data.draw(
        st.sampled_from(sorted(set(row) - {"row_sha256", "features_f32", "feature_set", "pattern_id", *TIMES}))
    )
    row[name] = "other" if row[name] is None or isinstance(row[name], str) else None
    assert "is not as it was written" in pattern_fault(row, NAMES)


def test_a_change_does_not_cover_up_damage(registry, path, url):
    pattern = make_pattern()
    save(registry, [pattern])
    execute(path, "UPDATE ml_pattern_registry SET stop_px = 1.0")
    registry.label_pattern(pattern.pattern_id, "win")
    save(registry, [make_pattern(outcome=make_outcome())])
    assert registry.get_pattern(pattern.pattern_id)["user_label"] == "win"
    (finding,) = doctor(url, deep=True)["damages"]
    assert pattern.pattern_id in finding


def test_a_row_of_another_program_has_no_hash_and_gets_none(registry, path, url):
    pattern = make_pattern()
    save(registry, [pattern])
    execute(path, "UPDATE ml_pattern_registry SET row_sha256 = NULL")
    registry.label_pattern(pattern.pattern_id, "win")
    report = doctor(url, deep=True)
    assert (report["damages"], report["n_patterns_without_hash"]) == ([], 1)


# Feature sets


def test_the_features_of_a_set_are_kept_by_name_and_version(registry, path):
    feature_set, versions = catalogue()
    save(registry, [make_pattern(features=[0.0] * len(versions), feature_set=feature_set)], names=None)
    save(registry, [make_pattern(1)], make_run("run-2"))
    stored = dict(execute(path, "SELECT feature_set, versions_json FROM feature_sets"))
    assert list(json.loads(stored[feature_set]).items()) == list(versions.items())
    assert {len(version) for version in versions.values()} == {64}
    assert json.loads(stored[FEATURE_SET]) == dict.fromkeys(NAMES)


def test_versions_that_were_unknown_are_filled_in_and_known_ones_must_agree(registry, path):
    feature_set, versions = catalogue()
    pattern = make_pattern(features=[0.0] * len(versions), feature_set=feature_set)
    save(registry, [pattern], names=list(versions))
    save(registry, [pattern], names=None)
    ((text,),) = execute(path, "SELECT versions_json FROM feature_sets")
    assert json.loads(text) == dict(versions)
    first = next(iter(versions))
    execute(path, "UPDATE feature_sets SET versions_json = ?", (json.dumps(dict(versions) | {first: "0" * 64}),))
    with pytest.raises(DataError, match=f"feature {first!r} of feature set .* has another version"):
        save(registry, [pattern], names=None)


def test_one_set_cannot_stand_for_two_lists(registry):
    save(registry, [make_pattern()])
    with pytest.raises(DataError, match="'mom_return' against 'geo_depth'"):
        save(registry, [make_pattern(1)], names=[NAMES[0], NAMES[2], NAMES[1]])
    with pytest.raises(DataError, match="'nothing' against 'more'"):
        save(registry, [make_pattern(1, features=[1, 2, 3, 4])], names=[*NAMES, "more"])
    assert registry.get_statistics()["n_patterns"] == 1


@pytest.mark.parametrize(("text", "what"), [("{", "no JSON"), ("[]", "a list")])
def test_a_damaged_set_is_named(registry, path, text, what):
    save(registry, [make_pattern(outcome=make_outcome())])
    execute(path, "UPDATE feature_sets SET versions_json = ?", (text,))
    with pytest.raises(RegistryCorrupt, match=f"versions_json of feature set {FEATURE_SET} is {what}"):
        registry.known_patterns(FEATURE_SET, NAMES)


def test_a_set_that_is_missing_leaves_the_json(registry, path):
    save(registry, [make_pattern(features=[1, 2, 3], outcome=make_outcome())])
    execute(path, "DELETE FROM feature_sets")
    assert registry.known_patterns(FEATURE_SET, NAMES).features.tolist() == [[1.0, 2.0, 3.0]]


# Snapshots


def test_a_snapshot_can_be_had_again(registry):
    save(registry, [make_pattern(bar, outcome=make_outcome(bar)) for bar in range(4)] + [make_pattern(9)])
    known, snapshot = registry.read_snapshot(FEATURE_SET, NAMES)
    assert (snapshot.seq, snapshot.n_patterns, len(snapshot.sha256)) == (1, 4, 64)
    save(registry, [make_pattern(bar, outcome=make_outcome(bar)) for bar in (9, 20, 21)], make_run("run-2"))
    registry.label_pattern(make_pattern(30).pattern_id, "win")
    assert registry.read_snapshot(FEATURE_SET, NAMES)[1].n_patterns == 7
    again, same = registry.read_snapshot(FEATURE_SET, NAMES, through_seq=snapshot.seq)
    assert same == snapshot
    assert again.pattern_id == known.pattern_id
    assert again.features.tobytes() == known.features.tobytes()


def test_a_snapshot_that_was_relabelled_is_another(registry):
    patterns = [make_pattern(bar, outcome=make_outcome(bar)) for bar in range(4)]
    save(registry, patterns)
    _, snapshot = registry.read_snapshot(FEATURE_SET, NAMES)
    seen = {snapshot.sha256}
    for label in ("loss", "ignore", None):
        registry.label_pattern(patterns[0].pattern_id, label)
        seen.add(registry.read_snapshot(FEATURE_SET, NAMES, through_seq=snapshot.seq)[1].sha256)
    assert len(seen) == 3
    assert registry.read_snapshot(FEATURE_SET, NAMES)[1].sha256 == snapshot.sha256


def test_commits_are_numbered_when_a_result_becomes_known(registry, path):
    save(registry, [make_pattern(0), make_pattern(1, outcome=make_outcome(1))])
    save(registry, [make_pattern(2)], make_run("run-2"))
    save(registry, [make_pattern(0, outcome=make_outcome(0))], make_run("run-3"))
    registry.label_pattern(make_pattern(2).pattern_id, "loss")
    query = "SELECT known_seq FROM ml_pattern_registry ORDER BY detection_time"
    assert execute(path, query) == [(2,), (1,), (3,)]
    registry.label_pattern(make_pattern(2).pattern_id, None)
    assert execute(path, query) == [(2,), (1,), (None,)]


# Decisions


def test_a_decision_keeps_what_it_was_made_of(registry, path):
    pattern = make_pattern()
    decision = Decision(
        pattern.pattern_id,
        "skip",
        "unconvinced",
        confidence=0.4,
        base_rate=0.5,
        threshold=0.45,
        model="logistic",
        n_known=321,
        contributions=(("mom_return", -0.5), ("ctx_atr", 0.25)),
    )
    save(registry, [pattern], decisions=[decision])
    query = "SELECT threshold, model, contributions_json, base_rate, n_known FROM run_decisions"
    assert execute(path, query) == [(0.45, "logistic", '{"mom_return":-0.5,"ctx_atr":0.25}', 0.5, 321)]


def test_a_run_names_the_source_of_its_strategy(registry, path):
    save(registry, run=make_run(versions={"strategy_source": "5" * 64}))
    assert execute(path, "SELECT source_sha256, finished_at IS NULL FROM experiments") == [("5" * 64, 0)]


def test_a_run_that_has_not_ended_is_listed_by_its_start(registry, path):
    save(registry, run=make_run("old", finished_at=START))
    save(registry, run=make_run("new", started_at=START + HOUR))
    execute(
        path, "UPDATE experiments SET status = 'running', finished_at = NULL, metrics_json = NULL WHERE run_id = 'new'"
    )
    runs = registry.get_runs()
    assert [(run["run_id"], run["finished_at"] is None, run["metrics"]) for run in runs] == [
        ("new", True, None),
        ("old", False, {"sharpe": 0.5}),
    ]
    save(registry, run=make_run("new"))
    assert registry.get_runs()[0]["status"] == "finished"


def test_one_model_is_active_for_a_strategy_and_timeframe(registry, url):
    insert = (
        "INSERT INTO ml_model_versions (model_id, trained_time, features_used, model_path, active, strategy, timeframe) "
        "VALUES ('{}', '2021-01-01 00:00:00.000000', '[]', 'x.json', {}, 'Cross', '{}')"
    )
    with registry._database.write() as connection:
        for model, active, timeframe in (("a", 1, "1h"), ("b", 0, "1h"), ("c", 1, "4h")):
            connection.exec_driver_sql(insert.format(model, active, timeframe))
    with pytest.raises(DataError, match="UNIQUE"), registry._database.write() as connection:
        connection.exec_driver_sql(insert.format("d", 1, "1h"))
