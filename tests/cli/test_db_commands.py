"""`qml db`: backup, restore, doctor, export and import, and what they say when they refuse."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest

from tests.cli.test_commands import QML, is_refused, strict, words
from tests.registry.registry_samples import dump, execute
from tests.registry.test_registry_frozen import FROZEN


def test_a_backup_and_the_way_back(qml, url, database, tmp_path):
    code, out, err = qml("db", "backup", "--db", url)
    assert (code, err) == (0, "")
    copy = Path(out.split(maxsplit=1)[1].strip())
    past = dump(database)
    assert dump(copy) == past
    execute(database, "DELETE FROM run_decisions")
    present = dump(database)
    assert is_refused(qml("db", "restore", copy, "--db", url), 1, "exists and was not overwritten. With --replace")
    assert dump(database) == present
    code, out, err = qml("db", "restore", copy, "--db", url, "--replace")
    assert (code, err) == (0, "")
    said = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert said["restored"] == url
    assert (dump(database), dump(said["before"])) == (past, present)
    assert qml("db", "restore", copy, "--db", f"sqlite:///{tmp_path}/deep/new.db")[0] == 0
    assert dump(tmp_path / "deep" / "new.db") == past


def test_a_backup_goes_where_it_is_told_and_not_over_what_is_there(qml, url, tmp_path):
    assert qml("db", "backup", "--db", url, "--out", tmp_path / "copy.db") == (0, f"backup    {tmp_path}/copy.db\n", "")
    answer = qml("db", "backup", "--db", url, "--out", tmp_path / "copy.db")
    assert is_refused(answer, 1, "exists already and was not overwritten")


def test_a_healthy_database(qml, url, database):
    before = Path(database).read_bytes()
    code, out, err = qml("db", "doctor", "--db", url)
    assert (code, err) == (0, "")
    assert dict(line.split() for line in out.splitlines() if len(line.split()) == 2)["healthy"] == "yes"
    assert sqlite3.sqlite_version in out
    told = strict(qml("db", "doctor", "--deep", "--json", "--db", url)[1])
    n_patterns = execute(database, "SELECT count(*) FROM ml_pattern_registry")[0][0]
    assert (told["damages"], told["n_patterns_checked"], told["n_patterns_without_hash"]) == ([], n_patterns, 0)
    if sqlite3.sqlite_version_info < (3, 51, 3):
        assert "warning: SQLite" in out
        assert "WAL-reset bug (3.7.0 to 3.51.2)" in words(out)
    assert Path(database).read_bytes() == before


def test_a_changed_row_is_found_by_the_deep_look_alone(qml, url, database):
    ((victim,),) = execute(database, "SELECT min(pattern_id) FROM ml_pattern_registry")
    execute(database, "UPDATE ml_pattern_registry SET r_multiple = 99 WHERE pattern_id = ?", (victim,))
    assert qml("db", "doctor", "--db", url)[0] == 0
    code, out, err = qml("db", "doctor", "--deep", "--db", url)
    assert (code, err) == (4, "")
    assert f"damage: pattern {victim} is not as it was written" in out
    code, out, _ = qml("db", "doctor", "--deep", "--json", "--db", url)
    assert code == 4
    assert len(strict(out)["damages"]) == 1


def test_a_truncated_database_exits_with_four_and_names_the_way_out(qml, url, database):
    content = Path(database).read_bytes()
    Path(database).write_bytes(content[: len(content) // 2 + 13])
    code, out, err = qml("db", "doctor", "--db", url)
    assert code == 4
    assert "malformed" in out + err
    assert is_refused(qml("db", "export", Path(database).parent / "export", "--db", url), 4, "Restore a copy")


def test_an_export_and_its_import(qml, url, database, tmp_path):
    code, out, err = qml("db", "export", tmp_path / "export", "--db", url)
    assert (code, err) == (0, "")
    counts = {line.split()[0]: int(line.split()[1]) for line in out.splitlines()[1:]}
    assert counts["ml_pattern_registry"] > 80
    assert set(counts) == set(json.loads((tmp_path / "export" / "manifest.json").read_text())["tables"])
    other = f"sqlite:///{tmp_path}/other.db"
    assert qml("db", "import", tmp_path / "export", "--db", other) == (0, out, "")
    assert dump(tmp_path / "other.db") == dump(database)
    assert is_refused(qml("db", "import", tmp_path / "export", "--db", other), 1, "is not empty")
    assert is_refused(qml("db", "export", tmp_path / "export", "--db", url), 1, "exists already")
    (tmp_path / "export" / "manifest.json").write_text("{}")
    answer = qml("db", "import", tmp_path / "export", "--db", f"sqlite:///{tmp_path}/third.db")
    assert is_refused(answer, 1, "was refused: manifest.json is not of the format")


@pytest.mark.parametrize("command", [["backup"], ["doctor"], ["export", "out"]], ids=" ".join)
def test_a_missing_database_is_refused_and_not_made(qml, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    assert is_refused(qml("db", *command, "--db", "sqlite:///missing.db"), 1, "there is no database at")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [["stats"], ["similar", "x"], ["db", "export", "out"]], ids=" ".join)
def test_an_empty_file_is_left_empty(qml, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    Path("empty.db").touch()
    assert is_refused(qml(*command, "--db", "sqlite:///empty.db"), 1, "is empty: it is no registry yet")
    assert Path("empty.db").stat().st_size == 0
    assert qml("db", "migrate", "--db", "sqlite:///empty.db") == (0, "applied 0001, 0002, 0003, 0004\n", "")


def test_an_older_database_names_the_command_that_upgrades_it(qml, tmp_path):
    path = shutil.copy(FROZEN / "schema_0001.db", tmp_path / "old.db")
    url = f"sqlite:///{path}"
    assert is_refused(qml("stats", "--db", url), 3, f"qml db migrate --db {url}")
    assert qml("db", "doctor", "--db", url)[0] == 0
    assert qml("db", "migrate", "--db", url) == (0, "applied 0002, 0003, 0004\n", "")
    assert qml("stats", "--db", url)[0] == 0
    assert qml("db", "restore", f"{path}.bak-0001", "--db", url, "--replace")[0] == 0
    assert strict(qml("db", "info", "--db", url, "--json")[1])["schema_version"] == "0001"


def test_a_model_that_a_backup_leaves_behind_is_one_line(database, tmp_path):
    insert = "INSERT INTO ml_model_versions (model_id, trained_time, features_used, model_path) VALUES (?, ?, ?, ?)"
    execute(database, insert, ("m1", "2021-01-01 00:00:00.000000", "[]", "models/m1.json"))
    (tmp_path / "away").mkdir()
    copy = tmp_path / "away" / "copy.db"
    done = subprocess.run(
        [QML, "db", "backup", "--db", f"sqlite:///{database}", "--out", copy],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"backup    {copy}\n"
    assert re.fullmatch(
        "warning: model m1 goes without its file: the model .*m1.json cannot be read: .*\n", done.stderr
    )


def test_help_does_not_say_that_a_command_that_writes_reads_only(qml):
    assert "Registry to use." in words(qml("db", "import", "--help")[1])
