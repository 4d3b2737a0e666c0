"""Backup, restore and examination of a registry file."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from qml_plugin.errors import RegistryCorrupt, RegistryError
from qml_plugin.registry import feature_sets
from qml_plugin.registry.checks import MODELS, ROW_FAULTS, model_fault, pattern_fault, rows_at_once
from qml_plugin.registry.connection import Database, SqliteDatabase, open_database
from qml_plugin.registry.migrations import current_revision, latest_revision
from qml_plugin.registry.models import carry_files
from qml_plugin.registry.schema import metadata, ml_model_versions, ml_pattern_registry
from qml_plugin.registry.vectors import vector_file_faults

_LOGS = ("", "-wal", "-shm", "-journal")


def backup(url: str, out: Path | str | None = None, *, busy_timeout_s: float = 20.0) -> Path:
    """Copy a registry, as it is committed now, into one file; others may read and write meanwhile.

    A copy in another folder than the registry's gets the files of the models too, in the folder ``<copy>.models`` beside it.
    A file that is missing, damaged, or not written over stays behind with a RuntimeWarning.

    Parameters
    ----------
    url : str
        ``sqlite:///path`` of an existing registry.
    out : path, optional
        File to make; ``<file>.backup-<UTC time>`` beside the registry by default. Nothing is ever overwritten.
    busy_timeout_s : float, seconds

    Returns
    -------
    Path
        The copy, whole and checked.

    Raises
    ------
    RegistryError
        If there is no registry, the copy exists already, or it cannot be written; no part of it is left behind.
    RegistryCorrupt
        If the registry is damaged, empty or another program's; no copy is left behind.
    """
    database = _file(url, busy_timeout_s)
    database.require()
    source = _path(database)
    with database.read() as connection:
        if current_revision(database, connection) is None:
            raise RegistryCorrupt(f"{database.name} is empty: it holds no registry to copy. Name another one.")
    target = Path(out).absolute() if out is not None else source.with_name(f"{source.name}.backup-{_stamp()}")
    if target.exists():
        raise RegistryError(f"{target} exists already and was not overwritten. Name another file, or move it away.")
    database.backup(target)
    copy, beside = _database(target, busy_timeout_s), _models_beside(target)
    was_there = beside.exists()
    try:
        if damages := copy.damages():
            raise RegistryCorrupt(
                f"{database.name} is damaged: {damages[0]}. No copy of it was left; restore an older one with 'qml db restore', "
                "or try to save its rows with 'qml db export'."
            )
        if target.parent != source.parent:
            _carry_models(copy, source.parent / MODELS, beside)
    except (RegistryError, Warning):  # a warning where the user turned warnings into errors
        target.unlink()
        if not was_there:
            shutil.rmtree(beside, ignore_errors=True)
        raise
    return target


def restore(url: str, source: Path | str, *, replace: bool = False, busy_timeout_s: float = 20.0) -> Path | None:
    """Put a backup in the place of a registry.

    The backup is checked and copied first; only then is the registry that is there moved aside, log and all. No other
    process may use it meanwhile. The files of the models come back into the folder ``models``, from ``<backup>.models`` or, where
    there is none, from ``models`` beside the backup; none is overwritten, and one that is missing, damaged, or in the way of
    another stays behind with a RuntimeWarning.

    Parameters
    ----------
    url : str
        ``sqlite:///path`` of the registry to be.
    source : path
        A backup, of this schema or an older one.
    replace : bool, default=False
        Whether a registry that is there may be moved aside.
    busy_timeout_s : float, seconds

    Returns
    -------
    Path or None
        Where the registry that was there is now: ``<file>.replaced-<UTC time>``. None if there was none.

    Raises
    ------
    RegistryError
        If there is a registry and `replace` is False, or the copy cannot be written. See the subclasses too.
    RegistryCorrupt
        If the backup is damaged, or not a registry.
    """
    database, origin = _file(url, busy_timeout_s), _database(Path(source).absolute(), busy_timeout_s)
    target = _path(database)
    if origin.path == target:
        raise RegistryError(f"{target} cannot be restored from itself. Name a backup of it.")
    if not _path(origin).is_file():
        raise RegistryError(f"there is no backup at {origin.path}. Name the file that 'qml db backup' made.")
    if target.exists() and not replace:
        raise RegistryError(
            f"{target} exists and was not overwritten. With --replace it is moved aside; or restore to another --db."
        )
    _refuse_damaged(origin)
    target.parent.mkdir(parents=True, exist_ok=True)
    restored = target.with_name(f"{target.name}.restoring")
    origin.backup(restored)
    try:
        beside = _models_beside(_path(origin))
        _carry_models(origin, beside if beside.exists() else beside.with_name(MODELS), target.parent / MODELS)
        _wait_for_writers(database)
        aside = target.with_name(f"{target.name}.replaced-{_stamp()}")
        # A log without its file, or of another file, would be replayed into the restored one.
        moved = [_moved(target, aside, log) for log in _LOGS]
        restored.replace(target)
    finally:
        restored.unlink(missing_ok=True)
    return aside if moved[0] else None


def doctor(url: str, *, deep: bool = False, busy_timeout_s: float = 20.0) -> dict[str, Any]:
    """Examine a registry; changes nothing.

    Parameters
    ----------
    url : str
        ``sqlite:///path`` of an existing registry.
    deep : bool, default=False
        Whether to check every row against its hash, every compact copy of features against its JSON, and the file of
        every model.
    busy_timeout_s : float, seconds

    Returns
    -------
    dict
        ``path``, ``schema_version``, ``latest_version``, ``sqlite_version``, ``journal_mode``; ``warnings`` and ``damages`` (lists
        of sentences, empty if all is well); with `deep` also ``n_patterns_checked``, ``n_patterns_without_hash`` (rows that
        another program inserted), ``n_runs_checked`` and ``n_models_checked``.

    Raises
    ------
    RegistryCorrupt
        If the file cannot be read at all, or is another program's.
    """
    database = _existing(url, busy_timeout_s)
    with database.read() as connection:
        revision = current_revision(database, connection)
        report: dict[str, Any] = {
            "path": database.name,
            "schema_version": revision,
            "latest_version": latest_revision(),
            **database.describe(connection),
            "warnings": database.known_bugs(),
            "damages": [],
        }
    damages: list[str] = report["damages"]
    damages += database.damages()
    try:
        with database.read() as connection:
            damages += database.dangling(connection)
            if revision != latest_revision():
                report["warnings"].append(f"the schema is not the latest: 'qml db migrate --db {url}' upgrades it")
            elif deep:
                _examine_rows(connection, database, report)
    except RegistryCorrupt as error:
        damages.append(f"the rows could not all be checked: {error}")
    return report


def _examine_rows(connection: sa.Connection, database: Database, report: dict[str, Any]) -> None:
    """Add what the rows say about themselves."""
    damages: list[str] = report["damages"]
    orders: dict[str, list[str] | None] = {}
    counts = dict.fromkeys(("n_patterns_checked", "n_patterns_without_hash", "n_runs_checked", "n_models_checked"), 0)

    def fault_of_pattern(row: Mapping[str, Any]) -> str | None:
        feature_set = row["feature_set"]
        if feature_set not in orders:
            versions = feature_sets.versions_of(connection, feature_set)
            orders[feature_set] = None if versions is None else list(versions)
        return pattern_fault(row, orders[feature_set])

    try:
        for row, finding in _examined(connection, ml_pattern_registry, fault_of_pattern):
            _add(damages, finding)
            counts["n_patterns_checked"] += 1
            counts["n_patterns_without_hash"] += row["row_sha256"] is None
        for name, fault in ROW_FAULTS.items():
            for _, finding in _examined(connection, metadata.tables[name], fault):
                _add(damages, finding)
                counts["n_runs_checked"] += name == "experiments"
        for row, finding in _examined(connection, ml_model_versions, lambda row: model_fault(row, database.folder)):
            _add(damages if row["active"] else report["warnings"], finding)
            counts["n_models_checked"] += 1
        if database.path is not None:  # a cache, made anew when it is used
            report["warnings"] += vector_file_faults(connection, database.path)
    except RegistryCorrupt as error:
        damages.append(f"{error}; the rows after it were not checked")
    finally:
        report.update(counts)


def _examined(
    connection: sa.Connection, table: sa.Table, fault: Callable[[Mapping[str, Any]], str | None]
) -> Iterator[tuple[dict[str, Any], str | None]]:
    """Every row, a few at a time, and what is wrong with it; RegistryCorrupt where a row cannot even be read."""
    query = sa.select(table).order_by(*table.primary_key).execution_options(yield_per=rows_at_once(table))
    with connection.execute(query) as found:
        rows = iter(found.mappings())
        while True:
            try:
                read = next(rows, None)
            except (ValueError, TypeError) as error:
                raise RegistryCorrupt(f"{_unreadable(connection, table)}: {error}") from error
            if read is None:
                return
            row = dict(read)
            try:
                finding = fault(row)
            except (ValueError, TypeError, AttributeError) as error:
                key = ", ".join(str(row[column.name]) for column in table.primary_key)
                finding = f"a value is not of its column's kind in row {key} of {table.name}: {error}"
            yield row, finding


def _unreadable(connection: sa.Connection, table: sa.Table) -> str:
    """The first value that is not of its column's kind, by row and column."""
    for key in connection.execute(sa.select(*table.primary_key).order_by(*table.primary_key)).all():
        is_row = sa.and_(*(column == value for column, value in zip(table.primary_key, key, strict=True)))
        for column in table.columns:
            try:
                connection.execute(sa.select(column).where(is_row)).all()
            except (ValueError, TypeError):
                return f"a value is not of its column's kind, {column.name} in row {', '.join(map(str, key))} of {table.name}"
    return f"a value is not of its column's kind in {table.name}"


