"""What happened at nodes, and up to where it has arrived.

Only adds, with defaults: the release before writes into these tables as it did.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("event_epoch", "event_sequence", "event_count", "lost_event_count"):
        op.add_column("nodes", sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
    op.create_table(
        "node_events",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("node", sa.String(length=63), nullable=False),
        sa.Column("epoch", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("received_at_us", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant", "node"], ["nodes.tenant", "nodes.name"], name=op.f("fk_node_events_tenant_node")
        ),
        sa.PrimaryKeyConstraint("tenant", "node", "epoch", "sequence", name=op.f("pk_node_events")),
    )
    op.create_index(op.f("ix_node_events_tenant_received_at_us"), "node_events", ["tenant", "received_at_us"])


def downgrade() -> None:
    raise NotImplementedError("schemas go forward only: restore the backup from before the upgrade")
