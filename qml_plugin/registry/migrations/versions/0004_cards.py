"""What a card of a decision shows beside the confidence: its interval, its calibration bucket, the risk it was given."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; earlier decisions kept no such figures and stay without."""
    for name, kind in (
        ("confidence_low", sa.Float()),
        ("confidence_high", sa.Float()),
        ("bucket_json", sa.Text()),
        ("risk_frac", sa.Float()),
    ):
        op.add_column("run_decisions", sa.Column(name, kind))