def _add(findings: list[str], finding: str | None) -> None:
    if finding is not None:
        findings.append(finding)


def _refuse_damaged(backup: SqliteDatabase) -> None:
    """Make sure that a backup is a whole registry that this code can read."""
    try:
        with backup.read() as connection:
            revision = current_revision(backup, connection)
        damages = backup.damages()
    except RegistryCorrupt as error:
        if error.__cause__ is None:  # another program's
            raise
        raise RegistryCorrupt(
            f"the backup {backup.name} is damaged or not an SQLite database: {error.__cause__}. Nothing was changed; name another "
            "backup."
        ) from error
    if revision is None:
        raise RegistryCorrupt(f"the backup {backup.name} is empty: it holds no registry. Name another file.")
    if damages:
        raise RegistryCorrupt(
            f"the backup {backup.name} is damaged: {damages[0]}. Nothing was changed; name another backup."
        )


def _models_beside(copy: Path) -> Path:
    """Where the files of the models of a copy lie."""
    return copy.with_name(f"{copy.name}.{MODELS}")


def _carry_models(copy: SqliteDatabase, source: Path, target: Path) -> None:
    """Copy the files of the models that a copy tells of, where they do not lie there already."""
    if source != target:
        with copy.read() as connection:
            carry_files(connection, lambda: source, lambda: target)


