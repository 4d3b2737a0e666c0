"""Connections to the registry's database: the only module that opens one.

A file is opened anew for every transaction and closed after it, so nothing is carried across a fork or into a pickle.
Writers take the lock before they read (``BEGIN IMMEDIATE``); otherwise a reader that turns into a writer fails at once
when another was faster, whatever the timeout. Statements that only SQLite understands are written here and nowhere else.
"""

from __future__ import annotations

import os
import re
import sqlite3
import threading
import time
import warnings
import weakref
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import NullPool, StaticPool

from qml_plugin.errors import DataError, QmlError, RegistryBusy, RegistryCorrupt, RegistryError

# "QMLR" in ASCII: marks a file as ours in its header.
APPLICATION_ID = 0x514D4C52
_MAX_TIMEOUT_S = 86_400.0
_RETRY_S = 0.01
# A batch that outgrows the cache is written to the log in part, read again and written again.
_CACHE_KIB = 65_536
# A rare race of a commit with a checkpoint damages the file; https://sqlite.org/wal.html tells of it.
_WAL_RESET_BUG = ((3, 7, 0), (3, 51, 2))
_URL_RULE = (
    "A registry URL is sqlite:///relative/path.db, sqlite:////absolute/path.db, or sqlite:// for one in memory, "
    "without user, host or options"
)


_KEEPERS: weakref.WeakSet[Database] = weakref.WeakSet()


