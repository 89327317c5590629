"""Certificate life: renewed and recovery certificates, a node's standing, and what a person should look at.

Only adds, with defaults: the release before writes into these tables as it did.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for column in (
        sa.Column("pending_serial", sa.String(length=40), nullable=True),
        sa.Column("pending_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("pending_key_sha256", sa.LargeBinary(), nullable=True),
        sa.Column("recovery_serial", sa.String(length=40), nullable=True),
        sa.Column("recovery_key_sha256", sa.LargeBinary(), nullable=True),
        sa.Column("recovery_counter", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("standing", sa.Integer(), nullable=False, server_default="1"),
        sa.Column("standing_reason", sa.String(length=255), nullable=False, server_default=""),
        sa.Column("alarm", sa.String(length=63), nullable=False, server_default=""),
    ):
        op.add_column("nodes", column)


def downgrade() -> None:
    raise NotImplementedError("schemas go forward only: restore the backup from before the upgrade")
