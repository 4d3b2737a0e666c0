"""The patterns whose result is known, read as columns; and what identifies the set of them that a run saw."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import sqlalchemy as sa

from qml_plugin.clock import from_datetime
from qml_plugin.errors import RegistryCorrupt
from qml_plugin.records import KnownPatterns, TrainingRows
from qml_plugin.registry import feature_sets
from qml_plugin.registry.rows import copied_vectors, feature_vector, known_columns
from qml_plugin.registry.schema import ml_pattern_registry

if TYPE_CHECKING:
    from qml_plugin.registry.vectors import KeptVectors

_PATTERNS = ml_pattern_registry.c
_IDS_AT_ONCE = 500
# A label given by hand decides; "ignore" is neither, and so unknown.
RESULT = sa.case(
    (_PATTERNS.user_label.in_(("win", "loss")), _PATTERNS.user_label),
    (_PATTERNS.user_label.is_(None), _PATTERNS.barrier_outcome),
)
IS_KNOWN = sa.and_(_PATTERNS.resolved_at.is_not(None), RESULT.is_not(None))


@dataclass(frozen=True, slots=True)
class PatternFacts:
    """What a pattern is an entry of; ``detection_at`` is the stamp of its decision bar."""

    symbol: str
    timeframe: str
    pattern_type: str
    strategy: str
    detection_at: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What identifies the known patterns that a run started from.

    ``seq`` is the number of the last commit it saw; asking for the patterns through that number gives the same set
    again as long as no label was changed and no row deleted, which ``sha256`` tells.
    """

    seq: int
    n_patterns: int
    sha256: str

    @classmethod
    def of(cls, known: KnownPatterns, seq: int) -> Snapshot:
        """Identify a set of patterns by all that a memory reads of them."""
        digest = hashlib.sha256("\n".join([known.feature_set, *known.pattern_id]).encode())
        digest.update("\n".join(known.group).encode())
        for column in (known.side, known.known_at, known.resolved_at, known.is_win, known.r_multiple, known.confidence):
            digest.update(column.tobytes())
        digest.update(known.features.tobytes())
        return cls(seq, len(known), digest.hexdigest())


def known_of(
    connection: sa.Connection,
    feature_set: str,
    names: Sequence[str],
    *conditions: sa.ColumnElement[bool],
    kept: KeptVectors | None = None,
    through_seq: int | None = None,
) -> KnownPatterns:
    """Known patterns of one feature set that meet the conditions, sorted by (``resolved_at``, ``pattern_id``).

    `kept` is where the features of all of them may be kept; it must be None where there are conditions. Results and
    scores that came with a later commit than `through_seq` are left out.
    """
    columns = ("pattern_id", "symbol", "timeframe", "side", "known_at", "resolved_at", "r_multiple")
    confidence: sa.ColumnElement[Any] = _PATTERNS.ml_confidence
    if through_seq is not None:
        # A row of the user's own making has no number, and was there at any time.
        known_then, scored_then = (
            sa.or_(column.is_(None), column <= through_seq) for column in (_PATTERNS.known_seq, _PATTERNS.scored_seq)
        )
        conditions, confidence = (*conditions, known_then), sa.case((scored_then, confidence))
    has_file = kept is not None and kept.file.is_file()
    copy = _PATTERNS.features_f32.is_not(None) if has_file else _PATTERNS.features_f32
    query = _ordered(
        sa.select(*(_PATTERNS[name] for name in columns), confidence, RESULT == "win", _PATTERNS.row_sha256, copy),
        feature_set,
        conditions,
    )
    rows = connection.execute(query).all()
    ids, hashes, copies = ([row[place] for row in rows] for place in (0, -2, -1))
    features = kept.mapped(connection, names, ids, hashes, copies) if kept is not None and has_file else None
    if features is None:
        if has_file:
            copies = list(connection.scalars(_ordered(sa.select(_PATTERNS.features_f32), feature_set, conditions)))
        features = features_of(connection, feature_set, names, ids, copies)
        if kept is not None:
            kept.keep(connection, names, ids, hashes, copies, features)
    known = known_columns(feature_set, len(names), [tuple(row[:-2]) for row in rows], features)
    ignored = connection.scalars(
        sa.select(_PATTERNS.pattern_id).where(_PATTERNS.user_label == "ignore", _PATTERNS.feature_set == feature_set)
    )
    versions = feature_sets.versions_of(connection, feature_set) or {}
    return replace(known, ignored=frozenset(ignored), versions=versions)


