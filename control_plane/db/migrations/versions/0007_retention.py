"""Answers by age, for their retention.

Only adds: the release before keeps all of them, as it did.
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(op.f("ix_requests_tenant_at"), "requests", ["tenant", "at"], unique=False)


def downgrade() -> None:
    raise NotImplementedError("schemas go forward only: restore the backup from before the upgrade")
