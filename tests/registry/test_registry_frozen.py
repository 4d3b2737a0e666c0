"""Real files of every released schema open with this code, and nothing in them changes but what an upgrade adds."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

import qml_plugin.registry.migrations as migrations
from qml_plugin.errors import RegistryError, SchemaTooOld
from qml_plugin.records import Bucket
from qml_plugin.registry import PatternRegistry
from qml_plugin.registry.maintenance import doctor, restore
from qml_plugin.registry.migrations import info, migrate
from qml_plugin.registry.schema import REVISION
from tests.registry.registry_samples import (
    FEATURE_SET,
    NAMES,
    RELEASED,
    dump,
    execute,
    make_outcome,
    make_pattern,
    save,
)
from tests.registry.test_registry_known import known_twin

FROZEN = Path(__file__).parent / "frozen"
FILES = {revision: f"schema_{revision}.db" for revision in RELEASED}


@pytest.fixture
def thaw(path):
    def copy(revision):
        shutil.copy(FROZEN / FILES[revision], path)
        return path

    return copy


def columns(path, table):
    return [row[1] for row in execute(path, f"PRAGMA table_info({table})")]


def rows(path, table, names):
    return sorted(execute(path, f"SELECT {', '.join(names)} FROM {table}"), key=repr)


def test_every_released_schema_is_frozen():
    assert list(RELEASED) == migrations._revisions()
    assert {file.name for file in FROZEN.iterdir()} == set(FILES.values())


def test_0001_is_refused_until_it_is_upgraded_and_keeps_every_value(thaw, url):
    path = thaw("0001")
    tables = [name for (name,) in execute(path, "SELECT name FROM sqlite_master WHERE type = 'table'")]
    before = {table: (columns(path, table), rows(path, table, columns(path, table))) for table in tables}
    with pytest.raises(SchemaTooOld, match=r"has schema 0001, .*qml db migrate"):
        PatternRegistry(url)
    whole = dump(path)
    assert migrate(url) == ["0002", "0003", "0004"]
    for table, (names, values) in before.items():
        if table != "schema_migrations":
            kept = [tuple("finished" if value == "done" else value for value in row) for row in values]
            assert rows(path, table, names) == sorted(kept, key=repr), table
    assert dump(path.with_name("registry.db.bak-0001")) == whole
    assert execute(path, "PRAGMA foreign_key_check") == []
    assert execute(path, "PRAGMA integrity_check") == [("ok",)]


def test_what_an_upgrade_from_0001_fills_in(thaw, url):
    path = thaw("0001")
    migrate(url)
    report = doctor(url, deep=True)
    assert [finding for finding in report["damages"] if "model m1 is missing" not in finding] == []
    assert (report["n_patterns_checked"], report["n_patterns_without_hash"]) == (14, 0)
    assert execute(path, "SELECT count(*) FROM ml_pattern_registry WHERE features_f32 IS NULL") == [(0,)]
    known = execute(
        path, "SELECT count(*), min(known_seq), max(known_seq) FROM ml_pattern_registry WHERE known_seq > 0"
    )
    assert known == [(10, 1, 1)]
    assert execute(path, "SELECT run_id, source_sha256 FROM experiments ORDER BY run_id") == [
        ("run-1", "5" * 64),
        ("run-2", None),
        ("run-3", None),
    ]
    with sqlite3.connect(path) as connection:
        sets = dict(connection.execute("SELECT feature_set, versions_json FROM feature_sets"))
    connection.close()
    assert sets[FEATURE_SET] == '{"ctx_atr":null,"mom_return":null,"geo_depth":null}'
    assert len(sets) == 2


@pytest.mark.parametrize("revision", RELEASED)
def test_the_known_patterns_of_a_frozen_file_equal_the_slow_twin(thaw, url, revision):
    path = thaw(revision)
    migrate(url)
    known, twin = PatternRegistry(url).known_patterns(FEATURE_SET, NAMES), known_twin(path, NAMES)
    assert list(known.pattern_id) == [item[1] for item in twin]
    assert known.features.tobytes() == np.array([item[4] for item in twin], np.float32).tobytes()


def test_a_frozen_file_goes_on_being_used(thaw, url):
    thaw("0001")
    migrate(url)
    registry = PatternRegistry(url)
    save(registry, [make_pattern(0, side=-1, outcome=make_outcome(0)), make_pattern(900)])
    assert registry.get_statistics()["n_patterns"] == 15
    assert [finding for finding in doctor(url, deep=True)["damages"] if "model m1" not in finding] == []


def test_the_backup_of_an_upgrade_brings_0001_back(thaw, url):
    path = thaw("0001")
    before = dump(path)
    migrate(url)
    aside = restore(url, f"{path}.bak-0001", replace=True)
    assert dump(path) == before
    assert info(url)["schema_version"] == "0001"
    assert info(f"sqlite:///{aside}")["schema_version"] == REVISION


def test_the_latest_frozen_file_needs_nothing(thaw, url):
    path = thaw(REVISION)
    before = dump(path)
    assert migrate(url) == []
    assert PatternRegistry(url).get_statistics()["n_patterns"] == 16
    report = doctor(url, deep=True)
    assert report["damages"] == []
    assert (report["n_patterns_checked"], report["n_runs_checked"], report["n_models_checked"]) == (16, 6, 1)
    assert dump(path) == before


def test_0002_keeps_every_value_and_calls_a_run_that_was_done_finished(thaw, url):
    path = thaw("0002")
    execute(path, "UPDATE experiments SET status = 'done', git_diff = '-a\n+b' WHERE run_id IN ('run-1', 'run-2')")
    tables = [name for (name,) in execute(path, "SELECT name FROM sqlite_master WHERE type = 'table'")]
    others = {table: [name for name in columns(path, table) if name not in ("status", "git_diff")] for table in tables}
    before = {table: rows(path, table, names) for table, names in others.items() if table != "schema_migrations"}
    assert migrate(url) == ["0003", "0004"]
    assert {table: rows(path, table, others[table]) for table in before} == before
    ((status, hashed, diff),) = execute(
        path,
        "SELECT status, git_diff_sha256, diff FROM experiments JOIN git_diffs ON sha256 = git_diff_sha256 WHERE run_id = 'run-1'",
    )
    assert (status, hashed, diff) == ("finished", hashlib.sha256(b"-a\n+b").hexdigest(), "-a\n+b")
    assert execute(path, "SELECT count(*) FROM git_diffs") == [(1,)]
    assert doctor(url, deep=True)["damages"] == []


@pytest.mark.parametrize("revision", ["0003", "0004"])
def test_what_0003_keeps_for_running_again_is_read(thaw, url, revision):
    thaw(revision)
    migrate(url)
    registry = PatternRegistry(url)
    run = registry.get_run("run-5")
    assert (run["git_diff"], run["strategy_path"], run["n_trials"]) == ("-a\n+b\n", "mine.strategies:Cross", 1)
    bars, tz = registry.bars_under(run["data_hash"])
    assert (len(bars), bars.symbol, bars.timeframe, tz) == (50, "GOOG", "1h", "America/New_York")
    assert bars.sha256() == run["data_hash"]
    assert registry.get_returns("run-5").tolist() == np.linspace(-0.01, 0.01, 49).tolist()
    assert registry.bars_of(make_pattern(3).pattern_id)[1] == 3


def test_0003_keeps_every_value_and_its_decisions_stay_without_an_interval(thaw, url):
    path = thaw("0003")
    tables = [name for (name,) in execute(path, "SELECT name FROM sqlite_master WHERE type = 'table'")]
    others = {table: columns(path, table) for table in tables if table != "schema_migrations"}
    before = {table: rows(path, table, names) for table, names in others.items()}
    with pytest.raises(SchemaTooOld, match=r"has schema 0003, .*needs 0004"):
        PatternRegistry(url)
    assert migrate(url) == ["0004"]
    assert {table: rows(path, table, names) for table, names in others.items()} == before
    new = "confidence_low, confidence_high, bucket_json, risk_frac"
    assert set(execute(path, f"SELECT {new} FROM run_decisions")) == {(None, None, None, None)}
    ((pattern_id,), *_) = execute(path, "SELECT pattern_id FROM run_decisions WHERE run_id = 'run-1'")
    decision = PatternRegistry(url).get_decision("run-1", pattern_id)
    assert decision.low is decision.high is decision.bucket is decision.risk_frac is None


def test_what_0004_keeps_for_the_card_of_a_decision_is_read(thaw, url):
    path = thaw("0004")
    ((pattern_id,),) = execute(path, "SELECT pattern_id FROM run_decisions WHERE risk_frac IS NOT NULL")
    decision = PatternRegistry(url).get_decision("run-5", pattern_id[:6])
    assert (decision.confidence, decision.low, decision.high, decision.risk_frac) == (0.55, 0.48, 0.62, 0.0125)
    assert decision.bucket == Bucket(0.5, 0.6, 64, 0.546875)
    assert decision.contributions == (("mom_return", -0.5), ("ctx_atr", 0.25))


def test_a_row_of_0001_with_damaged_features_is_kept_as_it_is(thaw, url):
    path = thaw("0001")
    ((victim,),) = execute(
        path, "SELECT min(pattern_id) FROM ml_pattern_registry WHERE feature_set = ?", (FEATURE_SET,)
    )
    execute(path, "UPDATE ml_pattern_registry SET features_json = '[1' WHERE pattern_id = ?", (victim,))
    migrate(url)
    stored = execute(
        path, "SELECT features_json, features_f32 FROM ml_pattern_registry WHERE pattern_id = ?", (victim,)
    )
    assert stored == [("[1", None)]


def test_the_files_of_released_revisions_are_those_that_were_released():
    for file in sorted((migrations._SCRIPTS / "versions").glob("0*.py")):
        digest = hashlib.sha256(file.read_text().encode()).hexdigest()
        assert migrations._SHA256[file.name[:4]] == digest, "a released revision is never edited: add a new one"


def test_a_released_revision_that_was_edited_is_refused(thaw, url, tmp_path, monkeypatch):
    path = thaw("0001")
    scripts = tmp_path / "scripts"
    shutil.copytree(migrations._SCRIPTS, scripts, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(migrations, "_SCRIPTS", scripts)
    edited = scripts / "versions" / "0002_ledger.py"
    edited.write_text(edited.read_text().replace("500", "501"))
    before = dump(path)
    with pytest.raises(RegistryError, match=r"0002_ledger.py is not the file that was released.*Nothing was changed"):
        migrate(url)
    assert dump(path) == before
    assert not path.with_name("registry.db.bak-0001").exists()
