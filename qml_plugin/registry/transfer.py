"""A registry as a folder of Parquet files and a JSON manifest, and back: every value exactly as it was."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import sqlalchemy as sa

from qml_plugin.errors import DataError, RegistryCorrupt, RegistryError
from qml_plugin.registry import feature_sets
from qml_plugin.registry.checks import MODELS, ROW_FAULTS, file_sha256, pattern_fault, rows_at_once
from qml_plugin.registry.connection import open_database
from qml_plugin.registry.migrations import ensure_current, latest_revision
from qml_plugin.registry.models import carry_files
from qml_plugin.registry.schema import metadata, ml_pattern_registry

_FORMAT = "qml_plugin registry 1"
_MANIFEST = "manifest.json"
_LARGEST_MANIFEST = 1 << 20
# A million bars, the most that are kept, are less than that; so is everything else that a row may hold.
_LARGEST_ROW = 1 << 26
_LARGEST_CHUNK = 1 << 29
# Commits are numbered one by one: a number beyond what a float64 holds was counted by nobody, and leaves none for the next.
_LAST_SEQ = 1 << 53
_FIRST_SEQ = {"known_seq": 1, "scored_seq": 1, "snapshot_seq": 0}  # a snapshot of no commit is number 0
# Features of a pattern can only be judged once the order of its set is there.
_TABLES = sorted(metadata.sorted_tables, key=lambda table: table.name != "feature_sets")
_KINDS: tuple[tuple[type[sa.types.TypeEngine[Any]], pa.DataType], ...] = (
    (sa.Text, pa.string()),
    (sa.DateTime, pa.timestamp("us")),
    (sa.Float, pa.float64()),
    (sa.Boolean, pa.bool_()),
    (sa.Integer, pa.int64()),
    (sa.LargeBinary, pa.binary()),
)


def export_registry(url: str, folder: Path | str, *, busy_timeout_s: float = 20.0) -> dict[str, int]:
    """Write every table as ``<table>.parquet``, and ``manifest.json`` with the schema, row counts and SHA-256.

    The files of models go along in ``models``. One that is missing or damaged stays behind with a warning.

    Parameters
    ----------
    url : str
        URL of an existing registry of the latest schema.
    folder : path
        Folder to make; it must not exist. It appears only once it is complete.
    busy_timeout_s : float, seconds

    Returns
    -------
    dict
        Rows by table: one consistent moment of all tables.

    Raises
    ------
    RegistryError
        If the folder exists or cannot be written; nothing is left behind.
    RegistryCorrupt
        If a value is not of its column's kind.
    """
    database = open_database(url, busy_timeout_s)
    ensure_current(database, create=False)
    target = Path(folder).absolute()
    if target.exists():
        raise RegistryError(f"{target} exists already and was not overwritten. Name another folder, or move it away.")
    partial = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        partial.mkdir(parents=True)
        with database.read() as connection:
            counts = {str(table.name): _write_table(connection, table, partial) for table in _TABLES}
            carry_files(connection, lambda: database.folder / MODELS, lambda: partial / MODELS)
        tables = {name: {"rows": n, "sha256": file_sha256(_file(partial, name))} for name, n in counts.items()}
        manifest = {
            "format": _FORMAT,
            "schema_version": latest_revision(),
            "exported_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "tables": tables,
        }
        (partial / _MANIFEST).write_bytes(orjson.dumps(manifest, option=orjson.OPT_INDENT_2))
        partial.rename(target)
    except OSError as error:
        raise RegistryError(f"the export to {target} could not be written: {error}. Nothing was left there.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return counts


def import_registry(url: str, folder: Path | str, *, busy_timeout_s: float = 20.0) -> dict[str, int]:
    """Fill an empty registry from an export: all of it, or nothing.

    The files are taken for hostile: only the tables of this schema with exactly their columns are read, each file must
    have the hash that the manifest tells, and each row must pass the database's own conditions and its own hash. Of texts
    and bytes no more than 64 MiB are held at once, and a row that has more is refused. Files of models are copied to the
    folder ``models`` beside the database; one that is not what its row says stays behind with a warning.

    Parameters
    ----------
    url : str
        URL of a registry without rows; made if it does not exist.
    folder : path
        What `export_registry` wrote.
    busy_timeout_s : float, seconds

    Returns
    -------
    dict
        Rows by table.

    Raises
    ------
    DataError
        If the export is not complete, damaged, or not of this schema; nothing is stored.
    RegistryError
        If the registry is not empty, or the file of a model cannot be written; nothing is stored.
    """
    source = Path(folder).absolute()
    expected = _read_manifest(source)
    database = open_database(url, busy_timeout_s)
    ensure_current(database)
    try:
        with database.write() as connection:
            for table in _TABLES:
                if connection.execute(sa.select(sa.literal(1)).select_from(table).limit(1)).first():
                    raise RegistryError(
                        f"{database.name} is not empty: {table.name} holds rows. Import into a new database."
                    )
            for table in _TABLES:
                _read_table(connection, table, source, expected[table.name])
            carry_files(connection, lambda: source / MODELS, lambda: database.folder / MODELS)
    except (pa.ArrowException, OSError) as error:
        raise _refused(source, f"a file cannot be read: {error}") from error
    return {name: said["rows"] for name, said in expected.items()}


def _file(folder: Path, table: str) -> Path:
    return folder / f"{table}.parquet"


def _arrow_schema(table: sa.Table) -> pa.Schema:
    return pa.schema([(column.name, _arrow_type(column)) for column in table.columns])


def _arrow_type(column: sa.Column[Any]) -> pa.DataType:
    return next(arrow for kind, arrow in _KINDS if isinstance(column.type, kind))


def _write_table(connection: sa.Connection, table: sa.Table, folder: Path) -> int:
    schema, n_rows = _arrow_schema(table), 0
    query = sa.select(table).order_by(*table.primary_key).execution_options(yield_per=rows_at_once(table))
    with pq.ParquetWriter(_file(folder, table.name), schema, compression="zstd") as writer:
        for chunk in connection.execute(query).mappings().partitions():
            columns = {name: [row[name] for row in chunk] for name in schema.names}
            try:
                writer.write_table(pa.table(columns, schema=schema))
            except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
                raise RegistryCorrupt(
                    f"{table.name} holds a value that is not of its column's kind: {error}. 'qml db doctor --deep' names "
                    "the row; correct it, or restore a copy."
                ) from error
            n_rows += len(chunk)
    return n_rows


def _read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """Rows and hash that are promised of each table."""
    file = folder / _MANIFEST
    if not _is_plain(file) or file.stat().st_size > _LARGEST_MANIFEST:
        raise _refused(folder, f"{_MANIFEST} is missing, no plain file, or larger than {_LARGEST_MANIFEST} bytes")
    try:
        manifest = orjson.loads(file.read_bytes())
    except orjson.JSONDecodeError as error:
        raise _refused(folder, f"{_MANIFEST} is no JSON: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
        raise _refused(folder, f"{_MANIFEST} is not of the format {_FORMAT!r}")
    if manifest.get("schema_version") != latest_revision():
        raise _refused(
            folder,
            f"it is of schema {manifest.get('schema_version')!r}, this version of qml_plugin reads {latest_revision()}; "
            "import it with the version that wrote it, and upgrade the database",
        )
    tables = manifest.get("tables")
    names = {table.name for table in _TABLES}
    if not isinstance(tables, dict) or set(tables) != names:
        raise _refused(folder, f"its tables are not exactly {', '.join(sorted(names))}")
    for name, said in tables.items():
        if not isinstance(said, Mapping) or type(said.get("rows")) is not int or type(said.get("sha256")) is not str:
            raise _refused(folder, f"{_MANIFEST} does not tell rows and sha256 of {name}")
    return tables


def _read_table(connection: sa.Connection, table: sa.Table, folder: Path, said: Mapping[str, Any]) -> None:
    file = _file(folder, table.name)
    if not _is_plain(file):
        raise _refused(folder, f"{file.name} is missing or no plain file")
    if file_sha256(file) != said["sha256"]:
        raise _refused(folder, f"the SHA-256 of {file.name} is not the one in {_MANIFEST}")
    if not pq.read_schema(file).equals(_arrow_schema(table)):
        raise _refused(folder, f"{file.name} does not have exactly the columns of {table.name}")
    n_rows = 0
    # Texts stay in the dictionary that a small file may keep them in, so that their lengths are known before they are copied.
    texts = [column.name for column in table.columns if isinstance(column.type, sa.Text | sa.LargeBinary)]
    with pq.ParquetFile(file, read_dictionary=texts) as parquet:
        if (largest := _largest_chunk(parquet.metadata)) > _LARGEST_CHUNK:
            raise _refused(
                folder, f"a column of {file.name} takes {largest} bytes, more than {_LARGEST_CHUNK}, in one piece"
            )
        for batch in parquet.iter_batches(rows_at_once(table)):
            for piece in _pieces(batch, table, folder):
                rows = _checked(connection, table, piece, folder)
                n_rows += len(rows)
                connection.execute(sa.insert(table), rows)
    if n_rows != said["rows"]:
        raise _refused(folder, f"{file.name} holds {n_rows} rows, {_MANIFEST} tells of {said['rows']}")


def _largest_chunk(metadata: pq.FileMetaData) -> int:
    """Bytes of the largest part of a column that is decoded at once."""
    groups = (metadata.row_group(group) for group in range(metadata.num_row_groups))
    return max(
        (group.column(at).total_uncompressed_size for group in groups for at in range(group.num_columns)), default=0
    )


def _pieces(batch: pa.RecordBatch, table: sa.Table, folder: Path) -> Iterator[pa.RecordBatch]:
    """A batch in pieces of which none holds more texts and bytes than a row may."""
    n_bytes = np.zeros(batch.num_rows, np.int64)
    for column in batch.columns:
        if pa.types.is_dictionary(column.type):
            lengths = pc.take(pc.binary_length(column.dictionary), column.indices)
            n_bytes += pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False)
    if batch.num_rows and (largest := int(n_bytes.max())) > _LARGEST_ROW:
        raise _refused(folder, f"a row of {table.name} holds {largest} bytes, more than {_LARGEST_ROW}")
    start = 0
    while start < batch.num_rows:
        n = int(np.searchsorted(np.cumsum(n_bytes[start:]), _LARGEST_ROW, side="right"))
        yield batch.slice(start, n)
        start += n


def _checked(connection: sa.Connection, table: sa.Table, batch: pa.RecordBatch, folder: Path) -> list[dict[str, Any]]:
    """Rows of a batch, after each has told that it is as it was written."""
    try:
        rows: list[dict[str, Any]] = batch.to_pylist()
    except (ValueError, OverflowError) as error:
        raise _refused(folder, f"{table.name} holds a value that cannot be read: {error}") from error
    for fault in _faults(connection, table, rows):
        raise _refused(folder, fault)
    return rows


def _faults(connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]]) -> Iterator[str]:
    required = [column.name for column in table.columns if not column.nullable]
    for row in rows:
        if empty := [name for name in required if row[name] is None]:
            yield f"a row of {table.name} is without {empty[0]}"
        for name, first in _FIRST_SEQ.items():
            if (seq := row.get(name)) is not None and not first <= seq <= _LAST_SEQ:
                yield f"{name} is {seq} in a row of {table.name}; it must lie between {first} and {_LAST_SEQ}"
    orders: dict[str, list[str] | None] = {}
    for row in rows:
        fault = None
        if table is ml_pattern_registry:
            if row["feature_set"] not in orders:
                versions = feature_sets.versions_of(connection, row["feature_set"])
                orders[row["feature_set"]] = None if versions is None else list(versions)
            fault = pattern_fault(row, orders[row["feature_set"]])
        elif table.name in ROW_FAULTS:
            fault = ROW_FAULTS[table.name](row)
        if fault is not None:
            yield fault


def _is_plain(file: Path) -> bool:
    return file.is_file() and not file.is_symlink()


def _refused(folder: Path, why: str) -> DataError:
    return DataError(f"the export at {folder} was refused: {why}. Nothing was stored.")
