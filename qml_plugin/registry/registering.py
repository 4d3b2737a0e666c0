"""Patterns into the database: new ones go in, known ones are filled where they are empty, changed ones are hashed anew.

All of it under the write lock, so that reading a row, merging and writing it back is one step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache, lru_cache
from typing import Any

import sqlalchemy as sa

from qml_plugin.registry.rows import filled, is_known, row_sha256
from qml_plugin.registry.run_rows import Row
from qml_plugin.registry.schema import experiments, ml_pattern_registry

_PATTERNS = ml_pattern_registry.c
_MERGED = [column for column in _PATTERNS if column.name not in ("features_json", "features_f32")]
_IDS_AT_ONCE = 500
_LAST = sa.select(
    *(
        sa.select(sa.func.max(column)).scalar_subquery()
        for column in (_PATTERNS.known_seq, _PATTERNS.scored_seq, experiments.c.snapshot_seq)
    )
)


def register(connection: sa.Connection, rows: Sequence[Row], now: datetime) -> frozenset[str]:
    """Insert the patterns that are not there, and fill the empty columns of those that are, whose ids are returned."""
    stored = _stored(connection, [str(row["pattern_id"]) for row in rows])
    new: dict[str, Row] = {}
    changes: dict[str, Row] = {}
    for row in rows:
        pattern_id = str(row["pattern_id"])
        if pattern_id in new:
            new[pattern_id] |= filled(new[pattern_id], row)
        elif pattern_id not in stored:
            new[pattern_id] = {**row, "created_at": now, "updated_at": now}
        elif change := filled(stored[pattern_id] | changes.get(pattern_id, {}), row):
            changes.setdefault(pattern_id, {}).update(change)
    _insert(connection, list(new.values()))
    change_rows(connection, changes, now)
    return frozenset(stored)


def change_rows(connection: sa.Connection, changes: Mapping[str, Row], now: datetime) -> None:
    """Write changed columns of stored patterns, with the time, the hash and the number of the commit.

    A row whose hash was wrong before keeps it: a change must not cover up damage. A row without a hash was not
    written by this program and gets none.
    """
    if not changes:
        return
    seq = next_seq(connection)
    for chunk in _chunks(list(changes), _IDS_AT_ONCE):
        found = connection.execute(sa.select(ml_pattern_registry).where(_PATTERNS.pattern_id.in_(chunk)))
        for row in found.mappings().all():
            old = dict(row)
            change: Row = {**changes[old["pattern_id"]], "updated_at": now}
            after = old | change
            if after["resolved_at"] is None:
                change["known_seq"] = None
            elif old["known_seq"] is None and is_known(after):
                change["known_seq"] = seq
            if old["ml_confidence"] is None and after["ml_confidence"] is not None:
                change["scored_seq"] = seq
            after |= change
            if old["row_sha256"] == row_sha256(old):
                change["row_sha256"] = row_sha256(after)
            query = sa.update(ml_pattern_registry).where(_PATTERNS.pattern_id == old["pattern_id"])
            connection.execute(query.values(**change))


def next_seq(connection: sa.Connection) -> int:
    """Number of this commit: one more than any before."""
    return last_seq(connection) + 1


def last_seq(connection: sa.Connection) -> int:
    """Number of the last commit that made a result known or gave a score, 0 if there was none.

    A result that was taken back has lost its number; a snapshot that saw it keeps the number from being given again.
    """
    return max(int(last or 0) for last in connection.execute(_LAST).one())


def _insert(connection: sa.Connection, rows: list[Row]) -> None:
    if not rows:
        return
    seq = next_seq(connection)
    for row in rows:
        row["known_seq"] = seq if is_known(row) else None
        row["scored_seq"] = None if row["ml_confidence"] is None else seq
        row["row_sha256"] = row_sha256(row)
    plan = _insert_plan(connection.dialect, tuple(rows[0]))
    if plan is None:
        connection.execute(sa.insert(ml_pattern_registry), rows)
        return
    statement, converters = plan
    columns = []
    for name, convert in converters:
        values = [row[name] for row in rows]
        columns.append(values if convert is None else list(map(cache(convert), values)))
    connection.exec_driver_sql(statement, list(zip(*columns, strict=True)))


@lru_cache(maxsize=4)
def _insert_plan(dialect: sa.Dialect, names: tuple[str, ...]) -> tuple[str, list[tuple[str, Any]]] | None:
    """The statement and, by column, how its values are converted; None where the driver does not count parameters.

    What SQLAlchemy does for each statement and each row costs as much as the database itself; here it is done once,
    and for each column.
    """
    compiled = sa.insert(ml_pattern_registry).compile(dialect=dialect, column_keys=list(names))
    if not compiled.positional:
        return None
    converters = [
        (name, _PATTERNS[name].type.dialect_impl(dialect).bind_processor(dialect))
        for name in compiled.positiontup or ()
    ]
    return str(compiled), converters


def _stored(connection: sa.Connection, ids: list[str]) -> dict[str, Row]:
    """Rows that are there already, by id, without their features."""
    stored: dict[str, Row] = {}
    for chunk in _chunks(ids, _IDS_AT_ONCE):
        found = connection.execute(sa.select(*_MERGED).where(_PATTERNS.pattern_id.in_(chunk)))
        stored |= {row["pattern_id"]: dict(row) for row in found.mappings()}
    return stored


def _chunks(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (items[start : start + size] for start in range(0, len(items), size))
