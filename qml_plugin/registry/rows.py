"""Patterns as rows of ``ml_pattern_registry``, and rows as the columns that a memory starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import orjson
import sqlalchemy as sa

from qml_plugin.clock import from_datetime, to_datetime
from qml_plugin.errors import DataError, RegistryCorrupt
from qml_plugin.records import KnownPatterns, Pattern, Setup
from qml_plugin.registry.ledger import Row, number, to_json

_LARGEST = float(np.finfo(np.float32).max)


def pattern_row(pattern: Pattern, names: Sequence[str]) -> Row:
    """The row of a pattern, without the times of the row itself."""
    entry, outcome = pattern.entry, pattern.outcome
    traded = number(pattern.trade_return_frac)
    return {
        "pattern_id": entry.pattern_id,
        "symbol": entry.symbol,
        "timeframe": entry.timeframe,
        "detection_time": to_datetime(entry.detection_at),
        "pattern_type": entry.pattern_type,
        "features_json": _features_json(pattern, names),
        "validity_score": number(entry.setup.validity_score) if entry.setup else None,
        "ml_confidence": number(pattern.confidence),
        "trade_outcome": None if traded is None else 100.0 * traded,
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


def _features_json(pattern: Pattern, names: Sequence[str]) -> str:
    """Features by name, NaN as null."""
    values = np.asarray(pattern.features, np.float64)
    if values.shape != (len(names),):
        raise DataError(
            f"pattern {pattern.pattern_id} has features of shape {values.shape}, but {len(names)} names. "
            "There must be one value for each name."
        )
    if len(bad := np.flatnonzero(np.abs(values) > _LARGEST)):
        raise DataError(
            f"feature {names[bad[0]]!r} of pattern {pattern.pattern_id} is {values[bad[0]]}. Features must be finite "
            "and within the range of float32; use NaN where there is no value."
        )
    return orjson.dumps(dict(zip(names, values.tolist(), strict=True))).decode()


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
    return {
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


def parsed_pattern(row: sa.RowMapping) -> Row:
    """A row with its JSON read; a feature without a value is NaN."""
    pattern = dict(row)
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


def _bad_features(pattern_id: str, what: str) -> RegistryCorrupt:
    return RegistryCorrupt(
        f"features_json of pattern {pattern_id} is {what}. It must be an object of numbers or null for every feature of "
        "its feature set; restore the row from a copy, or delete it and run again."
    )


def known_columns(
    feature_set: str, n_features: int, rows: list[tuple[object, ...]], vectors: list[np.ndarray]
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
        known_at=np.array([from_datetime(moment) for moment in known], np.int64),
        resolved_at=np.array([from_datetime(moment) for moment in resolved], np.int64),
        is_win=np.array(wins, np.bool_),
        r_multiple=np.array(r_multiples, np.float64),
        confidence=np.array(confidences, np.float64),
        features=np.stack(vectors),
    )
