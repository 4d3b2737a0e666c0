"""Compact features, row hashes, feature sets, and what the ledger of runs and models needs."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import numpy as np
import orjson
import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_ROWS_AT_ONCE = 500
_TEXTS = (
    "pattern_id", "symbol", "timeframe", "pattern_type", "user_label", "regime_at_detection", "strategy",
    "barrier_outcome", "exit_reason", "label_rule", "feature_set", "setup_json", "features_json", "row_sha256",
)  # fmt: skip
_FLOATS = (
    "validity_score", "ml_confidence", "trade_outcome", "entry_px", "stop_px", "target_px", "r_multiple",
)  # fmt: skip
_TIMES = ("detection_time", "created_at", "updated_at", "known_at", "resolved_at")
_PATTERNS = sa.table(
    "ml_pattern_registry",
    *(sa.column(name, sa.Text) for name in _TEXTS),
    *(sa.column(name, sa.Float) for name in _FLOATS),
    *(sa.column(name, sa.DateTime) for name in _TIMES),
    *(sa.column(name, sa.Boolean) for name in ("paper_traded", "live_traded")),
    sa.column("side", sa.Integer),
    sa.column("known_seq", sa.BigInteger),
    sa.column("features_f32", sa.LargeBinary),
)
_SETS = sa.table(
    "feature_sets",
    sa.column("feature_set", sa.Text),
    sa.column("versions_json", sa.Text),
    sa.column("created_at", sa.DateTime),
)
_RUNS = sa.table(
    "experiments",
    sa.column("run_id", sa.Text),
    sa.column("versions_json", sa.Text),
    sa.column("source_sha256", sa.Text),
)

_SQLITE_TRIGGER = """
CREATE TRIGGER tr_ml_pattern_registry_features AFTER UPDATE OF features_json ON ml_pattern_registry
WHEN NEW.features_json IS NOT OLD.features_json AND NEW.features_f32 IS OLD.features_f32
BEGIN
  UPDATE ml_pattern_registry SET features_f32 = NULL WHERE pattern_id = NEW.pattern_id;
END
"""
_POSTGRESQL_FUNCTION = """
CREATE FUNCTION ml_pattern_registry_features() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.features_json IS DISTINCT FROM OLD.features_json AND NEW.features_f32 IS NOT DISTINCT FROM OLD.features_f32 THEN
    NEW.features_f32 := NULL;
  END IF;
  RETURN NEW;
