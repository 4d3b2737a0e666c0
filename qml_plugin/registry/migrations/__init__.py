"""Bringing a registry's schema up to date, and telling where it stands.

An upgrade is one transaction under the write lock: tables and recorded revision change together or not at all.
"""

from __future__ import annotations

import hashlib
import shlex
from pathlib import Path

import sqlalchemy as sa

from qml_plugin.errors import RegistryCorrupt, RegistryError, SchemaTooNew, SchemaTooOld
from qml_plugin.registry.connection import Database, SqliteDatabase, open_database
from qml_plugin.registry.schema import REVISION, VERSION_TABLE, metadata, version_table

__all__ = ["info", "migrate"]

_SCRIPTS = Path(__file__).parent
# SHA-256 of each revision's file: what was released is never edited, a change is a new revision.
_SHA256 = {
    "0001": "e1aa7d30e3cca45cb4df6bbc211c21290ccd3b3991a22260ee1e5af9fb22b6cf",
    "0002": "964010e85612905cbbf9b28f9d4a9c5381c04bf32ca384cf641c979f05ef0ba0",
    "0003": "140fef54989090f0aabcfb7188143a47833d3e9e87aa7db66d5d957a3d26b479",
    "0004": "d251219812c91c3dfeb00ff545ca30c7077fb17cb0d5dc88c4f33a50de3244fe",
}


def migrate(url: str, *, busy_timeout_s: float = 20.0) -> list[str]:
    """Create the registry, or upgrade it to the latest schema.

    Folders above a new file are created. Before an existing registry is changed, a copy is left beside it, named for
    the revision it holds: the file ``<file>.bak-<revision>``, or on PostgreSQL the schema ``<schema>_bak_<revision>``.

    Parameters
    ----------
    url : str
        ``sqlite:///path`` of a file, or a PostgreSQL URL.
    busy_timeout_s : float, seconds
        How long to wait for another process.

    Returns
    -------
    list of str
        Revisions applied, oldest first; empty if there was nothing to do.

    Raises
    ------
    SchemaTooNew
        If a newer version of qml_plugin wrote the file; it is not touched.
    RegistryCorrupt
        If the file is damaged or another program's.
    RegistryBusy
        If the lock could not be had in time.
    RegistryError
        If the URL or the file cannot be opened, or an upgrade step fails; the file then stays as it was.
    """
    database = _shared_database(url, busy_timeout_s)
    database.create()
    with database.read() as connection:
        _pending(database, _revision(database, connection))
    return _upgrade(database)


def info(url: str, *, busy_timeout_s: float = 20.0) -> dict[str, object]:
    """Where a registry stands; changes nothing, and creates nothing.

    Parameters
    ----------
    url : str
        URL of an existing registry.
    busy_timeout_s : float, seconds
        How long to wait for another process.

    Returns
    -------
    dict
        ``path`` (URL without its password on PostgreSQL), ``schema_version`` (None where it is empty), ``latest_version``,
        ``rows`` (per table), ``size_bytes``, and ``sqlite_version`` and ``journal_mode``, or ``postgresql_version``.

    Raises
    ------
    RegistryError
        If there is no such file, or it cannot be read; see its subclasses.
    """
    database = _shared_database(url, busy_timeout_s)
    if database.path is not None and not database.path.is_file():
        raise RegistryError(
            f"there is no registry at {database.path}. A run creates one, and so does: {_command(database)}"
        )
    with database.read() as connection:
        revision = _revision(database, connection)
        present = set(sa.inspect(connection).get_table_names())
        rows = {
            table.name: connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
            for table in metadata.sorted_tables
            if table.name in present
        }
        return {
            "path": database.name,
            "schema_version": revision,
            "latest_version": _revisions()[-1],
            "rows": rows,
            **database.describe(connection),
        }


def ensure_current(database: Database, *, create: bool = True) -> None:
    """Create the tables of a new database if `create`; refuse one whose schema is older or newer than this code."""
    if create:
        database.create()
    else:
        database.require()
    with database.read() as connection:
        revision = _revision(database, connection)
    if revision is None and not create:
        raise RegistryError(
            f"{database.name} is empty: it is no registry yet, and was left as it is. Make it one with: "
            f"{_command(database)}"
        )
    if revision is None:
        _upgrade(database, only_new=True)
    else:
        _refuse_old(database, revision, _pending(database, revision))
        if create:
            database.prepare()


