"""Patterns as rows of ``ml_pattern_registry``, and rows as the columns that a memory starts from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
import orjson
import sqlalchemy as sa

from qml_plugin.clock import to_datetime
from qml_plugin.errors import DataError, RegistryCorrupt
from qml_plugin.records import KnownPatterns, Pattern, Setup
from qml_plugin.registry.run_rows import Row, number, to_json

_LARGEST = float(np.finfo(np.float32).max)
_NOT_HASHED = frozenset(("features_json", "features_f32", "row_sha256", "created_at", "updated_at"))
OUTCOME = ("resolved_at", "entry_px", "barrier_outcome", "r_multiple", "exit_reason")
FEATURES = ("features_json", "features_f32", "feature_set")
_FILLABLE = (
    "validity_score", "ml_confidence", "trade_outcome", "stop_px", "target_px", "setup_json", *OUTCOME,
)  # fmt: skip


def pattern_rows(patterns: Sequence[Pattern], names: Sequence[str]) -> list[Row]:
    """The rows of patterns, without the times of the rows themselves."""
    if not patterns:
        return []
    ids = [pattern.pattern_id for pattern in patterns]
    features = _feature_matrix(patterns, ids, names)
    compact = features.astype("<f4")
    return [
        _pattern_row(pattern, pattern_id, _features_json(names, values), copy.tobytes())
        for pattern, pattern_id, values, copy in zip(patterns, ids, features.tolist(), compact, strict=True)
    ]


def _pattern_row(pattern: Pattern, pattern_id: str, features_json: str, features_f32: bytes) -> Row:
    entry, outcome = pattern.entry, pattern.outcome
    traded = number(pattern.trade_return_frac)
    return {
        "pattern_id": pattern_id,
        "symbol": entry.symbol,
        "timeframe": entry.timeframe,
        "detection_time": to_datetime(entry.detection_at),
        "pattern_type": entry.pattern_type,
        "features_json": features_json,
        "features_f32": features_f32,
        "validity_score": number(entry.setup.validity_score) if entry.setup else None,
        "ml_confidence": number(pattern.confidence),
        "trade_outcome": None if traded is None else 100.0 * traded,
        "user_label": None,
        "paper_traded": False,
        "live_traded": False,
        "strategy": entry.strategy,
        "side": int(entry.side),
        "known_at": to_datetime(entry.known_at),
        "stop_px": number(entry.stop_px),
        "target_px": number(entry.target_px),
        "label_rule": str(entry.rule),
        "feature_set": pattern.feature_set,
        "setup_json": _setup_json(pattern),
        "resolved_at": to_datetime(outcome.resolved_at) if outcome else None,
        "entry_px": number(outcome.entry_px) if outcome else None,
        "barrier_outcome": ("win" if outcome.is_win else "loss") if outcome else None,
        "r_multiple": number(outcome.r_multiple) if outcome else None,
        "exit_reason": outcome.exit_reason if outcome else None,
    }


def filled(old: Mapping[str, object], new: Mapping[str, object]) -> Row:
    """What a new row of the same pattern adds to the old one: nothing that is there is overwritten.

    Features of another catalogue are replaced as a whole: they are computed, not observed, and a row that kept the
    old ones could never be compared with a new one. A barrier's outcome comes as a whole too, over the time at which
    a label was given by hand.
    """
    changes = {name: new[name] for name in _FILLABLE if old[name] is None and new[name] is not None}
    if old["barrier_outcome"] is None and new["barrier_outcome"] is not None:
        changes |= {name: new[name] for name in OUTCOME}
    if old["feature_set"] != new["feature_set"]:
        changes |= {name: new[name] for name in FEATURES}
    return changes


def is_known(row: Mapping[str, object]) -> bool:
    """Whether the result of a pattern is known: a label by hand decides, "ignore" is neither."""
    label = row["user_label"]
    has_result = label in ("win", "loss") or (label is None and row["barrier_outcome"] is not None)
    return row["resolved_at"] is not None and has_result


def row_sha256(row: Mapping[str, object]) -> str:
    """Full SHA-256, in hex, of what a row holds, whatever the order of its columns; empty columns do not count.

    When it was written does not count either: the same run on the same registry gives the same hashes.

    The definition belongs to the schema: a revision that changes it, or adds a column with a default, must hash every
    row anew.
    """
    others = {str(name): value for name, value in row.items() if value is not None and name not in _NOT_HASHED}
    try:
        text = orjson.dumps(others, option=orjson.OPT_SORT_KEYS)
    except TypeError as error:
        raise DataError(f"pattern {row['pattern_id']} holds a value that cannot be stored: {error}.") from error
    return hashlib.sha256(text + b"\n" + str(row["features_json"]).encode()).hexdigest()


def _feature_matrix(patterns: Sequence[Pattern], ids: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """Features of all patterns as rows, with one NaN whatever its sign and payload were."""
    for pattern, pattern_id in zip(patterns, ids, strict=True):
        if np.shape(pattern.features) != (len(names),):
            raise DataError(
                f"pattern {pattern_id} has features of shape {np.shape(pattern.features)}, but {len(names)} names. "
                "There must be one value for each name."
            )
    features = np.array([pattern.features for pattern in patterns], np.float64).reshape(len(patterns), len(names))
    if len(bad := np.argwhere(np.abs(features) > _LARGEST)):
        row, column = bad[0]
        raise DataError(
            f"feature {names[column]!r} of pattern {ids[row]} is {features[row, column]}. Features must be finite "
            "and within the range of float32; use NaN where there is no value."
        )
    return np.where(np.isnan(features), np.nan, features)


def _features_json(names: Sequence[str], values: Sequence[float]) -> str:
    """Features by name, NaN as null."""
    return orjson.dumps(dict(zip(names, values, strict=True))).decode()


def _setup_json(pattern: Pattern) -> str:
    """The order and, where a detector spoke, its geometry."""
    entry, setup = pattern.entry, pattern.entry.setup
    order = {
        "bar": int(entry.bar),
        "fill": entry.fill,
        "reference_px": entry.reference_px,
        "limit_px": entry.limit_px,
        "trigger_px": entry.trigger_px,
    }
    return to_json({"order": order, "setup": _geometry(setup) if setup else None}, "setup of a pattern")


def _geometry(setup: Setup) -> Row:
    more: Row = {}  # what a detector did not see is left out, so that its rows are those of earlier versions
    if setup.levels:
        more["levels"] = [asdict(level) for level in setup.levels]
    if setup.order_block is not None:
        more["order_block"] = asdict(setup.order_block)
    return more | {
        "pattern_type": setup.pattern_type,
        "side": int(setup.side),
        "points": [asdict(point) for point in setup.points],
        "known_bar": int(setup.known_bar),
        "stop_px": setup.stop_px,
        "target_px": setup.target_px,
    }


def parsed_features(pattern_id: str, features_json: str) -> dict[str, object]:
    """Features of a row as they stand in its JSON."""
    try:
        features = orjson.loads(features_json)
    except orjson.JSONDecodeError as error:
        raise _bad_features(pattern_id, f"no JSON: {error}") from error
    if not isinstance(features, dict):
        raise _bad_features(pattern_id, f"a {type(features).__name__}")
    return features


_INTERNAL = frozenset(("features_f32", "row_sha256", "known_seq", "scored_seq"))


def parsed_pattern(row: sa.RowMapping) -> Row:
    """A row with its JSON read; a feature without a value is NaN."""
    pattern = {name: value for name, value in row.items() if name not in _INTERNAL}
    features = parsed_features(row["pattern_id"], str(pattern.pop("features_json")))
    setup = pattern.pop("setup_json")
    pattern["features"] = {name: float("nan") if value is None else value for name, value in features.items()}
    pattern |= {"order": None, "setup": None} if setup is None else orjson.loads(str(setup))
    return pattern


def feature_vector(pattern_id: str, features_json: str, names: list[str]) -> np.ndarray:
    """Features of a row in the order of the names."""
    features = parsed_features(pattern_id, features_json)
    try:
        values = [features[name] for name in names]
    except KeyError as error:
        raise _bad_features(pattern_id, f"without {error.args[0]!r}") from error
    if strange := {type(value) for value in values} - {float, int, type(None)}:
        raise _bad_features(pattern_id, f"with a {strange.pop().__name__} for a number")
    vector = np.array(values, np.float64)
    if (np.abs(vector) > _LARGEST).any():
        raise _bad_features(pattern_id, "beyond the range of float32")
    return vector.astype(np.float32)


def copied_vectors(ids: Sequence[str], copies: Sequence[bytes], places: Sequence[int], width: int) -> np.ndarray:
    """Compact copies as rows, with the columns of `places`."""
    for pattern_id, copy in zip(ids, copies, strict=True):
        if len(copy) != 4 * width:
            raise _bad_copy(pattern_id, f"{len(copy)} bytes long")
    vectors = np.frombuffer(b"".join(copies), "<f4").reshape(len(copies), width)
    if list(places) != list(range(width)):
        vectors = vectors[:, list(places)]
    if len(bad := np.flatnonzero(np.isinf(vectors).any(axis=1))):
        raise _bad_copy(ids[bad[0]], "beyond the range of float32")
    return np.ascontiguousarray(vectors, np.float32)


def _bad_copy(pattern_id: str, what: str) -> RegistryCorrupt:
    return RegistryCorrupt(
        f"features_f32 of pattern {pattern_id} is {what}. It must hold four bytes for every feature of its feature set; "
        "set it to NULL, and features_json is read in its place."
    )


def _bad_features(pattern_id: str, what: str) -> RegistryCorrupt:
    return RegistryCorrupt(
        f"features_json of pattern {pattern_id} is {what}. It must be an object of numbers or null for every feature of "
        "its feature set; restore the row from a copy, or delete it and run again."
    )


def known_columns(
    feature_set: str, n_features: int, rows: Sequence[tuple[object, ...]], features: np.ndarray
) -> KnownPatterns:
    """Rows turned into columns."""
    if not rows:
        return KnownPatterns.empty(feature_set, n_features)
    ids, symbols, timeframes, sides, known, resolved, r_multiples, confidences, wins = zip(*rows, strict=True)
    return KnownPatterns(
        feature_set=feature_set,
        pattern_id=ids,
        group=tuple(f"{symbol}|{timeframe}" for symbol, timeframe in zip(symbols, timeframes, strict=True)),
        side=np.array(sides, np.int8),
        known_at=np.array(known, "datetime64[us]").astype(np.int64),
        resolved_at=np.array(resolved, "datetime64[us]").astype(np.int64),
        is_win=np.array(wins, np.bool_),
        r_multiple=np.array(r_multiples, np.float64),
        confidence=np.array(confidences, np.float64),
        features=features,
    )