END
$$
"""
_POSTGRESQL_TRIGGER = """
CREATE TRIGGER tr_ml_pattern_registry_features BEFORE UPDATE OF features_json ON ml_pattern_registry
FOR EACH ROW EXECUTE FUNCTION ml_pattern_registry_features()
"""


def upgrade() -> None:
    """Add the columns and tables, then fill what follows from the rows that are there."""
    _extend_patterns()
    _extend_models()
    _extend_experiments()
    _extend_decisions()
    _fill_patterns()
    _fill_experiments()
    _create_trigger()


def _extend_patterns() -> None:
    for column in (
        sa.Column("features_f32", sa.LargeBinary()),
        sa.Column("row_sha256", sa.Text()),
        sa.Column("known_seq", sa.BigInteger()),
    ):
        op.add_column("ml_pattern_registry", column)
    op.create_index("ix_ml_pattern_registry_known_seq", "ml_pattern_registry", ["known_seq"])
    op.create_table(
        "feature_sets",
        sa.Column("feature_set", sa.Text(), nullable=False),
        sa.Column("versions_json", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("feature_set", name="pk_feature_sets"),
    )


def _extend_models() -> None:
    for name in ("strategy", "timeframe", "card_json"):
        op.add_column("ml_model_versions", sa.Column(name, sa.Text()))
    op.create_index(
        "ix_ml_model_versions_strategy_timeframe",
        "ml_model_versions",
        ["strategy", "timeframe"],
        unique=True,
        sqlite_where=sa.text("active"),
        postgresql_where=sa.text("active"),
    )


def _extend_experiments() -> None:
    with op.batch_alter_table("experiments") as batch:
        batch.alter_column("metrics_json", existing_type=sa.Text(), nullable=True)
        batch.alter_column("finished_at", existing_type=sa.DateTime(), nullable=True)
        for column in (
            sa.Column("source_sha256", sa.Text()),
            sa.Column("git_diff", sa.Text()),
            sa.Column("snapshot_seq", sa.BigInteger()),
            sa.Column("snapshot_patterns", sa.Integer()),
            sa.Column("snapshot_sha256", sa.Text()),
            sa.Column("host", sa.Text()),
            sa.Column("pid", sa.Integer()),
            sa.Column("process_started", sa.Text()),
            sa.Column("heartbeat_at", sa.DateTime()),
        ):
            batch.add_column(column)
    op.create_index("ix_experiments_status", "experiments", ["status"])
    op.create_index("ix_experiments_strategy_name_data_hash", "experiments", ["strategy_name", "data_hash"])
    op.create_index("ix_experiments_parent_run_id", "experiments", ["parent_run_id"])
    op.create_table(
        "run_returns",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("first_bar", sa.Integer(), nullable=False),
        sa.Column("n_bars", sa.Integer(), nullable=False),
        sa.Column("returns_f64", sa.LargeBinary(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", name="pk_run_returns"),
        sa.ForeignKeyConstraint(["run_id"], ["experiments.run_id"], name="fk_run_returns_run_id"),
    )


def _extend_decisions() -> None:
    for column in (
        sa.Column("threshold", sa.Float()),
        sa.Column("model", sa.Text()),
        sa.Column("contributions_json", sa.Text()),
        sa.Column("base_rate", sa.Float()),
        sa.Column("n_known", sa.Integer()),
    ):
        op.add_column("run_decisions", column)


def _create_trigger() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute(_POSTGRESQL_FUNCTION)
        op.execute(_POSTGRESQL_TRIGGER)
    else:
        op.execute(_SQLITE_TRIGGER)


def _fill_patterns() -> None:
    """Compact copies, hashes and sequence numbers of the patterns, and the order of each feature set."""
    connection = op.get_bind()
    now = datetime.now(UTC).replace(tzinfo=None)
    names: dict[str, list[str]] = {}
    last = ""
    while rows := connection.execute(
        sa.select(_PATTERNS)
        .where(_PATTERNS.c.pattern_id > last)
        .order_by(_PATTERNS.c.pattern_id)
        .limit(_ROWS_AT_ONCE)
    ).mappings().all():  # fmt: skip
        filled = [_filled(dict(row), names) for row in rows]
        connection.execute(
            sa.update(_PATTERNS)
            .where(_PATTERNS.c.pattern_id == sa.bindparam("id"))
            .values({name: sa.bindparam(f"new_{name}") for name in ("features_f32", "known_seq", "row_sha256")}),
            filled,
        )
        last = rows[-1]["pattern_id"]
    for feature_set, found in names.items():
        versions = orjson.dumps(dict.fromkeys(found)).decode()
        connection.execute(
            sa.insert(_SETS).values(feature_set=feature_set, versions_json=versions, created_at=now)
        )  # fmt: skip


def _filled(row: dict[str, Any], names: dict[str, list[str]]) -> dict[str, Any]:
    """What is new of a row; a row whose features are not those of its set gets no compact copy."""
    values = _values(row["features_json"])
    copy = None
    if values is not None:
        order = names.setdefault(row["feature_set"], list(values))
        if list(values) == order:
            vector = np.array(list(values.values()), np.float64)
            copy = vector.astype("<f4").tobytes()
    label = row["user_label"]
    is_known = row["resolved_at"] is not None and (
        label in ("win", "loss") or (label is None and row["barrier_outcome"] is not None)
    )
    row["known_seq"] = 1 if is_known else None
    return {
        "id": row["pattern_id"],
        "new_features_f32": copy,
        "new_known_seq": row["known_seq"],
        "new_row_sha256": _row_sha256(row),
    }


def _values(features_json: str) -> dict[str, float | None] | None:
    """Features by name, None where they are not an object of numbers within the range of float32."""
    try:
        values = orjson.loads(features_json)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(values, dict) or {type(value) for value in values.values()} - {float, int, type(None)}:
        return None
    largest = float(np.finfo(np.float32).max)
    return None if any(abs(value) > largest for value in values.values() if value is not None) else values


def _row_sha256(row: dict[str, Any]) -> str:
    """The hash of a row as this revision defines it."""
    apart = ("features_json", "features_f32", "row_sha256", "created_at", "updated_at")
    others = {str(name): value for name, value in row.items() if value is not None and name not in apart}
    text = orjson.dumps(others, option=orjson.OPT_SORT_KEYS) + b"\n" + row["features_json"].encode()
    return hashlib.sha256(text).hexdigest()


def _fill_experiments() -> None:
    """The hash of the strategy's source, which 0001 kept among the versions."""
    connection = op.get_bind()
    for run_id, versions_json in connection.execute(sa.select(_RUNS.c.run_id, _RUNS.c.versions_json)).all():
        try:
            source = orjson.loads(versions_json).get("strategy_source")
        except (orjson.JSONDecodeError, AttributeError):
            continue
        if source is not None:
            connection.execute(sa.update(_RUNS).where(_RUNS.c.run_id == run_id).values(source_sha256=str(source)))
