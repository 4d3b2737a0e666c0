"""What is PostgreSQL's own: locks, killed clients, its copy before an upgrade, and what it is told when it is not there."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from backtesting import Backtest

import qml_plugin.registry.migrations as migrations
from qml_plugin.adapters.reproduce import reproduce
from qml_plugin.errors import (
    DataError,
    MissingExtra,
    RegistryBusy,
    RegistryCorrupt,
    RegistryError,
    SchemaTooNew,
    SchemaTooOld,
)
from qml_plugin.features import CATALOGUE
from qml_plugin.registry import PatternRegistry
from qml_plugin.registry.connection import open_database
from qml_plugin.registry.maintenance import backup, doctor, restore
from qml_plugin.registry.migrations import info, migrate
from qml_plugin.registry.schema import REVISION, VERSION_TABLE, metadata
from qml_plugin.registry.transfer import export_registry, import_registry
from strategies.moving_average import MovingAverageCross
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
)  # fmt: skip
from tests.registry.test_registry_frozen import FROZEN


@pytest.fixture
def engine():
    return "postgresql"


@contextmanager
def session(url):
    with psycopg.connect(url.replace("postgresql+psycopg", "postgresql")) as connection:
        yield connection


def upgraded_to(url, revision):
    """Tables of an old revision, as its release made them."""
    database = open_database(url)
    config = Config()
    config.set_main_option("script_location", str(migrations._SCRIPTS))
    with database.alter() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        database.stamp(connection)


def filled_from(url, file):
    """Copy the rows of a frozen file into tables of the same revision."""
    source = sa.create_engine(f"sqlite:///{file}")
    old = sa.MetaData()
    old.reflect(source)
    with source.connect() as rows, open_database(url).write() as connection:
        for table in old.sorted_tables:
            if table.name != VERSION_TABLE and (found := rows.execute(sa.select(table)).mappings().all()):
                connection.execute(sa.insert(table), [dict(row) for row in found])
    source.dispose()


# The schema


def test_the_history_ends_at_the_tables_of_the_code(url):
    upgraded_to(url, "head")
    database = open_database(url)
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE, "compare_type": True})
        assert compare_metadata(context, metadata) == []
    assert info(url)["schema_version"] == REVISION


def test_a_new_registry_has_the_same_columns_and_rules_as_one_that_was_upgraded(postgresql):
    from tests.registry.postgresql_server import schema_of_its_own

    def described(url):
        with open_database(url).read() as connection:
            columns = connection.exec_driver_sql(
                "SELECT table_name, column_name, data_type, is_nullable, collation_name, column_default"
                " FROM information_schema.columns WHERE table_schema = current_schema() ORDER BY 1, 2"
            ).all()
            rules = connection.exec_driver_sql(
                "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = current_schema()::regnamespace ORDER BY 1"
            ).all()
            triggers = connection.exec_driver_sql(
                "SELECT tgname FROM pg_trigger WHERE tgrelid = 'ml_pattern_registry'::regclass AND NOT tgisinternal"
            ).all()
            return columns, rules, triggers

    with schema_of_its_own(postgresql) as one, schema_of_its_own(postgresql) as other:
        PatternRegistry(one)
        upgraded_to(other, "head")
        assert described(one) == described(other)


@pytest.mark.parametrize("revision", ["0001", "0002"])
def test_an_older_registry_is_refused_copied_and_upgraded(url, revision):
    upgraded_to(url, revision)
    filled_from(url, FROZEN / f"schema_{revision}.db")
    before = dump(url)
    with pytest.raises(SchemaTooOld, match=f"has schema {revision}, .* needs {REVISION}"):
        PatternRegistry(url)
    assert migrate(url)[-1] == REVISION
    assert migrate(url) == []
    after = dump(url)
    assert [row[0] for row in after["ml_pattern_registry"]] == [row[0] for row in before["ml_pattern_registry"]]
    assert [finding for finding in doctor(url, deep=True)["damages"] if "model" not in finding] == []
    copy = f"{url.rpartition('%3D')[2]}_bak_{revision}"
    with session(url) as connection:
        kept = {table: connection.execute(f'SELECT count(*) FROM {copy}."{table}"').fetchone()[0] for table in before}
        connection.execute(f"DROP SCHEMA {copy} CASCADE")
    assert kept == {table: len(rows) for table, rows in before.items()}
    assert PatternRegistry(url).get_statistics()["n_patterns"] == 14


def test_an_upgrade_that_fails_leaves_everything_as_it_was(url, monkeypatch):
    upgraded_to(url, "0002")
    filled_from(url, FROZEN / "schema_0002.db")
    with session(url) as connection:
        connection.execute("CREATE TABLE bars (in_the_way INT)")
        connection.commit()
    before = dump(url)
    with pytest.raises(RegistryError, match='relation "bars" already exists'):
        migrate(url)
    assert dump(url) == before
    assert info(url)["schema_version"] == "0002"


def test_a_newer_registry_is_refused_and_not_touched(url, filled):
    execute(url, f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    before = dump(url)
    for call in (PatternRegistry, migrate):
        with pytest.raises(SchemaTooNew, match="has schema 9999"):
            call(url)
    assert dump(url) == before


def test_a_schema_with_tables_of_another_program_is_refused(url):
    execute(url, f"CREATE TABLE {VERSION_TABLE} (version TEXT)")
    with pytest.raises(
        RegistryCorrupt, match=r"tables of another program \(schema_migrations\); it was not touched.*CREATE SCHEMA qml"
    ):
        PatternRegistry(url)
    assert list(dump(url)) == [VERSION_TABLE]


def test_a_schema_without_a_registry_is_not_made_one_by_those_who_only_read(url):
    with pytest.raises(RegistryError, match="is empty: it is no registry yet"):
        PatternRegistry(url, create=False)
    assert dump(url) == {}


def test_ids_are_ordered_by_their_bytes_as_sqlite_orders_them(url, registry):
    with session(url) as connection:
        english = connection.execute(
            "SELECT array_agg(x ORDER BY x) FROM unnest(ARRAY['a-b', 'B', 'a', 'ab']) x"
        ).fetchone()
        ids = connection.execute("SELECT pattern_id FROM ml_pattern_registry").description
    assert english[0] != sorted(english[0])
    assert ids is not None
    for run_id in english[0]:
        save(registry, run=make_run(run_id))
    query = sa.select(metadata.tables["experiments"].c.run_id).order_by("run_id")
    with open_database(url).read() as connection:
        assert connection.scalars(query).all() == sorted(english[0])


def test_a_compact_copy_is_emptied_when_its_features_change_without_it(url, filled):
    execute(url, 'UPDATE ml_pattern_registry SET features_json = \'{"ctx_atr":5,"mom_return":null,"geo_depth":1}\'')
    assert execute(url, "SELECT count(features_f32) FROM ml_pattern_registry") == [(0,)]
    assert filled.known_patterns(FEATURE_SET, NAMES).features[:, 0].tolist() == [5.0] * 3


# Locks and processes


def test_a_lock_held_longer_than_the_timeout(url, filled):
    impatient, before = PatternRegistry(url, busy_timeout_s=0.1), dump(url)
    with open_database(url).write() as holder:
        holder.exec_driver_sql("SELECT 1")
        with pytest.raises(RegistryBusy, match=r"was locked .* busy_timeout_s=0.1. Nothing was written; try again"):
            save(impatient, [make_pattern(7)], make_run("late"))
        assert impatient.get_statistics()["n_patterns"] == 3
    assert dump(url) == before
    save(impatient, [make_pattern(7)], make_run("late"))
    assert impatient.get_statistics()["n_patterns"] == 4


def test_a_reader_cannot_write(url, filled):
    with pytest.raises(RegistryError, match="read-only transaction"), open_database(url).read() as connection:
        connection.exec_driver_sql("DELETE FROM run_decisions")


def test_a_reader_sees_one_moment(url, filled):
    with open_database(url).read() as connection:
        count = sa.text("SELECT count(*) FROM ml_pattern_registry")
        before = connection.scalar(count)
        save(filled, [make_pattern(7)], make_run("meanwhile"))
        assert connection.scalar(count) == before == 3


WRITE = """
import sys
from qml_plugin.features import CATALOGUE
from qml_plugin.registry import PatternRegistry
from tests.registry.registry_samples import make_outcome, make_pattern, make_run, save
url, me, n = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for i in range(n):
    bar = 1000 * me + i
    save(PatternRegistry(url), [make_pattern(bar, outcome=make_outcome(bar)), make_pattern(99_999)], make_run(f"run-{me}-{i}"))
