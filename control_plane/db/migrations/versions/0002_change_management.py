"""Change management: why a revision was made, what it rolled back to, and which set a resource belongs to.

Only adds, and what it adds may be left out: the release before writes into these tables as it did.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("revisions", sa.Column("reason", sa.String(length=1000), nullable=True))
    op.add_column("revisions", sa.Column("rollback_of", sa.BigInteger(), nullable=True))
    op.create_table(
        "apply_set_members",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("kind", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("apply_set", sa.String(length=63), nullable=False),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.name"], name=op.f("fk_apply_set_members_tenant")),
        sa.PrimaryKeyConstraint("tenant", "kind", "name", name=op.f("pk_apply_set_members")),
    )