def facts_of(connection: sa.Connection, feature_set: str) -> dict[str, PatternFacts]:
    """The facts of every pattern of one feature set, by id."""
    columns = ("pattern_id", "symbol", "timeframe", "pattern_type", "strategy", "detection_time")
    query = sa.select(*(_PATTERNS[name] for name in columns)).where(_PATTERNS.feature_set == feature_set)
    return {
        pattern_id: PatternFacts(symbol, timeframe, pattern_type, strategy, from_datetime(detected))
        for pattern_id, symbol, timeframe, pattern_type, strategy, detected in connection.execute(query)
    }


def rows_to_keep(connection: sa.Connection, feature_set: str) -> list[tuple[str, str, bytes]]:
    """Id, hash and compact copy of each known pattern that has them all, in order."""
    query = _ordered(sa.select(_PATTERNS.pattern_id, _PATTERNS.row_sha256, _PATTERNS.features_f32), feature_set, ())
    return [(row[0], row[1], row[2]) for row in connection.execute(query) if None not in row]


def training_columns(
    connection: sa.Connection, feature_set: str, versions: feature_sets.Versions, as_of: datetime | None
) -> tuple[TrainingRows, np.ndarray, np.ndarray]:
    """What the patterns are whose result was known at `as_of`, their features, and which of them are wins."""
    conditions = () if as_of is None else (_PATTERNS.resolved_at <= as_of,)
    columns = ("pattern_id", "symbol", "timeframe", "strategy", "known_at", "resolved_at")
    query = sa.select(*(_PATTERNS[name] for name in columns), RESULT == "win", _PATTERNS.features_f32)
    rows = connection.execute(_ordered(query, feature_set, conditions)).all()
    ids, symbols, timeframes, strategies, known, resolved, wins, copies = zip(*rows, strict=True) if rows else ((),) * 8
    features = features_of(connection, feature_set, list(versions), ids, copies)
    known_at, resolved_at = (np.array(times, "datetime64[us]").astype(np.int64) for times in (known, resolved))
    return (
        TrainingRows(ids, symbols, timeframes, strategies, known_at, resolved_at, versions),
        features,
        np.array(wins, np.int64),
    )


def _ordered(query: sa.Select[Any], feature_set: str, conditions: Sequence[sa.ColumnElement[bool]]) -> sa.Select[Any]:
    return query.where(_PATTERNS.feature_set == feature_set, IS_KNOWN, *conditions).order_by(
        _PATTERNS.resolved_at, _PATTERNS.pattern_id
    )


def features_of(
    connection: sa.Connection,
    feature_set: str,
    names: Sequence[str],
    ids: Sequence[str],
    copies: Sequence[bytes | None],
) -> np.ndarray:
    """Float32 features of the patterns: from the compact copies, and from the JSON where there is none."""
    features = np.empty((len(ids), len(names)), np.float32)
    if not ids:
        return features
    order = feature_sets.versions_of(connection, feature_set)
    is_copied = np.array([copy is not None for copy in copies]) & (order is not None)
    if order is not None and is_copied.any():
        places = {name: place for place, name in enumerate(order)}
        if absent := [name for name in names if name not in places]:
            raise RegistryCorrupt(
                f"feature set {feature_set} has no feature {absent[0]!r}, which was asked of pattern {ids[0]}. Ask for the "
                "features that the set has."
            )
        rows = np.flatnonzero(is_copied).tolist()
        found = [copy for copy in copies if copy is not None]
        features[rows] = copied_vectors([ids[row] for row in rows], found, [places[name] for name in names], len(order))
    rows = np.flatnonzero(~is_copied).tolist()
    for start in range(0, len(rows), _IDS_AT_ONCE):
        chunk = rows[start : start + _IDS_AT_ONCE]
        query = sa.select(_PATTERNS.pattern_id, _PATTERNS.features_json).where(
            _PATTERNS.pattern_id.in_([ids[row] for row in chunk])
        )
        texts = {row[0]: row[1] for row in connection.execute(query)}
        for row in chunk:
            features[row] = feature_vector(ids[row], texts[ids[row]], list(names))
    return features