"""


@pytest.mark.slow
def test_six_processes_open_a_new_registry_at_once_and_lose_nothing(url):
    results = finish([start(WRITE, url, me, 15) for me in range(6)])
    assert [code for _, code in results] == [0] * 6, results
    statistics = PatternRegistry(url).get_statistics()
    assert (statistics["n_patterns"], statistics["n_runs"]) == (6 * 15 + 1, 6 * 15)
    assert doctor(url, deep=True)["damages"] == []
    assert execute(url, f"SELECT * FROM {VERSION_TABLE}") == [(REVISION,)]


@pytest.mark.slow
def test_writers_that_are_killed_tear_nothing(url, registry):
    writers = [start(WRITE, url, me, 80) for me in range(4)]
    deadline = time.monotonic() + 60
    while registry.get_statistics()["n_runs"] < 30 and time.monotonic() < deadline:
        time.sleep(0.02)
    for writer in writers[:2]:
        writer.send_signal(signal.SIGKILL)
    results = finish(writers)
    assert [code for _, code in results] == [-9, -9, 0, 0], results
    ((n_runs, n_decisions),) = execute(url, "SELECT count(DISTINCT run_id), count(*) FROM run_decisions")
    assert n_decisions == 2 * n_runs
    assert registry.get_statistics()["n_patterns"] == n_runs + 1
    assert doctor(url, deep=True)["damages"] == []


def test_a_connection_that_is_kept_open_is_let_go_before_a_fork(url, filled):
    with filled.kept_open():
        assert filled.get_statistics()["n_patterns"] == 3
        child = os.fork()
        if child == 0:
            try:
                save(filled, [make_pattern(50)], make_run("child"))
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        save(filled, [make_pattern(51)], make_run("parent"))
    assert filled.get_statistics()["n_patterns"] == 5


# Moving in and out


def test_sqlite_moves_to_a_server_and_back_value_for_value(url, tmp_path):
    file = tmp_path / "here.db"
    registry = PatternRegistry(f"sqlite:///{file}")
    save(registry, [make_pattern(bar, outcome=make_outcome(bar)) for bar in range(30)])
    registry.label_pattern(make_pattern(3).pattern_id, "ignore", 1.5)
    export_registry(f"sqlite:///{file}", tmp_path / "out")
    import_registry(url, tmp_path / "out")
    assert doctor(url, deep=True)["damages"] == []
    one, other = registry.known_patterns(FEATURE_SET, NAMES), PatternRegistry(url).known_patterns(FEATURE_SET, NAMES)
    assert one.pattern_id == other.pattern_id
    assert one.features.tobytes() == other.features.tobytes()
    export_registry(url, tmp_path / "back")
    import_registry(f"sqlite:///{tmp_path}/again.db", tmp_path / "back")
    assert dump(tmp_path / "again.db") == dump(file)


@pytest.mark.filterwarnings("ignore::UserWarning:backtesting")
@pytest.mark.filterwarnings("ignore:Some trades remain open")
def test_a_run_leaves_on_a_server_what_it_leaves_in_a_file(url, tmp_path, goog):
    places, found = [url, f"sqlite:///{tmp_path}/here.db"], []
    for place in places:
        host = Backtest(goog.iloc[:900], MovingAverageCross, cash=1_000_000, exclusive_orders=True)
        host.run(symbol="GOOG", timeframe="1d", registry=place, mode="shadow")
        registry = PatternRegistry(place)
        (run,) = registry.get_runs()
        known, snapshot = registry.read_snapshot(CATALOGUE.feature_set, CATALOGUE.names)
        decisions = registry.get_decisions(run["run_id"])
        found.append((run["run_id"], run["metrics"], decisions, snapshot, known.pattern_id))
        assert reproduce(place, run["run_id"]).is_identical
        assert registry.n_trials(MovingAverageCross, run["data_hash"]) == 1
    assert found[0] == found[1]
    assert len(found[0][2]) > 10


def test_the_command_line_reads_a_server(url, filled):
    qml = Path(sys.executable).with_name("qml")
    done = subprocess.run([qml, "stats", "--db", url, "--json"], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout)["n_patterns"] == 3
    done = subprocess.run(
        [qml, "db", "doctor", "--deep", "--db", url], capture_output=True, text=True, timeout=60, check=True
    )
    assert "postgresql_version" in done.stdout


def test_a_copy_of_a_file_cannot_be_had_of_a_server(url, filled, tmp_path):
    for call in (lambda: backup(url), lambda: restore(url, tmp_path / "x.db")):
        with pytest.raises(RegistryError, match=r"is on a server, which has no file to copy. Use pg_dump"):
            call()


def test_a_pickled_registry_finds_its_server(filled):
    assert pickle.loads(pickle.dumps(filled)).get_statistics() == filled.get_statistics()  # noqa: S301


# What it is told when something is wrong


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("127.0.0.1:", "127.0.0.1:1"), "cannot be reached"),
        (("/postgres?", "/nowhere?"), 'cannot be reached: .*database "nowhere" does not exist'),
    ],
)
def test_a_server_that_is_not_there(url, change, message):
    with pytest.raises(RegistryError, match=message) as caught:
        PatternRegistry(url.replace("qml@", "qml:geheim@").replace(*change))
    assert "geheim" not in str(caught.value)


def test_text_that_no_server_can_hold_is_refused(registry):
    with pytest.raises(DataError, match="cannot be stored in postgresql"):
        save(registry, [make_pattern(symbol="a\0b")])
    assert registry.get_statistics()["n_patterns"] == 0


def test_without_the_driver_the_message_names_the_extra(tmp_path):
    script = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from qml_plugin.registry import PatternRegistry\n"
        "PatternRegistry('postgresql://me@host/db')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert f"{MissingExtra.__name__}: psycopg is not installed" in done.stderr
    assert "pip install 'qml-plugin[postgres]'" in done.stderr