def current_revision(database: Database, connection: sa.Connection) -> str | None:
    """The revision of a database, None where it is empty; refuses a newer one and other programs' files."""
    revision = _revision(database, connection)
    _pending(database, revision)
    return revision


def latest_revision() -> str:
    """The newest revision this code knows."""
    return _revisions()[-1]


def _upgrade(database: Database, *, only_new: bool = False) -> list[str]:
    """Apply what is missing under the lock, judged again there: another process may have been faster."""
    _refuse_edited_scripts()
    database.prepare()
    with database.alter() as connection:
        before = _revision(database, connection)
        pending = _pending(database, before)
        if before is not None and only_new:
            _refuse_old(database, before, pending)
        if not pending:
            return []
        if before is None and pending[-1] == REVISION:
            metadata.create_all(connection)
            version_table.create(connection)
            connection.execute(sa.insert(version_table).values(version_num=REVISION))
        else:
            if before is not None:
                database.keep_copy(connection, before)
            _apply(database, connection)
        database.stamp(connection)
        if (after := _revision(database, connection)) != pending[-1]:
            raise RegistryError(
                f"the upgrade of {database.name} ended at {after}, not at {pending[-1]}; it was undone."
            )
    return pending


def _apply(database: Database, connection: sa.Connection) -> None:
    """Run Alembic on the open transaction."""
    # Here, because it takes long to load and is seldom needed.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except sa.exc.DBAPIError:
        raise
    except Exception as error:
        raise RegistryError(
            f"the upgrade of {database.name} failed: {error!r}. It was undone and the database is as "
            "it was; report this, and go on with the version of qml_plugin that wrote it."
        ) from error


def _refuse_edited_scripts() -> None:
    """Make sure that the files of the released revisions are those that were released."""
    for file in sorted((_SCRIPTS / "versions").glob("0*.py")):
        released = _SHA256.get(file.name[:4])
        if released is not None and hashlib.sha256(file.read_text().encode()).hexdigest() != released:
            raise RegistryError(
                f"{file} is not the file that was released: its SHA-256 is not {released[:12]}…. Nothing was changed; "
                "install qml_plugin anew."
            )


def _revisions() -> list[str]:
    """Every revision this code knows, oldest first."""
    return sorted(file.name[:4] for file in (_SCRIPTS / "versions").glob("0*.py"))


def _revision(database: Database, connection: sa.Connection) -> str | None:
    """Revision recorded in the database, None where there are no tables yet."""
    tables = database.identify(connection)
    if not tables:
        return None
    found = connection.scalars(sa.select(version_table.c.version_num)).all() if VERSION_TABLE in tables else []
    if len(found) != 1:
        raise RegistryCorrupt(
            f"{database.name} records {len(found)} schema versions in {VERSION_TABLE}, and must record "
            "one. Restore a copy, or move the file away to begin a new one."
        )
    return str(found[0])


def _pending(database: Database, revision: str | None) -> list[str]:
    """Revisions still to be applied; a revision that this code does not know is a newer one."""
    known = _revisions()
    if revision is None:
        return known
    if revision not in known:
        raise SchemaTooNew(
            f"{database.name} has schema {revision}, this version of qml_plugin reads up to "
            f"{known[-1]}; the file was not touched. Update qml_plugin, or use another database."
        )
    return known[known.index(revision) + 1 :]


def _refuse_old(database: Database, revision: str, pending: list[str]) -> None:
    if pending:
        raise SchemaTooOld(
            f"{database.name} has schema {revision}, this version of qml_plugin needs {pending[-1]}. "
            f"Upgrade it (a copy is kept) with: {_command(database)}"
        )


def _shared_database(url: str, busy_timeout_s: float) -> Database:
    database = open_database(url, busy_timeout_s)
    if isinstance(database, SqliteDatabase) and database.path is None:
        raise RegistryError(f"{url!r} is a database in memory, which no other call can reach. Use sqlite:///path.db.")
    return database


def _command(database: Database) -> str:
    """What upgrades or makes a registry, for a shell; a password is left out."""
    url = database.url if isinstance(database, SqliteDatabase) else database.name
    return f"qml db migrate --db {shlex.quote(url)}"
