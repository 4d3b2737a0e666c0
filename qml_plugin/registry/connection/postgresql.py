"""A registry in a schema of a PostgreSQL database. Statements that only PostgreSQL understands are written here."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.engine import URL

from qml_plugin.errors import DataError, MissingExtra, QmlError, RegistryBusy, RegistryCorrupt, RegistryError
from qml_plugin.registry.connection.database import Database
from qml_plugin.registry.schema import VERSION_TABLE

# Names the lock that every writer of a registry takes; "QMLR" in ASCII.
_LOCK = 0x514D4C52
_MARK = "qml_plugin registry"
_CONNECT_TIMEOUT_S = 10


class PostgresqlDatabase(Database):
    """A registry on a PostgreSQL server, in the first schema of the connection's search path.

    One writer at a time, by an advisory lock: the rows that a registry merges are then those that it has read. Readers
    see one moment (REPEATABLE READ) and wait for nobody.
    """

    _READ: ClassVar = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    _WRITE: ClassVar = {"isolation_level": "READ COMMITTED", "postgresql_readonly": False}
    _ALTER: ClassVar = {"isolation_level": "READ COMMITTED", "postgresql_readonly": False}

    def __init__(self, url: str, parsed: URL, busy_timeout_s: float) -> None:
        try:
            import psycopg  # noqa: F401
        except ModuleNotFoundError as error:
            raise MissingExtra.for_module("psycopg", "postgres") from error
        self._parsed = parsed.set(drivername="postgresql+psycopg")
        super().__init__(url, busy_timeout_s)

    def __getstate__(self) -> dict[str, object]:
        return super().__getstate__() | {"_parsed": self._parsed}

    @property
    def name(self) -> str:
        return self._parsed.render_as_string(hide_password=True)

    @property
    def folder(self) -> Path:
        """A server has no folder that its clients see: ``results`` in the current one."""
        return Path("results").absolute()

    def create(self) -> None:
        """A database is made by its server's owner: ``createdb``."""

    def require(self) -> None:
        """Opening tells whether it is there."""

    def identify(self, connection: sa.Connection) -> list[str]:
        if connection.scalar(sa.text("SELECT current_schema()")) is None:
            raise RegistryError(
                f"the schema that {self.name} names does not exist. Make it first: CREATE SCHEMA, as its owner wants it."
            )
        tables = sa.inspect(connection).get_table_names()
        mark = connection.scalar(sa.text(f"SELECT obj_description(to_regclass('{VERSION_TABLE}'), 'pg_class')"))
        if tables and mark != _MARK:
            raise RegistryCorrupt(
                f"{self.name} holds tables of another program ({', '.join(sorted(tables)[:10])}); it was not touched. A "
                f"registry's {VERSION_TABLE} carries the comment {_MARK!r}. Give the registry a schema of its own: "
                "CREATE SCHEMA qml, and ?options=-csearch_path%3Dqml at the end of the URL."
            )
        return tables

    def stamp(self, connection: sa.Connection) -> None:
        connection.exec_driver_sql(f"COMMENT ON TABLE {VERSION_TABLE} IS '{_MARK}'")

    def prepare(self) -> None:
        """Nothing: readers and writers work side by side from the start."""

    def keep_copy(self, connection: sa.Connection, revision: str) -> str:
        """Copy every table into a schema of its own, on the server and in the transaction of the upgrade."""
        schema = connection.scalar(sa.text("SELECT current_schema()"))
        copy = f"{schema}_bak_{revision}"
        quote = connection.dialect.identifier_preparer.quote
        connection.exec_driver_sql(f"DROP SCHEMA IF EXISTS {quote(copy)} CASCADE")
        connection.exec_driver_sql(f"CREATE SCHEMA {quote(copy)}")
        for table in sa.inspect(connection).get_table_names():
            connection.exec_driver_sql(f"CREATE TABLE {quote(copy)}.{quote(table)} AS TABLE {quote(table)}")
        return f"schema {copy}"

    def dangling(self, connection: sa.Connection) -> list[str]:
        """None: the server lets no row dangle."""
        return []

    def damages(self) -> list[str]:
        """None that a client can see: the server checks its pages itself (``pg_amcheck``, data checksums)."""
        return []

    def describe(self, connection: sa.Connection) -> dict[str, object]:
        size = sa.text(
            "SELECT sum(pg_total_relation_size(oid)) FROM pg_class"
            " WHERE relkind = 'r' AND relnamespace = to_regnamespace(quote_ident(current_schema()))"
        )
        return {
            "postgresql_version": connection.exec_driver_sql("SHOW server_version").scalar_one(),
            "size_bytes": int(connection.scalar(size) or 0),
        }

    def known_bugs(self) -> list[str]:
        return []

    def _engine_of(self, pool: type[sa.Pool]) -> sa.Engine:
        timeout = {"connect_timeout": _CONNECT_TIMEOUT_S} if "connect_timeout" not in self._parsed.query else {}
        return sa.create_engine(self._parsed, poolclass=pool, connect_args=timeout)

    def _take_lock(self, connection: sa.Connection, is_writer: bool) -> None:
        # 0 would mean for ever.
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {max(1, round(1_000 * self.busy_timeout_s))}")
        if is_writer:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK}, hashtext(current_schema()))")

    def _is_open(self, connection: sa.Connection) -> bool:
        from psycopg.pq import TransactionStatus

        raw: Any = connection.connection.driver_connection
        return bool(raw.info.transaction_status == TransactionStatus.INTRANS)

    @property
    def _driver_error(self) -> type[Exception]:
        import psycopg

        return psycopg.Error

    def _translated(self, error: BaseException | None) -> QmlError:
        import psycopg

        state = getattr(error, "sqlstate", None) or ""
        said = " ".join(str(error).split())
        if state in ("55P03", "40001", "40P01"):
            return RegistryBusy(
                f"{self.name} was locked by another process for longer than busy_timeout_s={self.busy_timeout_s:g}. "
                f"Nothing was written; try again, or raise the timeout. The server says: {said}"
            )
        if state.startswith("23"):
            return DataError(f"{self.name} refused a row: {said}. Nothing was stored; mend the values.")
        if state.startswith("22") or (not state and isinstance(error, psycopg.DataError)):
            return DataError(f"a value cannot be stored in {self.name}: {said}. Nothing was stored.")
        if state.startswith("XX"):
            return RegistryCorrupt(f"{self.name} is damaged: {said}. Restore a dump (pg_restore), or an export.")
        if not state and isinstance(error, psycopg.OperationalError):
            return RegistryError(
                f"{self.name} cannot be reached: {said}. See that the server runs, and mend host, user, password or "
                "the name of the database in the URL."
            )
        return RegistryError(
            f"{self.name} could not be read or written: {said}. Nothing was changed; see to the server's disk and the "
            "rights of the user, then try again."
        )
