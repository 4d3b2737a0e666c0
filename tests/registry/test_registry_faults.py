"""Killed processes, rivals for the lock, damaged files and full disks: earlier data stays, the error says what to do."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from qml_plugin.errors import DataError, RegistryBusy, RegistryCorrupt, RegistryError
from qml_plugin.registry import PatternRegistry
from qml_plugin.registry.connection import SqliteDatabase, open_database
from qml_plugin.registry.connection.database import _let_all_go
from qml_plugin.registry.migrations import info, migrate
from qml_plugin.registry.schema import REVISION
from tests.registry.registry_samples import (
    FEATURE_SET,
    NAMES,
    dump,
    execute,
    finish,
    make_outcome,
    make_pattern,
    make_run,
    save,
    start,
)

KILLED = """
import os, sys
import sqlalchemy as sa
from tests.registry.registry_samples import make_outcome, make_pattern, make_run, save
from qml_plugin.registry import PatternRegistry
url, when = sys.argv[1:]
registry = PatternRegistry(url)
if when == "before":
    sa.event.listen(sa.Engine, "commit", lambda connection: os.kill(os.getpid(), 9))
save(registry, [make_pattern(bar, outcome=make_outcome(bar)) for bar in range(10, 4010)], make_run("killed"))
os.kill(os.getpid(), 9)
"""
WAIT = """
import pathlib, sys, time
from tests.registry.registry_samples import make_outcome, make_pattern, make_run, save
from qml_plugin.registry import PatternRegistry
folder, me = pathlib.Path(sys.argv[1]), int(sys.argv[2])
(folder / f"ready-{me}").touch()
while not (folder / "go").exists():
    time.sleep(0.001)
"""
OPEN = (
    WAIT
    + """
for round in range(2):
    registry = PatternRegistry(f"sqlite:///{folder}/new/{round}.db")
    save(registry, [make_pattern(me)], make_run(f"run-{me}"))
"""
)
WRITE = (
    WAIT
    + """
registry = PatternRegistry(f"sqlite:///{folder}/shared.db")
for n in range(100):
    patterns = [make_pattern(n, outcome=make_outcome(n)), make_pattern(1000 * me + n + 1000)]
    save(registry, patterns, make_run(f"run-{me}-{n}"))
