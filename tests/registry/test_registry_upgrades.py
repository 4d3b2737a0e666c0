"""The schema's history: applied once, whole or not at all."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

import qml_plugin.registry.migrations as migrations
from qml_plugin.errors import RegistryCorrupt, RegistryError, SchemaTooNew, SchemaTooOld
from qml_plugin.registry import PatternRegistry
from qml_plugin.registry.connection import APPLICATION_ID
from qml_plugin.registry.migrations import info, migrate
from qml_plugin.registry.schema import REVISION, VERSION_TABLE, metadata
from tests.registry.registry_samples import RELEASED, dump, execute, finish, start

NEXT = """
import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{before}"


def upgrade():
    steps = [
        lambda: op.create_table("notes", sa.Column("id", sa.Integer, primary_key=True)),
        lambda: op.add_column("experiments", sa.Column("colour", sa.Text)),
        lambda: op.execute("UPDATE experiments SET colour = 'blue'"),
        lambda: op.drop_index("ix_experiments_finished_at_run_id"),
    ]
    for number, step in enumerate(steps):
        if number == {fail_at}:
            {failure}
        step()
"""
FOLLOWING = f"{int(REVISION) + 1:04}"
FAILURES = {
    "sql": ("op.execute('SELECT nonsense FROM nowhere')", "no such table: nowhere"),
    "python": ("raise ZeroDivisionError('injected')", "injected.*It was undone"),
}


@pytest.fixture
def next_release(tmp_path, monkeypatch):
    """Let the code know one revision more; returns a function that decides where it fails."""
    scripts = tmp_path / "scripts"
    shutil.copytree(migrations._SCRIPTS, scripts, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(migrations, "_SCRIPTS", scripts)

    def write(fail_at=None, failure="pass"):
        text = NEXT.format(fail_at=fail_at, failure=failure, revision=FOLLOWING, before=REVISION)
        (scripts / "versions" / f"{FOLLOWING}_next.py").write_text(text)
        return scripts

    write()
    return write


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def schema(path):
    return execute(path, "SELECT name, sql FROM sqlite_master ORDER BY name")


def described(value):
    """What the inspector found, as text: a piece of SQL by its words, not by its address."""
    if isinstance(value, dict):
        return {key: described(item) for key, item in value.items()}
    return [described(item) for item in value] if isinstance(value, list) else str(value)


def test_the_history_ends_at_the_tables_of_the_code(url, path):
    migrate(url)
    migrated, declared = sa.create_engine(f"sqlite:///{path}"), sa.create_engine("sqlite://")
    metadata.create_all(declared)
    with migrated.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE, "compare_type": True})
        assert compare_metadata(context, metadata) == []
    one, other = sa.inspect(migrated), sa.inspect(declared)
    assert sorted(one.get_table_names()) == sorted([*metadata.tables, VERSION_TABLE])
    for table in metadata.tables:
        for look in ("get_columns", "get_pk_constraint", "get_foreign_keys", "get_check_constraints", "get_indexes"):
            assert described(getattr(one, look)(table)) == described(getattr(other, look)(table))
    migrated.dispose()
    declared.dispose()


def test_a_file_is_migrated_once(url, path):
    assert migrate(url) == [*RELEASED]
    before = dump(path)
    assert migrate(url) == []
    PatternRegistry(url)
    assert dump(path) == before
    assert before[VERSION_TABLE] == [(REVISION,)]
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_info_tells_where_a_registry_stands(url, path, filled):
    assert info(url) == {
        "path": str(path),
        "schema_version": REVISION,
        "latest_version": REVISION,
        "rows": {
            "experiments": 1,
            "bars": 0,
            "feature_sets": 1,
            "git_diffs": 0,
            "ml_model_versions": 0,
            "ml_pattern_registry": 3,
            "run_decisions": 3,
            "run_returns": 0,
        },
        "size_bytes": path.stat().st_size,
        "sqlite_version": sqlite3.sqlite_version,
        "journal_mode": "wal",
    }


def test_an_empty_file_is_a_new_registry(url, path):
    path.touch()
    assert info(url)["schema_version"] is None
    assert PatternRegistry(url).get_statistics()["n_patterns"] == 0
    assert execute(path, "PRAGMA application_id") == [(APPLICATION_ID,)]


def test_an_older_registry_is_refused_with_the_command_and_upgraded_by_it(url, path, filled, next_release):
    before, digest = dump(path), sha256(path)
    with pytest.raises(
        SchemaTooOld, match=f"has schema {REVISION}, .* needs {FOLLOWING}. .*: qml db migrate --db {url}$"
    ):
        PatternRegistry(url)
    assert sha256(path) == digest
    assert info(url)["schema_version"] == REVISION
    assert migrate(url) == [FOLLOWING]
    assert migrate(url) == []
    after = dump(path)
    assert after["ml_pattern_registry"] == before["ml_pattern_registry"]
    assert [row[-1] for row in after["experiments"]] == ["blue"]
    assert dump(path.with_name(f"registry.db.bak-{REVISION}")) == before
    assert PatternRegistry(url).get_statistics()["n_patterns"] == 3


def test_the_copy_is_itself_a_registry(url, path, filled, next_release, monkeypatch):
    migrate(url)
    monkeypatch.undo()
    copy = PatternRegistry(f"sqlite:///{path}.bak-{REVISION}")
    assert copy.get_statistics() == filled.get_statistics()


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("step", range(4))
def test_an_upgrade_that_fails_half_way_leaves_everything_as_it_was(url, path, filled, next_release, step, failure):
    code, message = FAILURES[failure]
    next_release(step, code)
    rows, tables = dump(path), schema(path)
    with pytest.raises(RegistryError, match=message):
        migrate(url)
    assert (dump(path), schema(path)) == (rows, tables)
    assert dump(path.with_name(f"registry.db.bak-{REVISION}")) == rows
    next_release()
    assert migrate(url) == [FOLLOWING]


@pytest.mark.parametrize("step", [0, 3])
def test_a_first_migration_that_fails_leaves_an_empty_file(url, path, next_release, step):
    next_release(step, FAILURES["sql"][0])
    with pytest.raises(RegistryError, match="nowhere"):
        PatternRegistry(url)
    assert schema(path) == []
    next_release()
    assert migrate(url) == [*RELEASED, FOLLOWING]
    assert not path.with_name(f"registry.db.bak-{REVISION}").exists()


def test_a_process_killed_between_two_steps_leaves_everything_as_it_was(url, path, filled, next_release):
    scripts = next_release(3, "import os; os.kill(os.getpid(), 9)")
    rows, tables = dump(path), schema(path)
    script = (
        "import sys, pathlib, qml_plugin.registry.migrations as m\n"
        "m._SCRIPTS = pathlib.Path(sys.argv[2])\n"
        "m.migrate(sys.argv[1])"
    )
    ((stderr, code),) = finish([start(script, url, scripts)])
    assert code == -9, stderr
    assert (dump(path), schema(path)) == (rows, tables)
    assert execute(path, "PRAGMA integrity_check") == [("ok",)]
    next_release()
    assert migrate(url) == [FOLLOWING]


def test_a_backup_that_cannot_be_written_stops_the_upgrade(url, path, filled, next_release):
    rows = dump(path)
    path.with_name(f"registry.db.bak-{REVISION}").mkdir()
    with pytest.raises(RegistryError, match=rf"backup .*registry.db.bak-{REVISION} could not be written"):
        migrate(url)
    assert dump(path) == rows
    assert not path.with_name(f"registry.db.bak-{REVISION}.partial").exists()


@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
@pytest.mark.parametrize("call", [PatternRegistry, migrate])
def test_a_newer_registry_is_refused_and_not_touched(url, path, filled, call, journal_mode):
    execute(path, f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    execute(path, f"PRAGMA journal_mode = {journal_mode}")
    digest, changed_at = sha256(path), path.stat().st_mtime_ns
    with pytest.raises(SchemaTooNew, match="has schema 9999, this version of qml_plugin reads up to " + REVISION):
        call(url)
    assert (sha256(path), path.stat().st_mtime_ns) == (digest, changed_at)
    assert [item.name for item in path.parent.iterdir()] == [path.name]
    assert info(url)["schema_version"] == "9999"


@pytest.mark.parametrize("damage", ["DELETE FROM {0}", "INSERT INTO {0} VALUES ('0000')", "DROP TABLE {0}"])
def test_a_registry_without_one_version_is_corrupt(url, path, filled, damage):
    execute(path, damage.format(VERSION_TABLE))
    with pytest.raises(RegistryCorrupt, match="schema versions in schema_migrations, and must record one"):
        PatternRegistry(url)


def test_revisions_form_one_line():
    assert migrations._revisions() == sorted(migrations._revisions())
    assert migrations._revisions()[0] == "0001"
