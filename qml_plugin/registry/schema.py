"""The tables of the registry as they are at the latest revision.

DATETIME columns hold naive UTC. JSON columns are text: NaN is ``null``, never 0. Hashes are full SHA-256 in hex.
The frozen history lives in ``migrations``; a test keeps the two equal.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

REVISION = "0004"
VERSION_TABLE = "schema_migrations"
# Ids and times decide the order of the past, so ids must sort by their bytes, as SQLite sorts, whatever the language
# of a PostgreSQL server.
Id = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

ml_pattern_registry = sa.Table(
    "ml_pattern_registry",
    metadata,
    sa.Column("pattern_id", Id, primary_key=True),
    sa.Column("symbol", sa.Text, nullable=False),
    sa.Column("timeframe", sa.Text, nullable=False),
    sa.Column("detection_time", sa.DateTime, nullable=False),
    sa.Column("pattern_type", sa.Text, nullable=False),
    # {feature name: value or null}; the floats read back are the floats written, bit for bit. This is the truth.
    sa.Column("features_json", sa.Text, nullable=False),
    sa.Column("validity_score", sa.Float),
    sa.Column("ml_confidence", sa.Float),
    sa.Column("user_label", sa.Text),
    # Result of the real trade in percent: +2.5 is +2.5 %. run_decisions.trade_return is the same as a fraction.
    sa.Column("trade_outcome", sa.Float),
    sa.Column("paper_traded", sa.Boolean, server_default=sa.false()),
    sa.Column("live_traded", sa.Boolean, server_default=sa.false()),
    sa.Column("regime_at_detection", sa.Text),
    sa.Column("created_at", sa.DateTime, nullable=False),
    sa.Column("updated_at", sa.DateTime, nullable=False),
    sa.Column("strategy", sa.Text, nullable=False),
    sa.Column("side", sa.Integer, nullable=False),
    sa.Column("known_at", sa.DateTime, nullable=False),
    sa.Column("resolved_at", sa.DateTime),
    # Price of the fill; what the decision saw is "reference_px" in setup_json.
    sa.Column("entry_px", sa.Float),
    sa.Column("stop_px", sa.Float),
    sa.Column("target_px", sa.Float),
    sa.Column("barrier_outcome", sa.Text),
    sa.Column("r_multiple", sa.Float),
    sa.Column("exit_reason", sa.Text),
    sa.Column("label_rule", sa.Text, nullable=False),
    # Hash of the catalogue that features_json follows.
    sa.Column("feature_set", Id, nullable=False),
    sa.Column("setup_json", sa.Text),
    # features_json as little-endian float32 in the order of feature_sets, for speed. A trigger empties it when
    # features_json changes without it, and readers then take the JSON: the two cannot disagree.
    sa.Column("features_f32", sa.LargeBinary),
    # SHA-256 of every other column but the times of the row itself, and features_f32, which is compared with
    # features_json.
    sa.Column("row_sha256", sa.Text),
    # Number of the commit that made the result known: what a snapshot saw is what has no greater number.
    sa.Column("known_seq", sa.BigInteger),
    # Number of the commit that filled in ml_confidence: a snapshot from before it saw none.
    sa.Column("scored_seq", sa.BigInteger),
    sa.CheckConstraint("user_label IN ('win', 'loss', 'ignore')", name="user_label"),
    sa.CheckConstraint("side IN (-1, 1)", name="side"),
    sa.CheckConstraint("barrier_outcome IN ('win', 'loss')", name="barrier_outcome"),
    sa.CheckConstraint("exit_reason IN ('stop', 'target', 'time')", name="exit_reason"),
    sa.Index(None, "feature_set", "resolved_at", "pattern_id"),
    sa.Index(None, "known_seq"),
    sa.Index(None, "scored_seq"),
)

feature_sets = sa.Table(
    "feature_sets",
    metadata,
    sa.Column("feature_set", Id, primary_key=True),
    # {feature name: hash of its version, null where it is not known}, in the order of the columns.
    sa.Column("versions_json", sa.Text, nullable=False),
    sa.Column("created_at", sa.DateTime, nullable=False),
)

ml_model_versions = sa.Table(
    "ml_model_versions",
    metadata,
    sa.Column("model_id", Id, primary_key=True),
    sa.Column("trained_time", sa.DateTime, nullable=False),
    sa.Column("features_used", sa.Text, nullable=False),
    sa.Column("test_accuracy", sa.Float),
    sa.Column("model_path", sa.Text, nullable=False),
    sa.Column("active", sa.Boolean, server_default=sa.false()),
    sa.Column("notes", sa.Text),
    sa.Column("trained_through", sa.DateTime),
    sa.Column("sha256", sa.Text),
    sa.Column("metrics_json", sa.Text),
    sa.Column("strategy", sa.Text),
    sa.Column("timeframe", sa.Text),
    sa.Column("card_json", sa.Text),
    # One active model for each strategy and timeframe.
    sa.Index(
        None,
        "strategy",
        "timeframe",
        unique=True,
        sqlite_where=sa.text("active"),
        postgresql_where=sa.text("active"),
    ),
)

experiments = sa.Table(
    "experiments",
    metadata,
    sa.Column("run_id", Id, primary_key=True),
    # No foreign key: the cells of a sweep are saved before the sweep itself is.
    sa.Column("parent_run_id", Id),
    sa.Column("kind", sa.Text, nullable=False),
    # "running" from its start on; "finished", "failed" or "interrupted" with metrics_json and finished_at at its end.
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("strategy_name", sa.Text, nullable=False),
    sa.Column("symbol", sa.Text, nullable=False),
    sa.Column("timeframe", sa.Text, nullable=False),
    sa.Column("params_json", sa.Text, nullable=False),
    sa.Column("params_hash", sa.Text, nullable=False),
    sa.Column("data_hash", sa.Text, nullable=False),
    sa.Column("data_start", sa.DateTime, nullable=False),
    sa.Column("data_end", sa.DateTime, nullable=False),
    sa.Column("data_bars", sa.Integer, nullable=False),
    sa.Column("git_hash", sa.Text),
    sa.Column("git_dirty", sa.Boolean),
    sa.Column("seed", sa.BigInteger, nullable=False),
    sa.Column("versions_json", sa.Text, nullable=False),
    sa.Column("metrics_json", sa.Text),
    sa.Column("verdict", sa.Text),
    sa.Column("started_at", sa.DateTime, nullable=False),
    sa.Column("finished_at", sa.DateTime),
    sa.Column("error", sa.Text),
    # Hash of the strategy's source, and of what the working tree had changed since git_hash: see git_diffs.
    sa.Column("source_sha256", sa.Text),
    sa.Column("git_diff_sha256", sa.Text),
    # The known patterns it started from: see `Snapshot`.
    sa.Column("snapshot_seq", sa.BigInteger),
    sa.Column("snapshot_patterns", sa.Integer),
    sa.Column("snapshot_sha256", sa.Text),
    # Who runs it, so that the next run can tell a dead one: process_started tells a process from a later one that
    # got the same pid, and heartbeat_at a process on another host.
    sa.Column("host", sa.Text),
    sa.Column("pid", sa.Integer),
    sa.Column("process_started", sa.Text),
    sa.Column("heartbeat_at", sa.DateTime),
    # Where the strategy's class was: "package.module:Class", or "/path/to/file.py:Class" of a script.
    sa.Column("strategy_path", sa.Text),
    sa.Index(None, "finished_at", "run_id"),
    sa.Index(None, "status"),
    sa.Index(None, "strategy_name", "data_hash"),
    sa.Index(None, "parent_run_id"),
    sa.Index(None, "snapshot_seq"),
)

run_decisions = sa.Table(
    "run_decisions",
    metadata,
    sa.Column("run_id", Id, sa.ForeignKey("experiments.run_id"), primary_key=True),
    sa.Column("pattern_id", Id, sa.ForeignKey("ml_pattern_registry.pattern_id"), primary_key=True),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("confidence", sa.Float),
    sa.Column("reason", sa.Text, nullable=False),
    # [{"pattern_id", "distance", "resolved_at" in UTC microseconds, "is_win", "r_multiple"}], nearest first.
    sa.Column("neighbours_json", sa.Text, nullable=False),
    # Return of the real trade in this run, after costs, as a fraction: 0.025 is +2.5 %.
    sa.Column("trade_return", sa.Float),
    sa.Column("threshold", sa.Float),
    sa.Column("model", sa.Text),
    # {model input: contribution in log-odds}, largest first.
    sa.Column("contributions_json", sa.Text),
    sa.Column("base_rate", sa.Float),
    sa.Column("n_known", sa.Integer),
    # The 90 % interval of the confidence.
    sa.Column("confidence_low", sa.Float),
    sa.Column("confidence_high", sa.Float),
    # {"low", "high", "n", "win_frac"}: what had become of past entries of a like confidence.
    sa.Column("bucket_json", sa.Text),
    # Share of the equity to put at risk, where the position's size follows the confidence.
    sa.Column("risk_frac", sa.Float),
    sa.CheckConstraint("action IN ('take', 'skip', 'abstain')", name="action"),
)

run_returns = sa.Table(
    "run_returns",
    metadata,
    sa.Column("run_id", Id, sa.ForeignKey("experiments.run_id"), primary_key=True),
    # returns_f64 holds little-endian float64 fractions of the equity, one for each bar from first_bar on.
    sa.Column("first_bar", sa.Integer, nullable=False),
    sa.Column("n_bars", sa.Integer, nullable=False),
    sa.Column("returns_f64", sa.LargeBinary, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
)

git_diffs = sa.Table(
    "git_diffs",
    metadata,
    sa.Column("sha256", sa.Text, primary_key=True),
    sa.Column("diff", sa.Text, nullable=False),
)

bars = sa.Table(
    "bars",
    metadata,
    # experiments.data_hash of the runs that saw these bars.
    sa.Column("data_hash", sa.Text, primary_key=True),
    sa.Column("n_bars", sa.Integer, nullable=False),
    # Time zone of the stamps as the host was given them, NULL for stamps without one.
    sa.Column("tz", sa.Text),
    # Stamps and moments known as int64 UTC microseconds, then open, high, low, close and volume as float64: seven
    # little-endian columns one after the other, compressed.
    sa.Column("columns_zlib", sa.LargeBinary, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column("created_at", sa.DateTime, nullable=False),
)

# Not in the metadata: Alembic knows it as its own.
version_table = sa.Table(
    VERSION_TABLE,
    sa.MetaData(),
    sa.Column("version_num", sa.String(32), nullable=False),
    sa.PrimaryKeyConstraint("version_num", name=f"{VERSION_TABLE}_pkc"),
)

_TRIGGERS = (
    (
        "sqlite",
        """
        CREATE TRIGGER tr_ml_pattern_registry_features AFTER UPDATE OF features_json ON ml_pattern_registry
        WHEN NEW.features_json IS NOT OLD.features_json AND NEW.features_f32 IS OLD.features_f32
        BEGIN
          UPDATE ml_pattern_registry SET features_f32 = NULL WHERE pattern_id = NEW.pattern_id;
        END
        """,
    ),
    (
        "postgresql",
        """
        CREATE FUNCTION ml_pattern_registry_features() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          IF NEW.features_json IS DISTINCT FROM OLD.features_json
            AND NEW.features_f32 IS NOT DISTINCT FROM OLD.features_f32 THEN
            NEW.features_f32 := NULL;
          END IF;
          RETURN NEW;
        END
        $$
        """,
    ),
    (
        "postgresql",
        """
        CREATE TRIGGER tr_ml_pattern_registry_features BEFORE UPDATE OF features_json ON ml_pattern_registry
        FOR EACH ROW EXECUTE FUNCTION ml_pattern_registry_features()
        """,
    ),
)
for _dialect, _statement in _TRIGGERS:
    sa.event.listen(ml_pattern_registry, "after_create", sa.DDL(_statement).execute_if(dialect=_dialect))  # type: ignore[no-untyped-call]