"""
)


def released_together(script, folder, count):
    """Start processes, let them go at once when all are ready, and wait for them."""
    processes = [start(script, folder, number) for number in range(count)]
    while len(list(folder.glob("ready-*"))) < count and all(process.poll() is None for process in processes):
        time.sleep(0.01)
    (folder / "go").touch()
    for stderr, code in finish(processes):
        assert code == 0, stderr


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(("when", "n_patterns"), [("before", 3), ("after", 4003)])
def test_a_process_killed_around_the_commit(url, path, filled, when, n_patterns):
    before = dump(path)
    ((stderr, code),) = finish([start(KILLED, url, when)])
    assert code == -9, stderr
    assert execute(path, "PRAGMA integrity_check") == [("ok",)]
    assert info(url)["rows"]["ml_pattern_registry"] == n_patterns
    if when == "before":
        assert dump(path) == before
    assert set(before["ml_pattern_registry"]) <= set(dump(path)["ml_pattern_registry"])
    save(filled, [make_pattern(9000)], make_run("next"))
    assert filled.get_statistics()["n_patterns"] == n_patterns + 1


def test_four_writers_lose_nothing_and_double_nothing(tmp_path):
    released_together(WRITE, tmp_path, 4)
    registry = PatternRegistry(f"sqlite:///{tmp_path}/shared.db")
    statistics = registry.get_statistics()
    assert (statistics["n_runs"], statistics["n_patterns"], statistics["n_resolved"]) == (400, 500, 100)
    assert info(registry.url)["rows"]["run_decisions"] == 800


def test_six_processes_open_a_new_database_at_once(tmp_path):
    released_together(OPEN, tmp_path, 6)
    for number in range(2):
        rows = dump(tmp_path / "new" / f"{number}.db")
        assert rows["schema_migrations"] == [(REVISION,)]
        assert len(rows["ml_pattern_registry"]) == len(rows["experiments"]) == 6


def test_a_lock_held_longer_than_the_timeout(url, path, filled):
    impatient = PatternRegistry(url, busy_timeout_s=0.05)
    before = dump(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(RegistryBusy, match=r"registry.db was locked .* busy_timeout_s=0.05. .*try again"):
            save(impatient, [make_pattern(7)], make_run("late"))
        assert impatient.get_statistics()["n_patterns"] == 3
        holder.execute("ROLLBACK")
    assert dump(path) == before
    save(impatient, [make_pattern(7)], make_run("late"))
    assert impatient.get_statistics()["n_patterns"] == 4


def test_a_new_file_held_by_another(path, url):
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(RegistryBusy, match=r"busy_timeout_s=0\.05"):
            PatternRegistry(url, busy_timeout_s=0.05)
    assert PatternRegistry(url).get_statistics()["n_patterns"] == 0


def test_a_writer_takes_the_lock_before_it_reads(url, filled):
    database, rival = open_database(url), open_database(url, 0.05)
    with database.write() as connection:
        connection.exec_driver_sql("SELECT count(*) FROM experiments")
        with pytest.raises(RegistryBusy, match="locked"), rival.write():
            pass
        connection.exec_driver_sql("UPDATE experiments SET verdict = 'A'")
    with rival.write() as connection:
        connection.exec_driver_sql("UPDATE experiments SET verdict = 'B'")
    assert filled.get_runs()[0]["verdict"] == "B"


@pytest.mark.parametrize("where", ["file", "memory"])
def test_a_reader_cannot_begin_to_write(url, filled, where):
    registry = filled if where == "file" else PatternRegistry("sqlite://")
    with (
        pytest.raises(RegistryError, match="attempt to write a readonly database"),
        registry._database.read() as reader,
    ):
        reader.exec_driver_sql("DELETE FROM run_decisions")
    save(registry, [make_pattern(60)], make_run("after"))


def test_a_connection_kept_open_is_closed_by_a_fork_of_another_thread(filled, path):
    with filled.kept_open(), ThreadPoolExecutor(1) as pool:
        save(filled, [make_pattern(60)], make_run("live"))
        assert path.with_name("registry.db-wal").exists()
        pool.submit(_let_all_go).result()
        assert not path.with_name("registry.db-wal").exists()


def test_a_reader_sees_one_moment(url, filled):
    with open_database(url).read() as connection:
        first = connection.exec_driver_sql("SELECT count(*) FROM ml_pattern_registry").scalar_one()
        save(filled, [make_pattern(8)], make_run("meanwhile"))
        assert connection.exec_driver_sql("SELECT count(*) FROM ml_pattern_registry").scalar_one() == first
    assert filled.get_statistics()["n_patterns"] == first + 1


def write(url, *statements):
    with open_database(url).write() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def test_tables_made_in_a_block_that_raises_are_gone(url, path, filled):
    with pytest.raises(RegistryError, match="no such table: nowhere"):
        write(url, "CREATE TABLE a (x)", "SELECT * FROM nowhere")
    assert "a" not in dump(path)


def test_a_hidden_failure_that_ended_the_transaction_is_brought_to_light(url, path, filled):
    before = dump(path)
    with pytest.raises(RegistryError, match="ended before its block did"):
        write(url, "DELETE FROM run_decisions", "ROLLBACK")
    assert dump(path) == before


@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
@pytest.mark.parametrize("call", [PatternRegistry, migrate, info])
def test_a_file_of_another_program_is_refused_and_not_touched(path, url, call, journal_mode):
    execute(path, f"PRAGMA journal_mode = {journal_mode}")
    execute(path, "CREATE TABLE ml_pattern_registry (pattern_id TEXT)")
    digest = sha256(path)
    with pytest.raises(RegistryCorrupt, match=r"another program \(application_id 0, tables: ml_pattern_registry\)"):
        call(url)
    assert sha256(path) == digest
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_an_empty_file_that_another_program_claimed_is_refused(path, url):
    execute(path, "PRAGMA application_id = 77")
    with pytest.raises(RegistryCorrupt, match="application_id 77, tables: none"):
        PatternRegistry(url)


@pytest.mark.parametrize("content", [b"junk", b"junk" * 4000, b"SQLite format 3\0" + b"\xff" * 5000])
@pytest.mark.parametrize("call", [PatternRegistry, migrate, info])
def test_junk_is_refused_and_not_touched(path, url, call, content):
    path.write_bytes(content)
    with pytest.raises(RegistryCorrupt, match=r"registry.db is damaged or not an SQLite database: .*registry.db.bak-"):
        call(url)
    assert path.read_bytes() == content


def use(url):
    registry = PatternRegistry(url)
    registry.known_patterns(FEATURE_SET, NAMES)
    registry.get_statistics()
    registry.get_runs()


def test_a_truncated_file_is_called_damaged(path, url, filled):
    save(filled, [make_pattern(bar, outcome=make_outcome(bar)) for bar in range(10, 200)])
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2 + 13])
    with pytest.raises(RegistryCorrupt, match=r"is damaged .*: .*malformed"):
        use(url)


def test_a_page_overwritten_is_called_damaged(path, url, filled):
    save(filled, [make_pattern(bar, outcome=make_outcome(bar)) for bar in range(10, 200)])
    (root,) = execute(path, "SELECT rootpage FROM sqlite_master WHERE name = 'ml_pattern_registry'")[0]
    (size,) = execute(path, "PRAGMA page_size")[0]
    content = bytearray(path.read_bytes())
    content[(root - 1) * size : root * size] = b"\xaa" * size
    path.write_bytes(content)
    with pytest.raises(RegistryCorrupt, match="is damaged"):
        use(url)


def test_a_full_disk_keeps_what_was_there(path, url, filled, monkeypatch):
    before = dump(path)
    connect = SqliteDatabase._connect

    def small(self):
        raw = connect(self)
        (pages,) = raw.execute("PRAGMA page_count").fetchone()
        raw.execute(f"PRAGMA max_page_count = {pages + 5}")
        return raw

    monkeypatch.setattr(SqliteDatabase, "_connect", small)
    cramped = PatternRegistry(url)
    with pytest.raises(RegistryError, match=r"could not be read or written: database or disk is full.*try again"):
        save(cramped, [make_pattern(bar) for bar in range(10, 500)], make_run("big"))
    assert dump(path) == before
    monkeypatch.undo()
    save(filled, [make_pattern(bar) for bar in range(10, 500)], make_run("big"))
    assert filled.get_statistics()["n_patterns"] == 493


def test_a_decision_on_a_pattern_that_does_not_exist_cannot_be_stored(url, filled):
    with pytest.raises(DataError, match="FOREIGN KEY"):
        write(
            url,
            "INSERT INTO run_decisions (run_id, pattern_id, action, reason, neighbours_json) "
            "VALUES ('run-1', 'nothing', 'take', '', '[]')",
        )
