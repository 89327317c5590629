"""What happened here and has not arrived at the control plane."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "event_spool",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("node", sa.String(255), nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("event_count", sa.BigInteger, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_event_spool"),
    )
    op.create_table(
        "spooled_events",
        sa.Column("epoch", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("sequence", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("dropped_count", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("epoch", "sequence", name="pk_spooled_events"),
    )
    op.create_table(
        "raised_alarms",
        sa.Column("code", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("code", name="pk_raised_alarms"),
    )
