"""The trace that a revision was made in.

Only adds, without a default: the release before writes into this table as it did.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("revisions", sa.Column("traceparent", sa.String(length=55)))


def downgrade() -> None:
    raise NotImplementedError("schemas go forward only: restore the backup from before the upgrade")
