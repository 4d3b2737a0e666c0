"""What running a run again needs: its bars, the place of its strategy, each diff once; and PostgreSQL's order of ids."""

from __future__ import annotations

import hashlib

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_RUNS = sa.table(
    "experiments", sa.column("run_id", sa.Text), sa.column("status", sa.Text), sa.column("git_diff_sha256", sa.Text)
)
_DIFFS = sa.table("git_diffs", sa.column("sha256", sa.Text), sa.column("diff", sa.Text))
_IDS = {
    "ml_pattern_registry": ("pattern_id", "feature_set"),
    "feature_sets": ("feature_set",),
    "ml_model_versions": ("model_id",),
    "experiments": ("run_id", "parent_run_id"),
    "run_decisions": ("run_id", "pattern_id"),
    "run_returns": ("run_id",),
}


def upgrade() -> None:
    """Add the tables and columns, then move what is there."""
    if op.get_bind().dialect.name == "postgresql":
        _order_ids_by_bytes()
    op.add_column("ml_pattern_registry", sa.Column("scored_seq", sa.BigInteger()))
    op.create_index("ix_ml_pattern_registry_scored_seq", "ml_pattern_registry", ["scored_seq"])
    _extend_experiments()
    op.create_index("ix_experiments_snapshot_seq", "experiments", ["snapshot_seq"])
    _keep_each_diff_once()
    op.execute("UPDATE experiments SET status = 'finished' WHERE status = 'done'")
    op.create_table(
        "bars",
        sa.Column("data_hash", sa.Text(), nullable=False),
        sa.Column("n_bars", sa.Integer(), nullable=False),
        sa.Column("tz", sa.Text()),
        sa.Column("columns_zlib", sa.LargeBinary(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("data_hash", name="pk_bars"),
    )


def _extend_experiments() -> None:
    with op.batch_alter_table("experiments") as batch:
        batch.alter_column("git_diff", new_column_name="git_diff_sha256", existing_type=sa.Text())
        batch.add_column(sa.Column("strategy_path", sa.Text()))
    op.create_table(
        "git_diffs",
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("diff", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name="pk_git_diffs"),
    )


def _keep_each_diff_once() -> None:
    """What the column held was the diff itself."""
    connection = op.get_bind()
    run_ids = connection.scalars(sa.select(_RUNS.c.run_id).where(_RUNS.c.git_diff_sha256.is_not(None))).all()
    for run_id in run_ids:
        is_this = _RUNS.c.run_id == run_id
        diff = str(connection.scalar(sa.select(_RUNS.c.git_diff_sha256).where(is_this)))
        sha256 = hashlib.sha256(diff.encode()).hexdigest()
        if connection.scalar(sa.select(sa.literal(1)).where(_DIFFS.c.sha256 == sha256)) is None:
            connection.execute(sa.insert(_DIFFS).values(sha256=sha256, diff=diff))
        connection.execute(sa.update(_RUNS).where(is_this).values(git_diff_sha256=sha256))


def _order_ids_by_bytes() -> None:
    for table, columns in _IDS.items():
        for column in columns:
            op.execute(f'ALTER TABLE {table} ALTER COLUMN {column} TYPE TEXT COLLATE "C"')
