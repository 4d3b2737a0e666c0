"""Where a sweep keeps what its points leave: a folder of JSON and Parquet, from which a killed sweep goes on."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd

from qml_plugin.errors import DataError, QmlError
from qml_plugin.processes import Process
from qml_plugin.provenance import library_versions

_TABLES = ("trades", "equity")
VERSION = 1


class Folder:
    """One sweep on disk.

    ``manifest.json`` says what was asked for, ``cells/ID.json`` what a point came to, ``trades/`` and ``equity/`` hold its
    tables. A point counts as done when its JSON, which is written last and names the hashes of the tables, is there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def write_tables(self, run_id: str, tables: Mapping[str, bytes]) -> dict[str, str]:
        """Keep the tables of a point, as `in_parquet` made them, and give their hashes; each file is whole or absent."""
        for name, content in tables.items():
            replace_file(self._table(name, run_id), content)
        return {name: hashlib.sha256(content).hexdigest() for name, content in tables.items()}

    def write_cell(self, run_id: str, record: Mapping[str, Any]) -> None:
        """Keep what a point came to; ``sha256`` holds the hashes of its tables."""
        replace_file(self._cell(run_id), _json(record))

    def read_cell(self, run_id: str) -> dict[str, Any] | None:
        """What a point came to; None where it is not there, or its tables are not as they were written."""
        try:
            record: dict[str, Any] = json.loads(self._cell(run_id).read_bytes())
            for name, sha256 in record["sha256"].items():
                if hashlib.sha256(self._table(name, run_id).read_bytes()).hexdigest() != sha256:
                    return None
        except (OSError, ValueError, KeyError):
            return None  # it is simply computed again
        return record

    def table(self, name: str, run_id: str) -> pd.DataFrame:
        """The trades or the equity of a point.

        Raises
        ------
        DataError
            If the sweep has no such point, or it did not finish.
        """
        file = self._table(name, run_id) if run_id.replace("-", "").isalnum() else None
        if file is None or not file.is_file():
            raise DataError(
                f"the sweep kept no {name} of run {run_id[:80]!r}. result.table names the runs; those that failed left none."
            )
        return pd.read_parquet(file)

    def claim(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest of a sweep that begins; DataError where another process was faster."""
        if (there := self.read_manifest()) is not None:
            self.refuse_if_at_work(there)
        self.write_manifest(manifest)

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        with writing(self.path):
            for name in ("cells", *_TABLES):
                (self.path / name).mkdir(parents=True, exist_ok=True)
        replace_file(self.path / "manifest.json", _json({"version": VERSION, **manifest}))

    def read_manifest(self) -> dict[str, Any] | None:
        """What was asked for; None where no sweep began here.

        Raises
        ------
        DataError
            If the file is damaged, or of another version.
        """
        return manifest_in(self.path, VERSION, "sweep again")

    def note_end(self, manifest: Mapping[str, Any], status: str) -> None:
        """Write how the sweep ended; where that is impossible it is said, and costs nothing: a dead process is noticed."""
        try:
            self.write_manifest({**manifest, "status": status})
        except SweepWriteError as error:
            warnings.warn(f"the end of the sweep could not be noted: {error}", RuntimeWarning, stacklevel=3)

    def refuse_if_at_work(self, manifest: Mapping[str, Any]) -> None:
        """DataError where another living process is at this very sweep."""
        process = Process(**manifest["process"])
        if manifest["status"] == "running" and process != Process.own() and process.is_alive():
            raise DataError(
                f"process {process.pid} is at this very sweep, in {self.path}. Wait for it, or stop it and resume."
            )

    def move_aside(self) -> Path:
        """Keep an unfinished sweep under another name."""
        return moved_aside(self.path)

    def clear(self) -> None:
        """Remove a sweep that is to be replaced."""
        with writing(self.path):
            shutil.rmtree(self.path)

    def _cell(self, run_id: str) -> Path:
        return self.path / "cells" / f"{run_id}.json"

    def _table(self, name: str, run_id: str) -> Path:
        return self.path / name / f"{run_id}.parquet"


def manifest_in(folder: Path, version: int, again: str) -> dict[str, Any] | None:
    """What ``manifest.json`` holds; None where there is none. `again` says how to begin anew.

    Raises
    ------
    DataError
        If the file is damaged, or not of this version.
    """
    file = folder / "manifest.json"
    if not file.exists():
        return None
    try:
        manifest: dict[str, Any] = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {error}. Move the folder away and {again}.") from error
    if manifest.get("version") != version:
        raise DataError(
            f"{file} is of version {manifest.get('version')!r}, this program writes {version}. Move the folder away and {again}."
        )
    return manifest


def changed_library(manifest: Mapping[str, Any]) -> tuple[str, str, str | None] | None:
    """A library that is not of the version that a manifest names: its name, that version, and the one that is here."""
    here = library_versions()
    changed = ((name, old, here.get(name)) for name, old in manifest["versions"].items())
    return next(((name, old, new) for name, old, new in changed if new != old), None)


def moved_aside(path: Path) -> Path:
    """Rename a folder to a name that is free."""
    number = 1
    while (aside := path.with_name(f"{path.name}.before-{number}")).exists():
        number += 1
    with writing(path):
        path.rename(aside)
    return aside


def in_parquet(table: pd.DataFrame) -> bytes:
    """A table as the content of its file."""
    packed = BytesIO()
    table.to_parquet(packed, compression="zstd")
    return packed.getvalue()


def home_of(given: str | Path | None, registry_file: Path | None) -> Path:
    """Where the folders of sweeps are: where the caller says, beside the file of the registry, or in ``results/sweeps``."""
    if given is not None:
        return Path(given).absolute()
    if registry_file is not None:
        return registry_file.with_name(f"{registry_file.name}.sweeps")
    return Path("results/sweeps").absolute()


def finite(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Numbers as JSON holds them: NaN and infinities are null."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def _json(value: object) -> bytes:
    return json.dumps(value, allow_nan=False, indent=1).encode()


def replace_file(file: Path, content: bytes) -> None:
    """Write a file to a temporary name, and rename it when it is whole."""
    scratch = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with writing(file):
            scratch.write_bytes(content)
            scratch.replace(file)
    except BaseException:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)
        raise


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Within the block an error of the file system is a `SweepWriteError` that names the path and the way out."""
    try:
        yield
    except OSError as error:
        raise SweepWriteError(
            f"{path} cannot be written: {error.strerror or error}. Free space, or choose another folder, and resume."
        ) from error


class SweepWriteError(QmlError):
    """A file of a sweep cannot be written."""
