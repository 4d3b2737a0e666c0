"""A registry in an SQLite file or in memory. Statements that only SQLite understands are written here."""

from __future__ import annotations

import os
import re
import sqlite3
import time
import warnings
import weakref
from contextlib import closing
from pathlib import Path
from typing import ClassVar

import sqlalchemy as sa
from sqlalchemy.engine import URL

from qml_plugin.errors import DataError, QmlError, RegistryBusy, RegistryCorrupt, RegistryError
from qml_plugin.registry.connection.database import Database

# "QMLR" in ASCII: marks a file as ours in its header.
APPLICATION_ID = 0x514D4C52
_RETRY_S = 0.01
# A batch that outgrows the cache is written to the log in part, read again and written again.
_CACHE_KIB = 65_536
# A rare race of a commit with a checkpoint damages the file; https://sqlite.org/wal.html tells of it.
_WAL_RESET_BUG = ((3, 7, 0), (3, 51, 2))


class SqliteDatabase(Database):
    """A registry in an SQLite file, or in memory.

    Writers take the lock before they read (``BEGIN IMMEDIATE``); otherwise a reader that turns into a writer fails at
    once when another was faster, whatever the timeout. A connection that is kept open spares the log from being folded
    into the file after every transaction.
    """

    _READ: ClassVar = {"qml_begin": "BEGIN", "qml_foreign_keys": True}
    _WRITE: ClassVar = {"qml_begin": "BEGIN IMMEDIATE", "qml_foreign_keys": True}
    # SQLite rebuilds a table by dropping it, which would break or erase what refers to it.
    _ALTER: ClassVar = {"qml_begin": "BEGIN IMMEDIATE", "qml_foreign_keys": False}

    def __init__(self, url: str, parsed: URL, busy_timeout_s: float) -> None:
        self._path = _path_of(url, parsed)
        super().__init__(url, busy_timeout_s)

    def _reset(self) -> None:
        super()._reset()
        self._pid = os.getpid()
        self._has_warned = False

    def __getstate__(self) -> dict[str, object]:
        if self.path is None:
            raise RegistryError(
                f"the registry {self.url!r} lives in the memory of one process and cannot be pickled. "
                "Use a file: sqlite:///path.db."
            )
        return super().__getstate__() | {"_path": self._path}

    @property
    def path(self) -> Path | None:
        return self._path

    @property
    def name(self) -> str:
        return str(self.path) if self.path else self.url

    @property
    def folder(self) -> Path:
        if self.path is None:
            raise RegistryError(f"the registry {self.url!r} lives in memory: no files belong to it. Use a file.")
        return self.path.parent

    def dangling(self, connection: sa.Connection) -> list[str]:
        """Rows that refer to a row that does not exist, in words."""
        found = connection.exec_driver_sql("PRAGMA foreign_key_check")
        return [f"row {row} of {table}, which refers to {parent}" for table, row, parent, _ in found]

    def damages(self) -> list[str]:
        """What the engine's own check of the whole file finds, in its words."""
        found: list[str] = []
        with self._mapped(), closing(self._connect()) as raw:
            try:
                for (line,) in raw.execute("PRAGMA integrity_check"):
                    found.append(line)
            except sqlite3.DatabaseError as error:
                if _primary_code(error) != sqlite3.SQLITE_CORRUPT:
                    raise
                found.append(f"the check of the file broke off: {error}")
        return [line for line in found if line != "ok"]

    def create(self) -> None:
        """Create the folders above the file and the empty file, where they do not exist yet.

        Raises
        ------
        RegistryError
            If the folder or the file cannot be created.
        """
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not self.path.exists():
                self.path.touch()
        except OSError as error:
            raise self._cannot_open(error) from error

    def require(self) -> None:
        """Refuse to go on where there is no file.

        Raises
        ------
        RegistryError
            If the file does not exist.
        """
        if self.path is not None and not self.path.exists():
            raise RegistryError(
                f"there is no database at {self.name}. A run with registry={self.url!r} makes one, and so does "
                f"'qml db migrate --db {self.url}'; or name another with --db."
            )

    @property
    def is_writable(self) -> bool:
        """Whether files can be made beside the database, as every writer and most readers need to."""
        return self.path is None or os.access(self.path.parent, os.W_OK)

    def identify(self, connection: sa.Connection) -> list[str]:
        """Names of the tables, after making sure that the file is empty or ours.

        Raises
        ------
        RegistryCorrupt
            If another program made the file.
        """
        tables = sa.inspect(connection).get_table_names()
        application = connection.exec_driver_sql("PRAGMA application_id").scalar_one()
        if application != APPLICATION_ID and (tables or application):
            raise RegistryCorrupt(
                f"{self.name} is an SQLite file of another program (application_id {application}, tables: "
                f"{', '.join(sorted(tables)[:10]) or 'none'}); it was not touched. "
                f"A registry carries application_id {APPLICATION_ID}. Choose another path for the registry."
            )
        return tables

    def stamp(self, connection: sa.Connection) -> None:
        """Mark the file as ours, inside the transaction that creates the tables."""
        connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")

    def prepare(self) -> None:
        """Let readers and a writer work side by side; stays in force for the file.

        SQLite refuses the switch at once, without waiting, while another process is using the file, hence the loop.
        """
        if self.path is None or not self.is_writable:
            return
        deadline = time.monotonic() + self.busy_timeout_s
        with self._mapped(), closing(self._connect()) as raw:
            while True:
                try:
                    raw.execute("PRAGMA journal_mode = WAL")
                    return
                except sqlite3.OperationalError as error:
                    if _primary_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                        raise
                    time.sleep(_RETRY_S)

    def keep_copy(self, connection: sa.Connection, revision: str) -> str:
        if self.path is None:
            return "nothing"  # nobody else can have filled it
        copy = self.path.with_name(f"{self.path.name}.bak-{revision}")
        self.backup(copy)
        return str(copy)

    def backup(self, target: Path) -> None:
        """Copy what is committed to a file of its own, replacing an older one only once the new one is complete.

        A plain copy of the file would lose what still stands in the log beside it.
        """
        if self.path is None:
            raise RegistryError(f"the registry {self.url!r} lives in memory: there is no file to back up.")
        partial = target.with_name(target.name + ".partial")
        try:
            partial.unlink(missing_ok=True)
            with self._mapped(), closing(self._connect()) as raw:
                self._copy(raw, partial)
            partial.replace(target)
        except OSError as error:
            raise RegistryError(
                f"the backup {target} could not be written: {error}. The database was left as it was."
            ) from error
        finally:
            for file in (partial, partial.with_name(partial.name + "-journal")):
                file.unlink(missing_ok=True)

    @staticmethod
    def _copy(raw: sqlite3.Connection, partial: Path) -> None:
        """Write the copy, whole in one file and on the disk; failures of its own file come out as OSError."""
        try:
            with closing(sqlite3.connect(partial, isolation_level=None)) as copy:
                raw.backup(copy)
                copy.execute("PRAGMA journal_mode = DELETE")
        except sqlite3.Error as error:
            if _primary_code(error) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN):
                raise OSError(str(error)) from error
            raise
        with partial.open("rb") as file:
            os.fsync(file.fileno())

    def describe(self, connection: sa.Connection) -> dict[str, object]:
        """Version and journal mode of the engine underneath."""
        return {
            "sqlite_version": sqlite3.sqlite_version,
            "journal_mode": connection.exec_driver_sql("PRAGMA journal_mode").scalar_one(),
            "size_bytes": self.path.stat().st_size if self.path else None,
        }

    def known_bugs(self) -> list[str]:
        """Bugs of the engine underneath that concern a registry."""
        first, last = _WAL_RESET_BUG
        if not first <= sqlite3.sqlite_version_info <= last:
            return []
        return [
            f"SQLite {sqlite3.sqlite_version} lies in the range of the WAL-reset bug "
            f"({'.'.join(map(str, first))} to {'.'.join(map(str, last))}): a commit that meets a checkpoint of another "
            "process can, very rarely, damage the file. Keep backups, or use a Python with SQLite 3.51.3 or later."
        ]

    def _opened(self) -> sa.Engine:
        if self.path is None and os.getpid() != self._pid:
            raise RegistryError(
                f"the registry {self.url!r} lives in the memory of process {self._pid}; process {os.getpid()}, forked "
                "from it, would write to a copy that nobody reads. Use a file: sqlite:///path.db."
            )
        return super()._opened()

    @property
    def _is_one_connection(self) -> bool:
        return self.path is None

    def _engine_of(self, pool: type[sa.Pool]) -> sa.Engine:
        # The finalizer holds the engine: an engine that held this object would keep it until the process ends.
        connect = weakref.WeakMethod(self._connect)

        def creator() -> sqlite3.Connection:
            own = connect()
            assert own is not None  # whoever connects is using it
            return own()

        engine = sa.create_engine("sqlite://", creator=creator, poolclass=pool)
        sa.event.listen(engine, "begin", _begin)
        return engine

    def _connect(self) -> sqlite3.Connection:
        """A raw connection; ``mode=rw`` keeps a look at a missing file from creating it."""
        raw = self._opened_as("mode=rw")
        try:
            if self.is_writable or _answers(raw):
                raw.execute("PRAGMA synchronous = NORMAL")
                raw.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
                return raw
        except sqlite3.Error:
            raw.close()
            raise
        raw.close()
        self._warn_that_it_is_frozen()
        return self._opened_as("mode=ro&immutable=1")

    def _opened_as(self, options: str) -> sqlite3.Connection:
        return sqlite3.connect(
            ":memory:" if self.path is None else f"{self.path.as_uri()}?{options}",
            uri=self.path is not None,
            timeout=self.busy_timeout_s,
            isolation_level=None,
            check_same_thread=False,  # one in memory is shared by turns; one kept open is closed by whoever forks
        )

    def _warn_that_it_is_frozen(self) -> None:
        """Say once that the file is read as it lies on the disk."""
        if self._has_warned or self.path is None:
            return
        self._has_warned = True
        log = self.path.with_name(self.path.name + "-wal")
        unseen = log.stat().st_size if log.exists() else 0
        warnings.warn(
            f"{self.name} lies in a folder that cannot be written, so it is read as it is on the disk: nobody may write "
            "to it meanwhile" + (f", and {unseen} bytes in {log.name} beside it are not seen" if unseen else "") + ".",
            RuntimeWarning,
            stacklevel=2,
        )

    def _take_lock(self, connection: sa.Connection, is_writer: bool) -> None:
        """BEGIN IMMEDIATE has taken it."""

    def _is_open(self, connection: sa.Connection) -> bool:
        return _raw(connection).in_transaction

    @property
    def _driver_error(self) -> type[Exception]:
        return sqlite3.Error

    def _translated(self, error: BaseException | None) -> QmlError:
        """The error of ours that says what to do about a driver's error."""
        code = _primary_code(error)
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return RegistryBusy(
                f"{self.name} was locked by another process for longer than busy_timeout_s={self.busy_timeout_s:g}. "
                "Nothing was written; try again, or raise the timeout."
            )
        if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT) or "Could not decode to UTF-8" in str(error):
            return RegistryCorrupt(
                f"{self.name} is damaged or not an SQLite database: {error}. Restore a copy (an upgrade leaves one "
                f"beside it, named {Path(self.name).name}.bak-<revision>), or move the file away to begin a new one."
            )
        if code == sqlite3.SQLITE_CANTOPEN:
            return self._cannot_open(error)
        if code == sqlite3.SQLITE_READONLY:
            return RegistryError(
                f"{self.name} cannot be written: {error}. Nothing was changed; mend the permissions of the file and "
                "its folder, or work on a copy elsewhere ('qml db backup --out')."
            )
        if code == sqlite3.SQLITE_CONSTRAINT:
            return DataError(f"{self.name} refused a row: {error}. Nothing was stored; mend the values.")
        return RegistryError(
            f"{self.name} could not be read or written: {error}. Nothing was changed; see to disk space, permissions "
            "and the file, then try again."
        )

    def _cannot_open(self, error: BaseException | None) -> RegistryError:
        return RegistryError(
            f"the database of {self.url!r} cannot be opened at {self.name}: {error}. The path must name a file in a "
            "folder where files can be created and written; mend the path or the permissions."
        )


