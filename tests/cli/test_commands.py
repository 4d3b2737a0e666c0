"""Every command: what it prints, and what it says when it refuses."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import sqlite3
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import typer

from qml_plugin.cli.app import app
from qml_plugin.errors import DataError, RegistryError
from qml_plugin.features import CATALOGUE
from tests.registry.registry_samples import execute

QML = Path(sys.executable).with_name("qml")
PUBLIC_KEYS = {"n_patterns", "symbols", "n_resolved", "barrier_win_share", "n_runs", "last_run"}


def commands(command=None, path=()):
    """(path, command) of every command and group."""
    command = command or typer.main.get_command(app)
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


def words(text):
    """Text without the frames that help draws."""
    return " ".join("".join(" " if char in "│╭╮╰╯─" else char for char in text).split())


def strict(text):
    """JSON that any reader accepts: NaN is none."""

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def is_refused(answer, code, message):
    """One line on stderr, nothing on stdout."""
    actual, out, err = answer
    assert (actual, out) == (code, "")
    assert err.startswith("qml: ")
    assert err.count("\n") == 1
    assert message in err
    return True


# Help


def test_the_commands():
    assert {" ".join(path) for path, command in commands() if not hasattr(command, "commands")} == {
        "demo", "stats", "vrd", "certify", "study new", "study run", "study resume", "study status", "study report", "audit", "similar", "sweep", "walk-forward", "compare-engines", "setups", "decisions", "trial", "label", "warmup", "db migrate", "db info", "db backup", "db restore", "db doctor", "db export",
        "db import", "features list", "features show", "features compute", "features redundancy",
        "train", "models list", "models show", "models activate", "models retire",
        "runs list", "runs show", "runs compare", "runs best", "runs reproduce", "runs returns", "runs export-mlflow",
    }  # fmt: skip


@pytest.mark.parametrize("path", [path for path, _ in commands()], ids=" ".join)
def test_help_teaches(qml, path):
    command = dict(commands())[path]
    code, out, err = qml(*path, "--help")
    assert (code, err) == (0, "")
    text = words(out)
    assert "Usage: " + " ".join(["qml", *path]) in text
    assert len((command.help or "").split()) > 4, "a command says what it does"
    for parameter in command.params:
        if not (getattr(parameter, "hidden", False)):
            assert len((parameter.help or "").split()) > 2, f"{parameter.name} is explained"
            assert words(parameter.help) in text
    for name, inner in getattr(command, "commands", {}).items():
        assert name in text
        assert len((inner.help or "").split()) > 4


def test_help_names_the_exit_codes(qml):
    text = words(qml("--help")[1])
    for meaning in ("0 done", "1 refused", "2 wrong usage", "3 the database has another schema", "4 the database is"):
        assert meaning in text


def test_help_tells_defaults_and_the_environment(qml):
    text = words(qml("stats", "--help")[1])
    assert "sqlite:///results/experiments.db" in text
    assert "QML_DB" in text


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["demo", "--help"], ["similar", "--help"], ["features", "show", "--help"], ["label", "--help"]],
)
def test_help_loads_nothing_heavy(arguments):
    code = (
        "import sys\nfrom qml_plugin.cli import main\n"
        f"try: main({arguments!r})\nexcept SystemExit: pass\n"
        "heavy = {'numpy', 'pandas', 'numba', 'faiss', 'sklearn', 'xgboost', 'sqlalchemy', 'backtesting', 'plotly'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


# Usage


@pytest.mark.parametrize(
    "arguments",
    [["nope"], ["similar"], ["similar", "x", "-n", "0"], ["stats", "--colour"], ["db", "drop"], ["demo", "here"]],
    ids=" ".join,
)
def test_wrong_usage(qml, arguments):
    code, out, err = qml(*arguments)
    assert (code, out) == (2, "")
    assert "Usage: qml" in err
    assert "--help" in err


# features list


def test_features_are_listed_whole(qml):
    code, out, err = qml("features", "list")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["name", "category", "needs", "window", "warmup", "definition", "source"]
    assert len(lines) == len(CATALOGUE) + 1
    for line, feature in zip(lines[1:], CATALOGUE, strict=True):
        assert line.split()[:5] == [
            feature.name,
            feature.category,
            feature.needs,
            str(feature.window),
            str(feature.warmup),
        ]
        assert feature.definition in line
        assert feature.source in line


@pytest.mark.parametrize("category", sorted({feature.category for feature in CATALOGUE}))
def test_features_of_a_category(qml, category):
    listed = strict(qml("features", "list", "--category", category, "--json")[1])
    assert [row["name"] for row in listed] == [f.name for f in CATALOGUE if f.category == category]
    assert set(listed[0]) == {"name", "category", "needs", "window", "warmup", "definition", "source"}


def test_an_unknown_category_is_refused_with_the_known_ones(qml):
    assert is_refused(
        qml("features", "list", "--category", "moon"),
        1,
        "category 'moon' is unknown. Use one of ctx, geo, mom, regime, temp, vol, vol_relative.",
    )


# stats


def test_stats_count_what_the_run_left(qml, url, database):
    code, out, err = qml("stats", "--db", url)
    assert (code, err) == (0, "")
    shown = dict(line.split(maxsplit=1) for line in out.splitlines()[1:] if len(line.split()) > 1)
    n_patterns = execute(database, "SELECT count(*) FROM ml_pattern_registry")[0][0]
    assert n_patterns > 80
    assert shown["n_patterns"].strip() == shown["symbols.GOOG"].strip() == str(n_patterns)
    assert shown["n_runs"].strip() == "1"
    told = strict(qml("stats", "--db", url, "--json")[1])
    assert set(told) >= PUBLIC_KEYS
    assert (told["n_patterns"], told["symbols"], told["n_runs"]) == (n_patterns, {"GOOG": n_patterns}, 1)
    ((n_wins, n_resolved),) = execute(
        database, "SELECT sum(barrier_outcome = 'win'), count(resolved_at) FROM ml_pattern_registry"
    )
    assert told["n_resolved"] == n_resolved
    assert told["barrier_win_share"] == pytest.approx(n_wins / n_resolved)


def test_the_table_of_statistics_is_short_and_the_json_whole(qml, url, database):
    execute(database, "UPDATE ml_pattern_registry SET symbol = ? WHERE rowid = 1", ("N" * 500,))
    code, out, err = qml("stats", "--db", url)
    assert (code, err) == (0, "")
    told = strict(qml("stats", "--db", url, "--json")[1])
    last = {
        line.split()[0]: line.split(maxsplit=1)[1].strip() for line in out.splitlines() if line.startswith("last_run.")
    }
    assert list(last) == ["last_run.run_id", "last_run.strategy", "last_run.status", "last_run.when"]
    assert last["last_run.run_id"] == told["last_run"]["run_id"]
    assert last["last_run.when"] == told["last_run"]["finished_at"][:16]
    assert re.search(r"^barrier_win_share +\d\d\.\d % *$", out, re.MULTILINE)
    assert max(map(len, out.splitlines())) < 100
    assert "symbols.NNN" in out
    assert "NNN…" in out
    assert "N" * 500 in told["symbols"]
    assert {"data_hash", "params", "versions"} <= set(told["last_run"])


def test_the_database_may_come_from_the_environment(qml, url, monkeypatch):
    monkeypatch.setenv("QML_DB", url)
    assert strict(qml("stats", "--json")[1])["symbols"].keys() == {"GOOG"}


def test_looking_changes_nothing(qml, url, database):
    pattern_id, _, _ = late_pattern(database)
    before = Path(database).read_bytes()
    for arguments in (["stats"], ["db", "info"], ["similar", pattern_id]):
        assert qml(*arguments, "--db", url)[0] == 0
    assert Path(database).read_bytes() == before


def late_pattern(database):
    return execute(
        database, "SELECT pattern_id, side, known_at FROM ml_pattern_registry ORDER BY detection_time DESC LIMIT 1"
    )[0]


# db


def test_migrate_makes_a_database_and_then_has_nothing_to_do(qml, tmp_path):
    path = tmp_path / "deep" / "new.db"
    assert qml("db", "migrate", "--db", f"sqlite:///{path}") == (0, "applied 0001, 0002, 0003, 0004\n", "")
    assert path.exists()
    assert qml("db", "migrate", "--db", f"sqlite:///{path}") == (0, "already at the current schema version\n", "")
    told = strict(qml("stats", "--db", f"sqlite:///{path}", "--json")[1])
    assert (told["n_patterns"], told["barrier_win_share"], told["last_run"]) == (0, None, None)
    assert qml("stats", "--db", f"sqlite:///{path}")[0] == 0


def test_info(qml, url, database):
    code, out, err = qml("db", "info", "--db", url)
    assert (code, err) == (0, "")
    shown = dict(line.split() for line in out.splitlines()[1:])
    assert shown["path"] == str(database)
    assert shown["schema_version"] == shown["latest_version"]
    told = strict(qml("db", "info", "--db", url, "--json")[1])
    assert told["rows"]["ml_pattern_registry"] == int(shown["rows.ml_pattern_registry"]) > 80
    assert told["size_bytes"] == Path(database).stat().st_size


# Databases that cannot be used

READERS = [["stats"], ["stats", "--json"], ["similar", "x"], ["db", "info"]]


@pytest.mark.parametrize("arguments", READERS, ids=" ".join)
def test_a_missing_database_is_refused_and_not_made(qml, tmp_path, arguments):
    path = tmp_path / "deep" / "missing.db"
    answer = qml(*arguments, "--db", f"sqlite:///{path}")
    assert is_refused(answer, 1, str(path))
    assert f"qml db migrate --db sqlite:///{path}" in answer[2]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", READERS, ids=" ".join)
def test_the_missing_default_is_refused_and_not_made(qml, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    assert is_refused(qml(*arguments), 1, "results/experiments.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [*READERS[:3], ["db", "migrate"]], ids=" ".join)
def test_a_foreign_database_is_left_alone(qml, tmp_path, arguments):
    path = tmp_path / "foreign.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    connection.close()
    before = path.read_bytes()
    assert is_refused(qml(*arguments, "--db", f"sqlite:///{path}"), 4, "SQLite file of another program")
    assert path.read_bytes() == before


@pytest.mark.parametrize("arguments", [*READERS, ["db", "migrate"]], ids=" ".join)
def test_a_file_that_is_no_database(qml, tmp_path, arguments):
    path = tmp_path / "notes.txt"
    path.write_text("This is not a database. " * 100)
    assert is_refused(qml(*arguments, "--db", f"sqlite:///{path}"), 4, "damaged or not an SQLite database")
    assert path.read_text().startswith("This is not a database.")


@pytest.mark.parametrize("arguments", [*READERS[:3], ["db", "migrate"]], ids=" ".join)
def test_a_newer_database_is_left_alone(qml, url, database, arguments):
    execute(database, "UPDATE schema_migrations SET version_num = '9999'")
    before = Path(database).read_bytes()
    assert is_refused(qml(*arguments, "--db", url), 3, "has schema 9999")
    assert Path(database).read_bytes() == before


def test_another_kind_of_database_is_refused(qml):
    assert is_refused(qml("stats", "--db", "mysql://me:secret@there/db"), 1, "names the database 'mysql'")
    assert "secret" not in qml("stats", "--db", "mysql://me:secret@there/db")[2]


def test_a_warning_is_one_plain_line(qml, monkeypatch):
    def warn_of(told):
        monkeypatch.setattr(
            "qml_plugin.cli.app.app", lambda *_, **__: warnings.warn(told, RuntimeWarning, stacklevel=1)
        )
        warnings.simplefilter("always")
        return qml("stats")

    with warnings.catch_warnings():
        assert warn_of("one\ntwo \x1b[2J") == (0, "", "warning: one\\ntwo \\x1b[2J\n")
        shown = warnings.showwarning
        assert warn_of("again")[2] == "warning: again\n"
        assert warnings.showwarning is shown


def test_debug_shows_where_a_warning_comes_from(tmp_path):
    script = "import sys, warnings; from qml_plugin.cli import app, main; app.app = lambda *_, **__: warnings.warn('told'); main(['--debug'])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "UserWarning: told" in done.stderr


def test_debug_shows_the_traceback(qml, tmp_path):
    missing = f"sqlite:///{tmp_path}/missing.db"
    with pytest.raises(RegistryError, match="there is no database"):
        qml("--debug", "stats", "--db", missing)
    with pytest.raises(DataError, match="category 'moon' is unknown"):
        qml("--debug", "features", "list", "--category", "moon")
    done = subprocess.run([QML, "--debug", "stats", "--db", missing], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Traceback")
    assert "RegistryError: there is no database" in done.stderr


def test_a_folder_that_cannot_be_made_is_refused(qml, tmp_path):
    (tmp_path / "file").write_text("mine")
    assert is_refused(qml("demo", "--out", tmp_path / "file"), 1, str(tmp_path / "file"))


# As a program of its own


def run(*arguments, cwd):
    return subprocess.run([QML, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, check=False)


def test_the_program_is_installed_and_refuses_in_one_line(tmp_path):
    done = run("stats", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("qml: there is no database at ")
    assert list(tmp_path.iterdir()) == []


def test_output_in_a_pipe_is_whole(tmp_path, url, database):
    done = run("features", "list", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == len(CATALOGUE) + 1
    for feature in CATALOGUE:
        assert feature.definition in done.stdout
    assert "…" not in done.stdout
    assert "\x1b" not in done.stdout
    pattern_id, _, _ = late_pattern(database)
    rows = strict(run("similar", pattern_id, "--db", url, "--json", cwd=tmp_path).stdout)[0]["neighbours"]
    assert len(rows) == 10
    assert all(math.isfinite(row["distance"]) for row in rows)


def test_usage_errors_exit_with_two(tmp_path):
    done = run("similar", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_narrow_terminal_gets_a_paragraph_a_row():
    import pty

    master, slave = pty.openpty()
    command = [Path(sys.executable).with_name("qml"), "features", "list", "--category", "regime"]
    subprocess.run(command, stdout=slave, stderr=slave, env={**os.environ, "COLUMNS": "80"}, check=True, timeout=60)
    os.close(slave)
    shown = b""
    with contextlib.suppress(OSError):  # the end of a terminal whose other side is closed
        while chunk := os.read(master, 65536):
            shown += chunk
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in shown.decode().splitlines()]
    assert max(map(len, lines)) <= 80
    assert sum(line.startswith("regime_is_trending category regime · needs bars · window 28") for line in lines) == 1


def test_every_command_keeps_the_bars_of_the_host_away(qml, url, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "")
    monkeypatch.delenv("TQDM_DISABLE")
    assert qml("stats", "--db", url)[0] == 0
    assert os.environ["TQDM_DISABLE"] == "1"
