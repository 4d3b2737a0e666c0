"""A run and its decisions as rows of ``experiments`` and ``run_decisions``, and back."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
import orjson
import sqlalchemy as sa

from qml_plugin.clock import to_datetime
from qml_plugin.errors import DataError
from qml_plugin.records import Bucket, Decision, Neighbour, Run

Row = dict[str, object]

_NUMPY_SORTED = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_SORT_KEYS


def params_hash(params: Mapping[str, object]) -> str:
    """Full SHA-256, in hex, of the parameters as canonical JSON.

    Parameters
    ----------
    params : mapping of str to values
        Numbers, text, booleans, None, and lists or mappings of these; numpy scalars count as their Python values.

    Returns
    -------
    str of 64 characters
        Equal for equal parameters whatever their order.

    Raises
    ------
    DataError
        If a value has no JSON form.

    Examples
    --------
    >>> params_hash({"fast": 10, "slow": 30}) == params_hash({"slow": 30, "fast": 10})
    True
    """
    return _sha256(_canonical_json(params).encode())


def run_row(run: Run) -> Row:
    """The row of a run, without the columns that a run does not bring."""
    return {
        "run_id": run.run_id,
        "parent_run_id": run.parent_run_id,
        "kind": run.kind,
        "status": run.status,
        "strategy_name": run.strategy_name,
        "symbol": run.symbol,
        "timeframe": run.timeframe,
        "params_json": _canonical_json(run.params),
        "params_hash": params_hash(run.params),
        "data_hash": run.data_hash,
        "data_start": to_datetime(run.data_start_at),
        "data_end": to_datetime(run.data_end_at),
        "data_bars": int(run.data_bars),
        "git_hash": run.git_hash,
        "git_dirty": None if run.is_git_dirty is None else bool(run.is_git_dirty),
        "source_sha256": run.versions.get("strategy_source"),
        "git_diff_sha256": None if run.git_diff is None else _sha256(run.git_diff.encode()),
        "strategy_path": run.strategy_path,
        "snapshot_seq": run.snapshot_seq,
        "snapshot_patterns": run.snapshot_patterns,
        "snapshot_sha256": run.snapshot_sha256,
        "seed": int(run.seed),
        "versions_json": to_json(run.versions, "versions of the run"),
        "metrics_json": None if run.metrics is None else to_json(run.metrics, "metrics of the run"),
        "started_at": to_datetime(run.started_at),
        "finished_at": None if run.finished_at is None else to_datetime(run.finished_at),
        "error": run.error,
    }


def returns_row(run: Run) -> Row | None:
    """The row of a run's bar returns; None where it brings none."""
    if run.returns_frac is None:
        return None
    packed = np.asarray(run.returns_frac, "<f8").tobytes()
    return {
        "run_id": run.run_id,
        "first_bar": 1,
        "n_bars": len(run.returns_frac),
        "returns_f64": packed,
        "sha256": _sha256(packed),
    }


def decision_rows(run_id: str, decisions: Sequence[Decision], returns: Mapping[str, float | None]) -> list[Row]:
    """The rows of a run's decisions, with the real trade's return as a fraction where there is one."""
    return [
        {
            "run_id": run_id,
            "pattern_id": decision.pattern_id,
            "action": decision.action,
            "confidence": number(decision.confidence),
            "reason": decision.reason,
            "neighbours_json": to_json([_neighbour(near) for near in decision.neighbours], "neighbours of a decision"),
            "trade_return": number(returns.get(decision.pattern_id)),
            "threshold": number(decision.threshold),
            "model": decision.model,
            "contributions_json": to_ordered_json(dict(decision.contributions), "contributions of a decision")
            if decision.contributions
            else None,
            "base_rate": number(decision.base_rate),
            "n_known": int(decision.n_known),
            "confidence_low": number(decision.low),
            "confidence_high": number(decision.high),
            "bucket_json": None
            if decision.bucket is None
            else to_json(asdict(decision.bucket), "calibration bucket of a decision"),
            "risk_frac": number(decision.risk_frac),
        }
        for decision in decisions
    ]


def parsed_decision(row: sa.RowMapping) -> Decision:
    """A row of ``run_decisions`` as the decision it was."""
    near = [
        Neighbour(**found | {"r_multiple": math.nan if found["r_multiple"] is None else found["r_multiple"]})
        for found in orjson.loads(row["neighbours_json"])
    ]
    return Decision(
        row["pattern_id"],
        row["action"],
        row["reason"],
        confidence=row["confidence"],
        base_rate=row["base_rate"],
        threshold=row["threshold"],
        model=row["model"],
        n_known=row["n_known"] or 0,
        neighbours=tuple(near),
        contributions=tuple(orjson.loads(row["contributions_json"] or "{}").items()),
        low=row["confidence_low"],
        high=row["confidence_high"],
        bucket=Bucket(**orjson.loads(row["bucket_json"])) if row["bucket_json"] else None,
        risk_frac=row["risk_frac"],
    )


def parsed_run(row: sa.RowMapping) -> Row:
    """A row of ``experiments`` with its JSON read."""
    parsed = dict(row)
    for name in ("params", "versions", "metrics"):
        text = parsed.pop(f"{name}_json")
        parsed[name] = None if text is None else orjson.loads(str(text))
    return parsed


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def number(value: float | None) -> float | None:
    """A Python float, None where there is no value: a NaN is no value."""
    # + 0.0 takes the sign off a zero: SQLite keeps none, and a hash of the row would tell them apart.
    return None if value is None or math.isnan(value) else float(value) + 0.0


def to_json(value: object, what: str) -> str:
    """JSON text with sorted keys; a number that is not finite becomes null."""
    return _json(value, what, _NUMPY_SORTED)


def to_ordered_json(value: object, what: str) -> str:
    """JSON text with keys in the order given."""
    return _json(value, what, orjson.OPT_SERIALIZE_NUMPY)


def _json(value: object, what: str, option: int) -> str:
    try:
        return orjson.dumps(value, option=option).decode()
    except TypeError as error:
        raise DataError(
            f"the {what} cannot be written as JSON: {error}. Use numbers, text, booleans, None, lists and mappings "
            "with text keys."
        ) from error


def _canonical_json(params: Mapping[str, object]) -> str:
    """Sorted JSON in which inf, -inf, nan and None stay different from each other."""
    return to_json(_spelled_out(params), "params of the run")


def as_recorded(params: Mapping[str, object]) -> Row:
    """Parameters as a recorded run gives them back: numbers that JSON lacks are words."""
    recorded: Row = orjson.loads(_canonical_json(params))
    return recorded


def _spelled_out(value: object) -> object:
    """The value with numbers that JSON lacks written as words."""
    if isinstance(value, Mapping):
        return {key: _spelled_out(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_spelled_out(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _neighbour(near: Neighbour) -> Row:
    return {
        "pattern_id": near.pattern_id,
        "distance": number(near.distance),
        "resolved_at": int(near.resolved_at),
        "is_win": bool(near.is_win),
        "r_multiple": number(near.r_multiple),
    }