class Database:
    """Where a registry lives, and how to read and write it.

    Parameters
    ----------
    url : str
        ``sqlite:///path`` for a file (a relative path is fixed against the current folder now), ``sqlite://`` or
        ``sqlite:///:memory:`` for a database in memory that lives and dies with this object.
    busy_timeout_s : float, seconds, 0..86400
        How long to wait for another process's lock.

    Raises
    ------
    RegistryError
        If `url` is not understood.
    DataError
        If `busy_timeout_s` is out of range.
    """

    def __init__(self, url: str, busy_timeout_s: float = 20.0) -> None:
        if not 0 <= busy_timeout_s <= _MAX_TIMEOUT_S:
            raise DataError(f"busy_timeout_s is {busy_timeout_s!r}. It must lie between 0 and 86400 seconds.")
        self.url = url
        self.busy_timeout_s = float(busy_timeout_s)
        self.path = _path_of(url)
        self._engine: sa.Engine | None = None
        self._pid = os.getpid()
        self._has_warned = False
        self._kept: sa.Engine | None = None
        # One shared connection cannot hold two transactions; files have a connection for each.
        self._turn = threading.RLock()

    def __getstate__(self) -> dict[str, object]:
        if self.path is None:
            raise RegistryError(
                f"the registry {self.url!r} lives in the memory of one process and cannot be pickled. "
                "Use a file: sqlite:///path.db."
            )
        return {"url": self.url, "busy_timeout_s": self.busy_timeout_s, "path": self.path}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._engine = None
        self._pid = os.getpid()
        self._has_warned = False
        self._kept = None
        self._turn = threading.RLock()

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """One consistent view of the database; what others commit meanwhile stays unseen."""
        with self._transaction("BEGIN") as connection:
            try:
                yield connection
            except QmlError:
                raise
            except ValueError as error:
                raise RegistryCorrupt(
                    f"{self.name} holds a value that is not of its column's kind: {error}. DATETIME columns hold "
                    "'YYYY-MM-DD HH:MM:SS.ffffff' and JSON columns JSON; correct the row, or restore a copy."
                ) from error

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """One transaction under the write lock: committed when the block ends, undone whole when it raises."""
        with self._transaction("BEGIN IMMEDIATE") as connection:
            yield connection
            if not _raw(connection).in_transaction:
                raise RegistryError(
                    f"the transaction on {self.name} ended before its block did, because a failure inside it was "
                    "hidden. Nothing of the block was kept; let database errors through."
                )

    @contextmanager
    def alter(self) -> Iterator[sa.Connection]:
        """A `write` in which tables may be rebuilt: references between tables are checked as a whole at its end.

        SQLite rebuilds a table by dropping it, which would break or erase what refers to it.
        """
        with self._transaction("BEGIN IMMEDIATE", has_foreign_keys=False) as connection:
            before = set(self.dangling(connection))
            yield connection
            if broken := set(self.dangling(connection)) - before:
                raise RegistryError(
                    f"a change of the tables of {self.name} left {len(broken)} rows without the row they refer to, "
                    f"such as {min(broken)}; it was undone. Report this."
                )

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

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """Use one connection for all that follows, so that the log is not folded into the file after every transaction.

        It is closed before a fork, for good: a child that inherits an open one believes in locks that it does not
        hold.
        """
        if self.path is None or self._kept is not None:
            yield
            return
        with self._mapped():
            self._kept = self._engine_of(StaticPool)
        _KEEPERS.add(self)
        try:
            yield
        finally:
            self._let_go()

    def _let_go(self) -> None:
        with self._turn:
            kept, self._kept = self._kept, None
            _KEEPERS.discard(self)
            if kept is not None:
                kept.dispose()

    def create_file(self) -> None:
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

    def require_file(self) -> None:
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

    def enable_wal(self) -> None:
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

    @property
    def name(self) -> str:
        """What messages call it: the path, or the URL of one in memory."""
        return str(self.path) if self.path else self.url

    @contextmanager
    def _transaction(self, begin: str, *, has_foreign_keys: bool = True) -> Iterator[sa.Connection]:
        """Open, begin, hand out, commit or roll back, close; errors come out as ours."""
        with self._mapped(), self._turn_taken() as engine, engine.connect() as connection:
            connection.execution_options(qml_begin=begin, qml_foreign_keys=has_foreign_keys)
            with connection.begin():
                yield connection

    @contextmanager
    def _turn_taken(self) -> Iterator[sa.Engine]:
        """The engine to use, after waiting for its connection where there is one for all."""
        if self.path is not None and self._kept is None:
            yield self._opened()
            return
        with self._turn:
            yield self._kept or self._opened()

    def _opened(self) -> sa.Engine:
        """The engine, made at first use."""
        if self.path is None and os.getpid() != self._pid:
            raise RegistryError(
                f"the registry {self.url!r} lives in the memory of process {self._pid}; process {os.getpid()}, forked "
                "from it, would write to a copy that nobody reads. Use a file: sqlite:///path.db."
            )
        if self._engine is None:
            self._engine = self._engine_of(StaticPool if self.path is None else NullPool)
            weakref.finalize(self, self._engine.dispose)  # closes a database in memory with its last user
        return self._engine

    def _engine_of(self, pool: type[sa.Pool]) -> sa.Engine:
        engine = sa.create_engine("sqlite://", creator=self._connect, poolclass=pool)
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

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        """Turn the driver's errors into ours."""
        try:
            yield
        except sa.exc.DBAPIError as error:
            raise self._translated(error.orig) from error
        except sqlite3.Error as error:
            raise self._translated(error) from error
        except (OverflowError, UnicodeEncodeError) as error:
            raise DataError(f"a value cannot be stored in {self.name}: {error}. Nothing was stored.") from error

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


def _let_all_go() -> None:
    for database in list(_KEEPERS):
        database._let_go()


os.register_at_fork(before=_let_all_go)


def _path_of(url: str) -> Path | None:
    """Absolute path of a file URL, None for a database in memory."""
    shown = re.sub(r"//[^/]*@", "//***@", str(url))
    try:
        parsed: URL = make_url(url)
    except (sa.exc.ArgumentError, ValueError, TypeError) as error:
        raise RegistryError(f"{shown!r} is not a database URL. {_URL_RULE}.") from error
    if parsed.drivername not in ("sqlite", "sqlite+pysqlite"):
        raise RegistryError(f"{shown!r} names the database {parsed.drivername!r}. {_URL_RULE}.")
    if parsed.host or parsed.username or parsed.port or parsed.query or (parsed.database or "").startswith("file:"):
        raise RegistryError(f"{shown!r} says more than a path. {_URL_RULE}.")
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
