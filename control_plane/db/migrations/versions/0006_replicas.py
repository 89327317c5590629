"""Which control plane holds a node's session.

Only adds, with a default: the release before writes into this table as it did.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("nodes", sa.Column("connected_to", sa.String(length=32), nullable=False, server_default=""))


def downgrade() -> None:
    raise NotImplementedError("schemas go forward only: restore the backup from before the upgrade")