def _wait_for_writers(database: SqliteDatabase) -> None:
    """Make sure that nobody is writing to the file that is about to be moved; a damaged one has no writers."""
    if not _path(database).exists():
        return
    try:
        with database.write():
            pass
    except RegistryCorrupt:
        return


def _moved(target: Path, aside: Path, log: str) -> bool:
    file = target.with_name(target.name + log)
    if not file.exists():
        return False
    file.rename(aside.with_name(aside.name + log))
    return True


def _existing(url: str, busy_timeout_s: float) -> Database:
    database = open_database(url, busy_timeout_s)
    if isinstance(database, SqliteDatabase):
        _path(database)
    database.require()
    return database


def _file(url: str, busy_timeout_s: float) -> SqliteDatabase:
    """A registry that is a file; a server's is copied by the server's own tools."""
    database = open_database(url, busy_timeout_s)
    if not isinstance(database, SqliteDatabase):
        raise RegistryError(
            f"{database.name} is on a server, which has no file to copy. Use pg_dump and pg_restore there, or "
            f"'qml db export FOLDER --db URL' and 'qml db import'."
        )
    _path(database)
    return database


def _database(path: Path, busy_timeout_s: float) -> SqliteDatabase:
    """A database by its path: a URL gives some signs a meaning that they do not have in a name."""
    url = sa.URL.create("sqlite", database=str(path))
    return SqliteDatabase(url.render_as_string(), url, busy_timeout_s)


def _path(database: SqliteDatabase) -> Path:
    if database.path is None:
        raise RegistryError(f"{database.url!r} is a database in memory: it has no file. Use sqlite:///path.db.")
    return database.path


def _stamp() -> str:
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
