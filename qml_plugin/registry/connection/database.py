"""What a registry asks of the database it lives in, whatever the engine."""

from __future__ import annotations

import os
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import sqlalchemy as sa
from sqlalchemy.pool import NullPool, StaticPool

from qml_plugin.errors import DataError, QmlError, RegistryCorrupt, RegistryError

_MAX_TIMEOUT_S = 86_400.0
_KEEPERS: weakref.WeakSet[Database] = weakref.WeakSet()


class Database(ABC):
    """Where a registry lives, and how to read and write it.

    A connection is opened anew for every transaction and closed after it, so nothing is carried across a fork or into
    a pickle. One writer at a time: it takes the lock before it reads, so that reading, merging and writing is one step.
    """

    # Options that a connection needs for a transaction of each kind, and for one that rebuilds tables.
    _READ: ClassVar[Mapping[str, object]]
    _WRITE: ClassVar[Mapping[str, object]]
    _ALTER: ClassVar[Mapping[str, object]]

    def __init__(self, url: str, busy_timeout_s: float) -> None:
        if not 0 <= busy_timeout_s <= _MAX_TIMEOUT_S:
            raise DataError(f"busy_timeout_s is {busy_timeout_s!r}. It must lie between 0 and 86400 seconds.")
        self.url = url
        self.busy_timeout_s = float(busy_timeout_s)
        self._reset()

    def _reset(self) -> None:
        """What belongs to one process only."""
        self._engine: sa.Engine | None = None
        self._kept: sa.Engine | None = None
        # One shared connection cannot hold two transactions; otherwise each has a connection of its own.
        self._turn = threading.RLock()

    def __getstate__(self) -> dict[str, object]:
        return {"url": self.url, "busy_timeout_s": self.busy_timeout_s}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._reset()

    @property
    @abstractmethod
    def name(self) -> str:
        """What messages call it."""

    @property
    @abstractmethod
    def folder(self) -> Path:
        """Where the files that belong to the registry lie: models, vectors."""

    @property
    def path(self) -> Path | None:
        """The file it is, None where it is none."""
        return None

    @property
    def is_writable(self) -> bool:
        """Whether it can be written, as far as that can be told without trying."""
        return True

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """One consistent view of the database; what others commit meanwhile stays unseen."""
        with self._transaction(self._READ) as connection:
            try:
                yield connection
            except (QmlError, UnicodeError):
                raise
            except (ValueError, TypeError) as error:
                raise RegistryCorrupt(
                    f"{self.name} holds a value that is not of its column's kind: {error}. DATETIME columns hold "
                    "'YYYY-MM-DD HH:MM:SS.ffffff' and JSON columns JSON; correct the row, or restore a copy."
                ) from error

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """One transaction under the write lock: committed when the block ends, undone whole when it raises."""
        with self._transaction(self._WRITE) as connection:
            yield connection
            if not self._is_open(connection):
                raise RegistryError(
                    f"the transaction on {self.name} ended before its block did, because a failure inside it was "
                    "hidden. Nothing of the block was kept; let database errors through."
                )

    @contextmanager
    def alter(self) -> Iterator[sa.Connection]:
        """A `write` in which tables may be rebuilt: references between tables are checked as a whole at its end."""
        with self._transaction(self._ALTER) as connection:
            before = set(self.dangling(connection))
            yield connection
            if broken := set(self.dangling(connection)) - before:
                raise RegistryError(
                    f"a change of the tables of {self.name} left {len(broken)} rows without the row they refer to, "
                    f"such as {min(broken)}; it was undone. Report this."
                )

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """Use one connection for all that follows.

        It is closed before a fork, for good: a child that inherits an open one believes in locks that it does not
        hold, or talks to the server with its parent's voice.
        """
        if self._is_one_connection or self._kept is not None:
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

    @contextmanager
    def _transaction(self, options: Mapping[str, object]) -> Iterator[sa.Connection]:
        """Open, begin, hand out, commit or roll back, close; errors come out as ours."""
        with self._mapped(), self._turn_taken() as engine, engine.connect() as connection:
            connection.execution_options(**options)
            with connection.begin():
                self._take_lock(connection, options is not self._READ)
                yield connection

    @contextmanager
    def _turn_taken(self) -> Iterator[sa.Engine]:
        """The engine to use, after waiting for its connection where there is one for all."""
        if not self._is_one_connection and self._kept is None:
            yield self._opened()
            return
        with self._turn:
            yield self._kept or self._opened()

    def _opened(self) -> sa.Engine:
        """The engine, made at first use."""
        if self._engine is None:
            self._engine = self._engine_of(StaticPool if self._is_one_connection else NullPool)
            weakref.finalize(self, self._engine.dispose)  # closes a database in memory with its last user
        return self._engine

    @property
    def _is_one_connection(self) -> bool:
        """Whether all transactions must share one connection."""
        return False

    @abstractmethod
    def _engine_of(self, pool: type[sa.Pool]) -> sa.Engine: ...

    @abstractmethod
    def _take_lock(self, connection: sa.Connection, is_writer: bool) -> None:
        """Wait for the turn of a transaction that has begun."""

    @abstractmethod
    def _is_open(self, connection: sa.Connection) -> bool:
        """Whether the transaction is still there to be committed."""

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        """Turn the driver's errors into ours."""
        try:
            yield
        except sa.exc.DBAPIError as error:
            raise self._translated(error.orig) from error
        except self._driver_error as error:
            raise self._translated(error) from error
        except (OverflowError, UnicodeEncodeError) as error:
            raise DataError(f"a value cannot be stored in {self.name}: {error}. Nothing was stored.") from error

    @property
    @abstractmethod
    def _driver_error(self) -> type[Exception]:
        """Base of what the driver raises."""

    @abstractmethod
    def _translated(self, error: BaseException | None) -> QmlError:
        """The error of ours that says what to do about a driver's error."""

    @abstractmethod
    def create(self) -> None:
        """Make an empty database where there is none, if this engine can."""

    @abstractmethod
    def require(self) -> None:
        """Refuse to go on where there is no database."""

    @abstractmethod
    def identify(self, connection: sa.Connection) -> list[str]:
        """Names of the tables, after making sure that the database is empty or ours."""

    @abstractmethod
    def stamp(self, connection: sa.Connection) -> None:
        """Mark the database as ours, inside the transaction that creates the tables."""

    @abstractmethod
    def prepare(self) -> None:
        """Settle what stays in force for the database and cannot be settled in a transaction."""

    @abstractmethod
    def keep_copy(self, connection: sa.Connection, revision: str) -> str:
        """Leave a copy of everything before an upgrade from `revision`; returns what it is called."""

    @abstractmethod
    def dangling(self, connection: sa.Connection) -> list[str]:
        """Rows that refer to a row that does not exist, in words."""

    @abstractmethod
    def damages(self) -> list[str]:
        """What the engine's own check finds, in its words."""

    @abstractmethod
    def describe(self, connection: sa.Connection) -> dict[str, object]:
        """Version and settings of the engine underneath, and the size of the registry in bytes."""

    @abstractmethod
    def known_bugs(self) -> list[str]:
        """Bugs of the engine underneath that concern a registry."""


def _let_all_go() -> None:
    for database in list(_KEEPERS):
        database._let_go()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(before=_let_all_go)
