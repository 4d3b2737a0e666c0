"""The first tables: patterns, models, experiments and decisions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the four tables and their indexes."""
    _create_patterns()
    _create_models()
    _create_experiments()
    _create_decisions()


def _create_patterns() -> None:
    op.create_table(
        "ml_pattern_registry",
        sa.Column("pattern_id", sa.Text(), nullable=False),
        sa.Column("symbol", sa.Text(), nullable=False),
        sa.Column("timeframe", sa.Text(), nullable=False),
        sa.Column("detection_time", sa.DateTime(), nullable=False),
        sa.Column("pattern_type", sa.Text(), nullable=False),
        sa.Column("features_json", sa.Text(), nullable=False),
        sa.Column("validity_score", sa.Float()),
        sa.Column("ml_confidence", sa.Float()),
        sa.Column("user_label", sa.Text()),
        sa.Column("trade_outcome", sa.Float()),
        sa.Column("paper_traded", sa.Boolean(), server_default=sa.false()),
        sa.Column("live_traded", sa.Boolean(), server_default=sa.false()),
        sa.Column("regime_at_detection", sa.Text()),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("updated_at", sa.DateTime(), nullable=False),
        sa.Column("strategy", sa.Text(), nullable=False),
        sa.Column("side", sa.Integer(), nullable=False),
        sa.Column("known_at", sa.DateTime(), nullable=False),
        sa.Column("resolved_at", sa.DateTime()),
        sa.Column("entry_px", sa.Float()),
        sa.Column("stop_px", sa.Float()),
        sa.Column("target_px", sa.Float()),
        sa.Column("barrier_outcome", sa.Text()),
        sa.Column("r_multiple", sa.Float()),
        sa.Column("exit_reason", sa.Text()),
        sa.Column("label_rule", sa.Text(), nullable=False),
        sa.Column("feature_set", sa.Text(), nullable=False),
        sa.Column("setup_json", sa.Text()),
        sa.PrimaryKeyConstraint("pattern_id", name="pk_ml_pattern_registry"),
        sa.CheckConstraint("user_label IN ('win', 'loss', 'ignore')", name=op.f("ck_ml_pattern_registry_user_label")),
        sa.CheckConstraint("side IN (-1, 1)", name=op.f("ck_ml_pattern_registry_side")),
        sa.CheckConstraint("barrier_outcome IN ('win', 'loss')", name=op.f("ck_ml_pattern_registry_barrier_outcome")),
        sa.CheckConstraint(
            "exit_reason IN ('stop', 'target', 'time')", name=op.f("ck_ml_pattern_registry_exit_reason")
        ),
    )
    op.create_index(
        "ix_ml_pattern_registry_feature_set_resolved_at_pattern_id",
        "ml_pattern_registry",
        ["feature_set", "resolved_at", "pattern_id"],
    )


def _create_models() -> None:
    op.create_table(
        "ml_model_versions",
        sa.Column("model_id", sa.Text(), nullable=False),
        sa.Column("trained_time", sa.DateTime(), nullable=False),
        sa.Column("features_used", sa.Text(), nullable=False),
        sa.Column("test_accuracy", sa.Float()),
        sa.Column("model_path", sa.Text(), nullable=False),
        sa.Column("active", sa.Boolean(), server_default=sa.false()),
        sa.Column("notes", sa.Text()),
        sa.Column("trained_through", sa.DateTime()),
        sa.Column("sha256", sa.Text()),
        sa.Column("metrics_json", sa.Text()),
        sa.PrimaryKeyConstraint("model_id", name="pk_ml_model_versions"),
    )


def _create_experiments() -> None:
    op.create_table(
        "experiments",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("parent_run_id", sa.Text()),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("strategy_name", sa.Text(), nullable=False),
        sa.Column("symbol", sa.Text(), nullable=False),
        sa.Column("timeframe", sa.Text(), nullable=False),
        sa.Column("params_json", sa.Text(), nullable=False),
        sa.Column("params_hash", sa.Text(), nullable=False),
        sa.Column("data_hash", sa.Text(), nullable=False),
        sa.Column("data_start", sa.DateTime(), nullable=False),
        sa.Column("data_end", sa.DateTime(), nullable=False),
        sa.Column("data_bars", sa.Integer(), nullable=False),
        sa.Column("git_hash", sa.Text()),
        sa.Column("git_dirty", sa.Boolean()),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("versions_json", sa.Text(), nullable=False),
        sa.Column("metrics_json", sa.Text(), nullable=False),
        sa.Column("verdict", sa.Text()),
        sa.Column("started_at", sa.DateTime(), nullable=False),
        sa.Column("finished_at", sa.DateTime(), nullable=False),
        sa.Column("error", sa.Text()),
        sa.PrimaryKeyConstraint("run_id", name="pk_experiments"),
    )
    op.create_index("ix_experiments_finished_at_run_id", "experiments", ["finished_at", "run_id"])


def _create_decisions() -> None:
    op.create_table(
        "run_decisions",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("pattern_id", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("confidence", sa.Float()),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("neighbours_json", sa.Text(), nullable=False),
        sa.Column("trade_return", sa.Float()),
        sa.PrimaryKeyConstraint("run_id", "pattern_id", name="pk_run_decisions"),
        sa.ForeignKeyConstraint(["run_id"], ["experiments.run_id"], name="fk_run_decisions_run_id"),
        sa.ForeignKeyConstraint(["pattern_id"], ["ml_pattern_registry.pattern_id"], name="fk_run_decisions_pattern_id"),
        sa.CheckConstraint("action IN ('take', 'skip', 'abstain')", name=op.f("ck_run_decisions_action")),
    )
