"""How long a run had been under way when each of its steps was begun."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("steps", sa.Column("elapsed_ms", sa.BigInteger, nullable=False, server_default="0"))
