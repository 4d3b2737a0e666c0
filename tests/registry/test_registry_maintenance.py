"""Backup, restore, doctor, export and import: whole or not at all, and never over what is there."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import tracemalloc
from contextlib import closing
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qml_plugin.errors import DataError, RegistryBusy, RegistryCorrupt, RegistryError, SchemaTooNew, SchemaTooOld
from qml_plugin.records import Neighbour
from qml_plugin.registry import PatternRegistry, transfer
from qml_plugin.registry.maintenance import backup, doctor, restore
from qml_plugin.registry.migrations import info, migrate
from qml_plugin.registry.schema import REVISION
from qml_plugin.registry.transfer import export_registry, import_registry
from tests.registry.registry_samples import (
    NAMES,
    START,
    dump,
    execute,
    make_bars,
    make_outcome,
    make_pattern,
    make_run,
    make_setup,
    run_on,
    save,
    take,
)
from tests.registry.test_registry_frozen import FROZEN

pytestmark = pytest.mark.filterwarnings("ignore:model m1? goes without its file")


def names_in(folder):
    return sorted(item.name for item in folder.iterdir())


# Backup


def test_a_backup_holds_what_a_plain_copy_loses(registry, path, url, tmp_path):
    with registry.kept_open():
        save(registry, [make_pattern(bar) for bar in range(3)])
        shutil.copy(path, tmp_path / "plain.db")
        copy = backup(url, tmp_path / "copy.db")
    assert dump(copy) == dump(path)
    assert execute(tmp_path / "plain.db", "SELECT count(*) FROM ml_pattern_registry") == [(0,)]
    assert execute(copy, "PRAGMA journal_mode") == [("delete",)]


def test_a_backup_is_named_by_its_time_and_overwrites_nothing(filled, path, url):
    first, second = backup(url), backup(url)
    assert first != second
    assert first.name.startswith("registry.db.backup-2")
    before = first.read_bytes()
    with pytest.raises(RegistryError, match=r"exists already and was not overwritten"):
        backup(url, first)
    assert first.read_bytes() == before
    assert names_in(path.parent) == sorted([path.name, first.name, second.name])


def test_a_backup_goes_on_while_another_writes(filled, path, url, tmp_path):
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("DELETE FROM run_decisions")
        copy = backup(url, tmp_path / "copy.db")
        writer.execute("ROLLBACK")
    assert len(dump(copy)["run_decisions"]) == 3


@pytest.mark.parametrize("name", ["50%off#1.db", "what?.db", "ü x.db"])
def test_a_backup_may_have_any_name(filled, path, url, tmp_path, name):
    copy = backup(url, tmp_path / name)
    assert copy == tmp_path / name
    assert dump(copy) == dump(path)
    path.unlink()
    assert restore(url, copy) is None
    assert PatternRegistry(url).get_statistics()["n_patterns"] == 3


def test_what_is_no_registry_is_not_backed_up(tmp_path, path, url):
    with pytest.raises(RegistryError, match="there is no database at"):
        backup(url)
    path.write_bytes(b"junk" * 2000)
    with pytest.raises(RegistryCorrupt, match="damaged or not an SQLite database"):
        backup(url)
    path.write_bytes(b"")
    with pytest.raises(RegistryCorrupt, match=f"^{path} is empty: it holds no registry to copy"):
        backup(url)
    assert names_in(tmp_path) == [path.name]
    with pytest.raises(RegistryError, match="in memory"):
        backup("sqlite://")


def test_a_damaged_registry_gives_no_backup_that_looks_whole(filled, path, url):
    execute(path, "PRAGMA writable_schema = ON")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_master SET sql = replace(sql, 'action IN (''take''', 'action IN (''gone''') "
            "WHERE name = 'run_decisions'"
        )
        connection.commit()
    told = f"^{path} is damaged: CHECK constraint failed in run_decisions.*restore an older one"
    with pytest.raises(RegistryCorrupt, match=told):
        backup(url)
    assert names_in(path.parent) == [path.name]


# Restore


def test_a_restore_moves_the_present_aside_only_when_told(filled, path, url, tmp_path):
    copy = backup(url, tmp_path / "copy.db")
    past = dump(path)
    save(filled, [make_pattern(50)], make_run("later"))
    present = dump(path)
    with pytest.raises(RegistryError, match=r"exists and was not overwritten. With --replace"):
        restore(url, copy)
    assert dump(path) == present
    aside = restore(url, copy, replace=True)
    assert (dump(path), dump(aside)) == (past, present)
    assert aside.name.startswith("registry.db.replaced-2")
    assert names_in(tmp_path) == sorted(["copy.db", path.name, aside.name])


def test_a_log_left_behind_is_not_replayed_into_the_restored_file(filled, path, url, tmp_path):
    copy = backup(url, tmp_path / "copy.db")
    past = dump(path)
    with filled.kept_open():
        save(filled, [make_pattern(50)], make_run("later"))
        log = path.with_name("registry.db-wal").read_bytes()
    assert log
    path.unlink()
    path.with_name("registry.db-wal").write_bytes(log)
    assert restore(url, copy) is None
    assert dump(path) == past


def test_a_damaged_registry_is_restored_too(filled, path, url, tmp_path):
    copy = backup(url, tmp_path / "copy.db")
    past = dump(path)
    path.write_bytes(b"junk" * 2000)
    aside = restore(url, copy, replace=True)
    assert dump(path) == past
    assert aside.read_bytes() == b"junk" * 2000


def test_a_restore_waits_for_a_writer(filled, path, url, tmp_path):
    copy = backup(url, tmp_path / "copy.db")
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        with pytest.raises(RegistryBusy, match=r"busy_timeout_s=0\.05"):
            restore(url, copy, replace=True, busy_timeout_s=0.05)
        writer.execute("ROLLBACK")
    assert not [name for name in names_in(tmp_path) if "restoring" in name or "replaced" in name]


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda copy: copy.unlink(), RegistryError, "there is no backup at"),
        (lambda copy: copy.write_bytes(b""), RegistryCorrupt, "is empty: it holds no registry"),
        (lambda copy: copy.write_bytes(b"junk" * 2000), RegistryCorrupt, "damaged or not an SQLite"),
        (lambda copy: execute(copy, "PRAGMA application_id = 5"), RegistryCorrupt, "of another program"),
        (
            lambda copy: execute(copy, "UPDATE schema_migrations SET version_num = '9999'"),
            SchemaTooNew,
            "has schema 9999",
        ),
        (lambda copy: copy.write_bytes(copy.read_bytes()[:-4096]), RegistryCorrupt, "^the backup .* is damaged"),
    ],
)
def test_a_bad_backup_is_refused_before_anything_moves(filled, path, url, tmp_path, damage, error, message):
    copy = backup(url, tmp_path / "copy.db")
    damage(copy)
    present = dump(path)
    with pytest.raises(error, match=message) as caught:
        restore(url, copy, replace=True)
    assert "bak-<revision>" not in str(caught.value)
    assert dump(path) == present
    assert set(names_in(tmp_path)) <= {path.name, "copy.db"}
    with pytest.raises(RegistryError, match="from itself"):
        restore(url, path, replace=True)


# Doctor


def test_a_healthy_registry(filled, path, url):
    before = path.read_bytes()
    report = doctor(url, deep=True)
    assert report.pop("warnings") == doctor(url)["warnings"]
    assert report == {
        "path": str(path),
        "schema_version": REVISION,
        "latest_version": REVISION,
        "sqlite_version": sqlite3.sqlite_version,
        "journal_mode": "wal",
        "size_bytes": len(before),
        "damages": [],
        "n_patterns_checked": 3,
        "n_patterns_without_hash": 0,
        "n_runs_checked": 1,
        "n_models_checked": 0,
    }
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("version", "is_told"),
    [
        ((3, 6, 9), False),
        ((3, 7, 0), True),
        ((3, 40, 1), True),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((4, 0, 0), False),
    ],
)
def test_the_range_of_the_wal_reset_bug(filled, url, monkeypatch, version, is_told):
    monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
    assert any("WAL-reset bug (3.7.0 to 3.51.2)" in text for text in doctor(url)["warnings"]) == is_told


def flip_a_bit(path, text):
    """Turn over one bit of a stored value, as a failing disk does."""
    content = bytearray(path.read_bytes())
    at = content.index(text.encode())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("text", ['"ctx_atr":1.0', "long_signal", "barrier(stop", '"reference_px"'])
def test_a_flipped_bit_passes_sqlite_and_not_the_row_hash(registry, path, url, text):
    save(registry, [make_pattern()])
    flip_a_bit(path, text)
    assert execute(path, "PRAGMA integrity_check") == [("ok",)]
    assert doctor(url)["damages"] == []
    (finding,) = doctor(url, deep=True)["damages"]
    assert make_pattern().pattern_id in finding
    assert "damaged, or changed by hand" in finding


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE experiments SET params_json = '{}'", "params_json of run run-1 is not what its params_hash"),
        ("UPDATE ml_pattern_registry SET resolved_at = 'soon'", "a value is not of its column's kind"),
        ("UPDATE ml_pattern_registry SET features_json = '[]', features_f32 = x'00'", "is not as it was written"),
        ("UPDATE feature_sets SET versions_json = '[]'", "versions_json of feature set"),
        ("UPDATE experiments SET started_at = 5", "kind, started_at in row run-1 of experiments: "),
        ("UPDATE experiments SET data_end = x'00'", "kind, data_end in row run-1 of experiments: "),
        (
            "UPDATE experiments SET params_json = x'00'",
            "a value is not of its column's kind in row run-1 of experiments",
        ),
        ("DELETE FROM feature_sets", "which is not in feature_sets"),
        ("DELETE FROM ml_pattern_registry", "of run_decisions, which refers to ml_pattern_registry"),
        (
            "INSERT INTO run_returns VALUES ('run-1', 0, 2, x'00', '')",
            "returns of run run-1 are 1 bytes long for 2 bars",
        ),
        (
            "INSERT INTO run_returns VALUES ('run-1', 0, 0, x'', '')",
            "returns of run run-1 are not as they were written",
        ),
    ],
)
def test_what_the_doctor_finds(filled, path, url, statement, message):
    execute(path, statement)
    assert any(message in finding for finding in doctor(url, deep=True)["damages"])


def test_bars_of_another_series_are_found_though_their_row_is_whole(registry, path, url, tmp_path):
    bars = make_bars()
    registry.save_run(run_on(bars), [], [], {}, names=NAMES, bars=bars, tz=None)
    assert doctor(url, deep=True)["damages"] == []
    execute(path, "UPDATE bars SET data_hash = ?", ("d" * 64,))
    assert doctor(url)["damages"] == []
    other = f"the bars kept under {'d' * 64} are other bars: their own SHA-256 is another"
    assert doctor(url, deep=True)["damages"] == [other]
    export_registry(url, tmp_path / "export")
    with pytest.raises(DataError, match=other):
        import_registry(f"sqlite:///{tmp_path}/other.db", tmp_path / "export")


def test_large_rows_are_held_a_few_at_a_time(registry, path, url, tmp_path):
    n_runs, n_bars = 80, 40_000
    for number in range(n_runs):
        save(registry, run=make_run(f"run-{number}", returns_frac=np.full(n_bars, number / 3)))
    export_registry(url, tmp_path / "export")
    written = pq.read_metadata(tmp_path / "export" / "run_returns.parquet")
    sizes = [written.row_group(group).num_rows for group in range(written.num_row_groups)]
    assert (sum(sizes), max(sizes)) == (n_runs, 16)

    def import_it():
        import_registry(f"sqlite:///{tmp_path}/other.db", tmp_path / "export")

    for call in (lambda: doctor(url, deep=True), lambda: export_registry(url, tmp_path / "again"), import_it):
        tracemalloc.start()
        call()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < n_runs * 8 * n_bars * 0.75
    assert dump(tmp_path / "other.db") == dump(path)


@pytest.mark.parametrize(("active", "kind"), [(1, "damages"), (0, "warnings")])
def test_a_model_whose_file_is_gone_or_another(filled, path, url, active, kind):
    model = path.with_name("models") / "m1.json"
    model.parent.mkdir()
    model.write_text("{}")
    insert = "INSERT INTO ml_model_versions (model_id, trained_time, features_used, model_path, active, sha256) VALUES (?,?,?,?,?,?)"
    digest = hashlib.sha256(b"{}").hexdigest()
    execute(path, insert, ("m1", "2021-01-01 00:00:00.000000", "[]", "models/m1.json", active, digest))
    assert not [text for text in doctor(url, deep=True)[kind] if "model" in text]
    model.write_text("[]")
    assert any("model m1 is not the one that was registered" in text for text in doctor(url, deep=True)[kind])
    model.unlink()
    assert any("the file of model m1 is missing" in text for text in doctor(url, deep=True)[kind])


def test_the_doctor_looks_at_an_older_registry_without_its_rows(path, url):
    shutil.copy(FROZEN / "schema_0001.db", path)
    report = doctor(url, deep=True)
    assert (report["schema_version"], report["damages"]) == ("0001", [])
    assert any("qml db migrate" in text for text in report["warnings"])


def test_a_damaged_index_is_a_damage(filled, path, url):
    save(filled, [make_pattern(bar, outcome=make_outcome(bar)) for bar in range(200)], make_run("run-2"))
    ((root,),) = execute(path, "SELECT rootpage FROM sqlite_master WHERE name = 'ix_ml_pattern_registry_known_seq'")
    content = bytearray(path.read_bytes())
    content[(root - 1) * 4096 + 3500 : (root - 1) * 4096 + 3600] = b"\xaa" * 100
    path.write_bytes(content)
    assert doctor(url)["damages"]


# Export and import


@pytest.fixture
def rich(registry, path):
    """Every table filled, with every odd value a column may hold."""
    patterns = [
        make_pattern(
            0, features=[0.1, np.nan, -0.0], setup=make_setup(), outcome=make_outcome(0, -1 / 3), confidence=0.1 + 0.2
        ),
        make_pattern(1, symbol="Ω'\n\t<b>\0", features=[1e-45, 3e38, 5e-324]),
        make_pattern(
            2, detection_at=-62_135_596_800_000_000, outcome=make_outcome(2, resolved_at=253_402_300_799_999_999)
        ),
    ]
    near = Neighbour(patterns[0].pattern_id, 0.1, START, True, 2.0)
    decisions = [take(patterns[0], neighbours=(near,), contributions=(("a", 1 / 3),)), take(patterns[1])]
    bars = make_bars()
    run = run_on(
        bars, git_hash="0" * 40, is_git_dirty=True, git_diff="-a\n+<b>\n", returns_frac=np.array([1 / 3, np.nan])
    )
    returns = {patterns[0].pattern_id: 1 / 7}
    registry.save_run(run, patterns, decisions, returns, names=NAMES, bars=bars, tz="Europe/Paris")
    save(registry, run=make_run("run-2", seed=2**62, status="failed", error="%s <script>"))
    registry.label_pattern(patterns[0].pattern_id, "win", 1 / 3)
    execute(
        path,
        "INSERT INTO ml_model_versions (model_id, trained_time, features_used, model_path, active) "
        "VALUES ('m', '2021-01-01 00:00:00.000001', '[]', '../m.json', 1)",
    )
    return registry


@pytest.fixture
def exported(rich, url, tmp_path):
    export_registry(url, tmp_path / "export")
    return tmp_path / "export"


def test_an_import_is_what_was_exported_value_for_value(exported, path, tmp_path):
    other = tmp_path / "deep" / "other.db"
    counts = import_registry(f"sqlite:///{other}", exported)
    assert dump(other) == dump(path)
    assert counts == {table: len(rows) for table, rows in dump(path).items() if table != "schema_migrations"}
    assert min(counts.values()) >= 1
    (finding,) = doctor(f"sqlite:///{other}", deep=True)["damages"]
    assert "model m: the stored model_path '../m.json' is refused" in finding
    export_registry(f"sqlite:///{other}", tmp_path / "again")
    for file in exported.glob("*.parquet"):
        assert pq.read_table(file).equals(pq.read_table(tmp_path / "again" / file.name)) or file.stem == "run_returns"


def test_an_export_is_plain_parquet_and_json(exported):
    manifest = json.loads((exported / "manifest.json").read_text())
    assert (manifest["format"], manifest["schema_version"]) == ("qml_plugin registry 1", REVISION)
    assert {f"{table}.parquet" for table in manifest["tables"]} | {"manifest.json"} == set(names_in(exported))
    patterns = pq.read_table(exported / "ml_pattern_registry.parquet")
    assert patterns.num_rows == manifest["tables"]["ml_pattern_registry"]["rows"] == 3
    assert patterns.schema.field("detection_time").type == pa.timestamp("us")


def test_many_rows_come_in_pieces(registry, url, path, tmp_path):
    save(registry, [make_pattern(bar, outcome=make_outcome(bar)) for bar in range(2500)])
    assert export_registry(url, tmp_path / "export")["ml_pattern_registry"] == 2500
    import_registry(f"sqlite:///{tmp_path}/other.db", tmp_path / "export")
    assert dump(tmp_path / "other.db") == dump(path)


def test_nothing_is_overwritten(exported, url, path):
    before = dump(path)
    with pytest.raises(RegistryError, match="exists already and was not overwritten"):
        export_registry(url, exported)
    with pytest.raises(RegistryError, match=r"is not empty: .* holds rows. Import into a new database"):
        import_registry(url, exported)
    assert dump(path) == before


def test_an_export_of_a_damaged_value_leaves_nothing_behind(rich, url, path, tmp_path):
    execute(path, "UPDATE ml_pattern_registry SET validity_score = 'high'")
    with pytest.raises(RegistryCorrupt, match="ml_pattern_registry holds a value that is not of its column's kind"):
        export_registry(url, tmp_path / "export")
    assert names_in(tmp_path) == [path.name]


def rewrite(exported, table, change):
    """Change a table and give the manifest its new hash, as one with bad intentions would."""
    file = exported / f"{table}.parquet"
    pq.write_table(change(pq.read_table(file)), file)
    sign(exported, table, rows=pq.read_metadata(file).num_rows)


def sign(exported, table, **said):
    manifest = json.loads((exported / "manifest.json").read_text())
    digest = hashlib.sha256((exported / f"{table}.parquet").read_bytes()).hexdigest()
    manifest["tables"][table] |= {"sha256": digest, **said}
    (exported / "manifest.json").write_text(json.dumps(manifest))


def with_column(table, name, values, kind=None):
    at = table.schema.get_field_index(name)
    return table.set_column(at, name, pa.array(values, kind or table.schema.field(name).type))


def say(exported, **changes):
    file = exported / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


HOSTILE = {
    "no manifest": (lambda e: (e / "manifest.json").unlink(), "manifest.json is missing"),
    "a manifest that is a link": (
        lambda e: ((e / "manifest.json").rename(e / "m"), (e / "manifest.json").symlink_to(e / "m")),
        "no plain file",
    ),
    "a huge manifest": (lambda e: (e / "manifest.json").write_bytes(b" " * (1 << 21)), "larger than"),
    "a manifest that is no JSON": (lambda e: (e / "manifest.json").write_text("{"), "no JSON"),
    "another format": (lambda e: say(e, format="x"), "not of the format"),
    "another schema": (lambda e: say(e, schema_version="0001"), "it is of schema '0001'"),
    "another table": (lambda e: say(e, tables={"../../etc/passwd": {"rows": 0, "sha256": ""}}), "its tables are not"),
    "tables without hashes": (
        lambda e: say(e, tables={key: {} for key in json.loads((e / "manifest.json").read_text())["tables"]}),
        "does not tell rows and sha256",
    ),
    "no file": (lambda e: (e / "experiments.parquet").unlink(), "experiments.parquet is missing"),
    "a file that is a link": (
        lambda e: ((e / "experiments.parquet").rename(e / "x"), (e / "experiments.parquet").symlink_to(e / "x")),
        "no plain file",
    ),
    "a flipped bit": (lambda e: flip_a_bit(e / "experiments.parquet", "PAR1"), "the SHA-256 of experiments.parquet"),
    "a file that is no Parquet": (
        lambda e: ((e / "experiments.parquet").write_bytes(b"PAR1junkPAR1"), sign(e, "experiments")),
        "a file cannot be read",
    ),
    "a wrong number of rows": (lambda e: sign(e, "experiments", rows=7), "holds 2 rows, manifest.json tells of 7"),
    "one column too many": (
        lambda e: rewrite(e, "experiments", lambda t: t.append_column("x", pa.array([1] * len(t)))),
        "does not have exactly the columns of experiments",
    ),
    "one column too few": (
        lambda e: rewrite(e, "experiments", lambda t: t.drop_columns(["seed"])),
        "does not have exactly the columns of experiments",
    ),
    "a column of another kind": (
        lambda e: rewrite(e, "experiments", lambda t: with_column(t, "seed", ["1"] * len(t), pa.string())),
        "does not have exactly the columns of experiments",
    ),
    "a required value that is missing": (
        lambda e: rewrite(e, "experiments", lambda t: with_column(t, "symbol", [None] * len(t))),
        "a row of experiments is without symbol",
    ),
    "a label that is none": (
        lambda e: rewrite(
            e,
            "ml_pattern_registry",
            lambda t: with_column(
                with_column(t, "user_label", ["<script>"] * len(t)), "row_sha256", [None] * len(t)
            ),
        ),
        "ck_ml_pattern_registry_user_label",
    ),
    "a changed outcome": (
        lambda e: rewrite(e, "ml_pattern_registry", lambda t: with_column(t, "r_multiple", [9.0] * len(t))),
        "is not as it was written",
    ),
    "other compact features": (
        lambda e: rewrite(e, "ml_pattern_registry", lambda t: with_column(t, "features_f32", [b"\0" * 12] * len(t))),
        "differs from its features_json",
    ),
    "other parameters": (
        lambda e: rewrite(e, "experiments", lambda t: with_column(t, "params_json", ["{}"] * len(t))),
        "params_json of run",
    ),
    "other returns": (
        lambda e: rewrite(e, "run_returns", lambda t: with_column(t, "returns_f64", [b"\0" * 16])),
        "returns of run run-1 are not as they were written",
    ),
    "a number of a commit that leaves none": (
        lambda e: rewrite(e, "ml_pattern_registry", lambda t: with_column(t, "known_seq", [2**63 - 1] * len(t))),
        "known_seq is 9223372036854775807 in a row of ml_pattern_registry",
    ),
    "a number of a score that leaves none": (
        lambda e: rewrite(e, "ml_pattern_registry", lambda t: with_column(t, "scored_seq", [2**53 + 1] * len(t))),
        "scored_seq is 9007199254740993",
    ),
    "a commit before the first": (
        lambda e: rewrite(e, "ml_pattern_registry", lambda t: with_column(t, "known_seq", [0] * len(t))),
        "known_seq is 0 .* must lie between 1 and",
    ),
    "a snapshot of a commit to come": (
        lambda e: rewrite(e, "experiments", lambda t: with_column(t, "snapshot_seq", [-(2**63)] * len(t))),
        "snapshot_seq is -9223372036854775808",
    ),
    "a text that fills the memory": (
        lambda e: rewrite(e, "experiments", lambda t: with_column(t, "error", ["x" * (1 << 26)] * len(t))),
        "a row of experiments holds .* bytes, more than 67108864",
    ),
    "a row twice": (
        lambda e: rewrite(e, "experiments", lambda t: pa.concat_tables([t, t])),
        "refused a row: UNIQUE",
    ),
    "a decision without its run": (
        lambda e: rewrite(e, "run_decisions", lambda t: with_column(t, "run_id", ["../../x"] * len(t))),
        "FOREIGN KEY",
    ),
    "a time out of range": (
        lambda e: rewrite(e, "experiments", lambda t: with_column(t, "started_at", pa.array([2**62] * len(t), pa.int64()).view(pa.timestamp("us")))),
        "started_at|cannot be read|out of range|cannot be stored",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_export_is_refused_and_stores_nothing(exported, tmp_path, kind):
    damage, message = HOSTILE[kind]
    damage(exported)
    other = f"sqlite:///{tmp_path}/other.db"
    migrate(other)
    before = dump(tmp_path / "other.db")
    with pytest.raises(DataError, match=message):
        import_registry(other, exported)
    assert dump(tmp_path / "other.db") == before
    assert info(other)["rows"]["ml_pattern_registry"] == 0


def test_texts_that_a_small_file_repeats_are_held_a_few_at_a_time(registry, url, tmp_path, monkeypatch):
    for number in range(200):
        save(registry, run=make_run(f"run-{number:03}", status="failed", error="x"))
    export, text = tmp_path / "export", "x" * (1 << 17)
    export_registry(url, export)
    rewrite(export, "experiments", lambda t: with_column(t, "error", [text] * len(t)))
    assert (export / "experiments.parquet").stat().st_size < 200_000
    monkeypatch.setattr(transfer, "_LARGEST_ROW", 1 << 20)
    tracemalloc.start()
    import_registry(f"sqlite:///{tmp_path}/other.db", export)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20 < 200 * len(text) / 3
    assert execute(tmp_path / "other.db", "SELECT count(*), min(length(error)) FROM experiments") == [(200, len(text))]


def test_a_column_in_too_large_a_piece_is_refused_before_it_is_read(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "_LARGEST_CHUNK", 100)
    with pytest.raises(DataError, match=r"a column of \w+.parquet takes \d+ bytes, more than 100, in one piece"):
        import_registry(f"sqlite:///{tmp_path}/other.db", exported)


def test_an_older_registry_is_upgraded_before_it_is_exported(path, url, tmp_path):
    shutil.copy(FROZEN / "schema_0001.db", path)
    with pytest.raises(SchemaTooOld, match="qml db migrate"):
        export_registry(url, tmp_path / "export")
    migrate(url)
    assert export_registry(url, tmp_path / "export")["ml_pattern_registry"] == 14


def test_an_imported_registry_goes_on(exported, tmp_path):
    other = f"sqlite:///{tmp_path}/other.db"
    import_registry(other, exported)
    registry = PatternRegistry(other)
    save(registry, [replace(make_pattern(7), confidence=0.5)], make_run("next"))
    assert registry.get_statistics()["n_patterns"] == 4
