"""Connections to the registry's database: the only folder that opens one.

What only one engine understands is written in that engine's module and nowhere else.
"""

from __future__ import annotations

import re

import sqlalchemy as sa
from sqlalchemy.engine import make_url

from qml_plugin.errors import RegistryError
from qml_plugin.registry.connection.database import Database
from qml_plugin.registry.connection.sqlite import APPLICATION_ID, SqliteDatabase

__all__ = ["APPLICATION_ID", "Database", "SqliteDatabase", "open_database"]

_RULE = (
    "A registry URL is sqlite:///relative/path.db, sqlite:////absolute/path.db, sqlite:// for one in memory, or "
    "postgresql+psycopg://user:password@host/database"
)


def open_database(url: str, busy_timeout_s: float = 20.0) -> Database:
    """The database that a URL names; nothing is opened yet.

    Parameters
    ----------
    url : str
        ``sqlite:///path`` for a file (a relative path is fixed against the current folder now), ``sqlite://`` or
        ``sqlite:///:memory:`` for a database in memory that lives and dies with this object, or
        ``postgresql+psycopg://user:password@host/database``; ``?options=-csearch_path%3Dname`` chooses a schema in it.
    busy_timeout_s : float, seconds, 0..86400
        How long to wait for another process's lock.

    Raises
    ------
    RegistryError
        If `url` is not understood.
    DataError
        If `busy_timeout_s` is out of range.
    MissingExtra
        If the driver of PostgreSQL is not installed.
    """
    shown = re.sub(r"//[^/]*@", "//***@", str(url))
    try:
        parsed = make_url(url)
    except (sa.exc.ArgumentError, ValueError, TypeError) as error:
        raise RegistryError(f"{shown!r} is not a database URL. {_RULE}.") from error
    if parsed.drivername in ("sqlite", "sqlite+pysqlite"):
        return SqliteDatabase(url, parsed, busy_timeout_s)
    if parsed.drivername in ("postgresql", "postgresql+psycopg"):
        # Here, because most people have no driver for it.
        from qml_plugin.registry.connection.postgresql import PostgresqlDatabase

        return PostgresqlDatabase(url, parsed, busy_timeout_s)
    raise RegistryError(f"{shown!r} names the database {parsed.drivername!r}. {_RULE}.")