def _path_of(url: str, parsed: URL) -> Path | None:
    """Absolute path of a file URL, None for a database in memory."""
    if parsed.host or parsed.username or parsed.port or parsed.query or (parsed.database or "").startswith("file:"):
        shown = re.sub(r"//[^/]*@", "//***@", url)
        raise RegistryError(
            f"{shown!r} says more than a path. A URL of a file is sqlite:///relative/path.db or "
            "sqlite:////absolute/path.db, without user, host or options."
        )
    if parsed.database in (None, "", ":memory:"):
        return None
    return Path(str(parsed.database)).absolute()


def _begin(connection: sa.Connection) -> None:
    """Begin the transaction that the block asked for: the driver itself begins none."""
    options = connection.get_execution_options()
    # A reader that begins to write would do so without having waited for its turn.
    connection.exec_driver_sql(f"PRAGMA query_only = {'ON' if options['qml_begin'] == 'BEGIN' else 'OFF'}")
    connection.exec_driver_sql(f"PRAGMA foreign_keys = {'ON' if options['qml_foreign_keys'] else 'OFF'}")
    connection.exec_driver_sql(options["qml_begin"])


def _raw(connection: sa.Connection) -> sqlite3.Connection:
    raw = connection.connection.driver_connection
    if not isinstance(raw, sqlite3.Connection):
        raise RegistryError(f"expected a connection of sqlite3, got {type(raw).__name__}.")
    return raw


def _primary_code(error: BaseException | None) -> int | None:
    """SQLite's result code without its extension, None for errors that do not come from SQLite."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else int(code) & 0xFF


def _answers(raw: sqlite3.Connection) -> bool:
    """Whether the file can be read where no files can be made beside it: a log that is not there cannot be made."""
    try:
        raw.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
    except sqlite3.OperationalError as error:
        if _primary_code(error) not in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
            raise
        return False
    return True
