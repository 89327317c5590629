"""Accepted definitions of tools."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "tool_pins",
        sa.Column("source", sa.String(80), nullable=False),
        sa.Column("tool", sa.String(128), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("pinned_at_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("source", "tool", name="pk_tool_pins"),
    )
