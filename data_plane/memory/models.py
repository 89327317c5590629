"""Tables of documents and their pieces. Paths, text and vectors are sealed; a vector tells much of its text."""

import sqlalchemy as sa

from data_plane.storage.erasure import SubjectRows, register
from data_plane.storage.metadata import metadata
from data_plane.storage.sealed import Sealed

documents = sa.Table(
    "documents",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("knowledge_base", sa.String(63), nullable=False),
    sa.Column("path_index", sa.LargeBinary(32), nullable=False),  # blind index of base and path
    sa.Column("content_index", sa.LargeBinary(32), nullable=False),  # of the text, and of how it was cut and embedded
    sa.Column("subject_index", sa.LargeBinary(32)),  # none: documents are the tenant's own
    sa.Column("path", Sealed, nullable=False),
    sa.UniqueConstraint("knowledge_base", "path_index"),
)

chunks = sa.Table(
    "chunks",
    metadata,
    sa.Column("document_id", sa.String(64), sa.ForeignKey("documents.id"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),  # from 0
    sa.Column("text_index", sa.LargeBinary(32), nullable=False),  # blind index of text and embedder
    sa.Column("embedder", sa.String(64), nullable=False),  # digest of the model that made the vector
    sa.Column("subject_index", sa.LargeBinary(32)),
    sa.Column("text", Sealed, nullable=False),
    sa.Column("vector", Sealed, nullable=False),  # little-endian float32
    sa.Index("ix_chunks_text_index", "text_index"),
)

register(SubjectRows("memory.documents", (chunks, documents)))
