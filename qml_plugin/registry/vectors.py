"""The features of the known patterns in a file beside the database, mapped into memory instead of read row by row.

The file is a cache. A pattern in it is named by its id and its ``row_sha256``, and only if these are, in their order, the
patterns that the registry holds now is the file believed; otherwise it is made anew. Rows that another program wrote or
changed have no compact copy of their features or no hash: they are never taken from it.

What it saves, of 50,000 patterns of 207 features: 41 MB in every process that would read them, which all share the pages
of one file; and a tenth of the time, as the columns of text cost far more than the features.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import sqlalchemy as sa

from qml_plugin.errors import RetrievalError
from qml_plugin.registry import feature_sets
from qml_plugin.registry.known import features_of, rows_to_keep

if TYPE_CHECKING:
    from qml_plugin.retrieval.vector_file import VectorFile

# Of fewer, all features take less than 4 MB and some milliseconds.
PAYS_FROM = 5_000
# A file is written anew when a fifth is missing; until then the features are read from the registry.
_GROWTH = 1.2

_HEX = re.compile(r"[0-9a-f]{16,}")


@dataclass(frozen=True, slots=True)
class KeptVectors:
    """Where the features of one feature set are kept beside a database."""

    file: Path
    feature_set: str

    @classmethod
    def beside(cls, database: Path | None, feature_set: str) -> KeptVectors | None:
        """The file of a feature set; None for a database in memory, or a set whose name is no hash."""
        if database is None or not _HEX.fullmatch(feature_set):
            return None
        return cls(folder_beside(database) / f"{feature_set[:16]}.vec", feature_set)

    def mapped(
        self,
        connection: sa.Connection,
        names: Sequence[str],
        ids: Sequence[str],
        hashes: Sequence[str | None],
        has_copy: Sequence[object],
    ) -> np.ndarray | None:
        """Features of all patterns, mapped from the file; None if it does not hold them, with a warning of the cause.

        A file that is missing, or that lacks only patterns that became known since, is no reason for a warning.
        """
        order = list(feature_sets.versions_of(connection, self.feature_set) or ())
        if len(ids) < PAYS_FROM or not set(names) <= set(order):
            return None
        is_kept = [bool(copy) and row_sha256 is not None for row_sha256, copy in zip(hashes, has_copy, strict=True)]
        inside, outside = np.flatnonzero(is_kept).tolist(), np.flatnonzero(~np.array(is_kept)).tolist()
        found = self._read(_names(ids, hashes, inside), len(order))
        if found is None:
            return None
        if list(names) != order:
            found = found[:, [order.index(name) for name in names]]
        if not outside:
            return found
        features = np.empty((len(ids), len(names)), np.float32)
        features[inside] = found
        others = [ids[row] for row in outside]
        features[outside] = features_of(connection, self.feature_set, names, others, [None] * len(others))
        return features

    def keep(
        self,
        connection: sa.Connection,
        names: Sequence[str],
        ids: Sequence[str],
        hashes: Sequence[str | None],
        copies: Sequence[bytes | None],
        features: np.ndarray,
    ) -> None:
        """Write the file anew from what was just read, where it pays; what goes wrong is warned of."""
        order = feature_sets.versions_of(connection, self.feature_set) or ()
        if len(ids) < PAYS_FROM or list(order) != list(names) or not os.access(self.file.parents[1], os.W_OK):
            return
        inside = [row for row, copy in enumerate(copies) if copy is not None and hashes[row] is not None]
        rows = _names(ids, hashes, inside)
        if self._is_recent(rows):
            return
        try:
            self._write(rows, features if len(inside) == len(ids) else features[inside])
        except OSError as error:
            warnings.warn(
                f"features could not be kept in {self.file}: {error}. Nothing is lost: they are read from the registry.",
                RuntimeWarning,
                stacklevel=5,  # the caller of read_snapshot
            )

    def _is_recent(self, names: list[str]) -> bool:
        """Whether a file is there that lacks few of the patterns: writing it anew for them would cost more than it saves."""
        from qml_plugin.retrieval.vector_file import open_vectors

        try:
            found = open_vectors(self.file)
        except (RetrievalError, OSError):
            return False
        return _has_only_grown(found, self.feature_set, names) and len(names) < _GROWTH * len(found.row_names)

    def _read(self, names: list[str], dim: int) -> np.ndarray | None:
        from qml_plugin.retrieval.vector_file import open_vectors  # loads the compiler of the search

        try:
            found = open_vectors(self.file)
        except FileNotFoundError:
            return None
        except (RetrievalError, OSError) as error:
            self._warn(str(error))
            return None
        if (cause := _why_stale(found, self.feature_set, names, dim)) is not None:
            if not _has_only_grown(found, self.feature_set, names):
                self._warn(cause)
            return None
        return found.vectors.view(np.ndarray)

    def _write(self, names: list[str], features: np.ndarray) -> None:
        from qml_plugin.retrieval.vector_file import write_vectors

        self.file.parent.mkdir(exist_ok=True)
        write_vectors(self.file, features, names, feature_set=self.feature_set)

    def _warn(self, cause: str) -> None:
        warnings.warn(
            f"features kept in {self.file} are not used: {cause}. They are read from the registry, and kept anew.",
            RuntimeWarning,
            stacklevel=6,  # the caller of read_snapshot
        )


def folder_beside(database: Path) -> Path:
    """The folder of the files of a database."""
    return database.with_name(f"{database.name}.vectors")


def vector_file_faults(connection: sa.Connection, database: Path | None) -> list[str]:
    """What is wrong with the files of vectors beside a database, as sentences; changes nothing.

    None of it can make an answer wrong: a file with a fault is made anew by the next run that would read it.

    Parameters
    ----------
    connection : Connection
        To the registry of `database`.
    database : Path or None
        None for a database in memory, which has no files.

    Returns
    -------
    list of str
        Empty if all is well, and if there are no files. Files that are damaged, forged or behind the registry, that
        hold other features than the registry does, or that a killed process left half written.
    """
    if database is None or not (folder := folder_beside(database)).is_dir():
        return []
    from qml_plugin.retrieval.vector_file import open_vectors

    faults = [
        f"{file} was left half written by a process that was killed; it may be deleted"
        for file in sorted(folder.glob("*.partial"))
    ]
    for file in sorted(folder.glob("*.vec")):
        try:
            found = open_vectors(file)
        except (RetrievalError, OSError) as error:
            faults.append(f"{file} cannot be used, and will be made anew: {error}")
            continue
        if (fault := _fault(connection, found)) is not None:
            faults.append(f"{file} is not what the registry holds, and will be made anew: {fault}")
    return faults


def _fault(connection: sa.Connection, found: VectorFile) -> str | None:
    """What the registry says of a file that is whole."""
    order = feature_sets.versions_of(connection, found.card.feature_set)
    if order is None:
        return f"its feature set {found.card.feature_set} is not registered"
    rows = rows_to_keep(connection, found.card.feature_set)
    names = [f"{pattern_id} {row_sha256}" for pattern_id, row_sha256, _ in rows]
    if (cause := _why_stale(found, found.card.feature_set, names, len(order))) is not None:
        return cause
    for (pattern_id, _, copy), vector in zip(rows, found.vectors, strict=True):
        if copy != vector.tobytes():
            return f"the features of pattern {pattern_id} are others"
    return None


def _names(ids: Sequence[str], hashes: Sequence[str | None], rows: Sequence[int]) -> list[str]:
    """What tells each pattern, as it is now, from all others."""
    return [f"{ids[row]} {hashes[row]}" for row in rows]


def _has_only_grown(found: VectorFile, feature_set: str, names: list[str]) -> bool:
    """Whether nothing but patterns that became known tells a file from the registry: that is how every run leaves it."""
    return found.card.feature_set == feature_set and set(found.row_names) < set(names)


def _why_stale(found: VectorFile, feature_set: str, names: list[str], dim: int) -> str | None:
    """What tells a file from the registry; None if nothing does."""
    if found.card.feature_set != feature_set:
        return f"it holds feature set {found.card.feature_set[:64]}"
    if found.card.dim != dim:
        return f"it holds {found.card.dim} features, the feature set has {dim}"
    if found.row_names == names:
        return None
    kept, now = (dict(name.partition(" ")[::2] for name in rows) for rows in (found.row_names, names))
    n_changed = sum(kept[pattern_id] != now[pattern_id] for pattern_id in kept.keys() & now.keys())
    n_added, n_deleted = len(now.keys() - kept.keys()), len(kept.keys() - now.keys())
    if n_changed + n_added + n_deleted == 0:
        return "its patterns are in another order"
    return f"it is stale: {n_added} patterns were added, {n_deleted} deleted and {n_changed} changed since it was made"
