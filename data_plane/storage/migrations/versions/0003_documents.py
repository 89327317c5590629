"""Documents and their pieces: the memory of knowledge bases."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "documents",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("knowledge_base", sa.String(63), nullable=False),
        sa.Column("path_index", sa.LargeBinary(32), nullable=False),
        sa.Column("content_index", sa.LargeBinary(32), nullable=False),
        sa.Column("subject_index", sa.LargeBinary(32)),
        sa.Column("path", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_documents"),
        sa.UniqueConstraint("knowledge_base", "path_index", name="uq_documents_knowledge_base_path_index"),
    )
    op.create_table(
        "chunks",
        sa.Column("document_id", sa.String(64), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("text_index", sa.LargeBinary(32), nullable=False),
        sa.Column("embedder", sa.String(64), nullable=False),
        sa.Column("subject_index", sa.LargeBinary(32)),
        sa.Column("text", sa.LargeBinary, nullable=False),
        sa.Column("vector", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("document_id", "number", name="pk_chunks"),
        sa.ForeignKeyConstraint(["document_id"], ["documents.id"], name="fk_chunks_document_id"),
    )
    op.create_index("ix_chunks_text_index", "chunks", ["text_index"])
