"""Documents and pieces as rows: what is written and read inside one transaction."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa

from data_plane.memory.models import chunks, documents
from data_plane.memory.vector_index import Vector
from data_plane.storage.sealer import Sealer
from faos_core.ids import new_id

VECTOR_TYPE = np.dtype("<f4")


@dataclass(frozen=True, slots=True)
class Piece:
    """One chunk with its vector."""

    text: str
    vector: Vector


@dataclass(frozen=True, slots=True)
class Known:
    """A stored document, without what is sealed."""

    id: str
    content_index: bytes


@dataclass(frozen=True, slots=True)
class Found:
    """A stored piece, opened."""

    document: str  # path
    chunk: int
    text: str


class DocumentRows:
    """For use inside `store.write` and `store.read`, as the Sealer is."""

    def __init__(self, sealer: Sealer, *, embedder: str) -> None:
        """embedder: digest of the model; stored vectors of another are as good as none."""
        self._sealer = sealer
        self._embedder = embedder

    def path_index(self, base: str, path: str) -> bytes:
        return self._sealer.blind_index(documents.c.path_index, f"{base}\0{path}")

    def content_index(self, text: str, *, chunk_characters: int) -> bytes:
        """Equal when the document would be cut and embedded as it was."""
        return self._sealer.blind_index(documents.c.content_index, f"{self._embedder}\0{chunk_characters}\0{text}")

    def bases(self, connection: sa.Connection) -> list[str]:
        return list(connection.scalars(sa.select(documents.c.knowledge_base).distinct()))

    def known(self, connection: sa.Connection, base: str) -> dict[bytes, Known]:
        """Documents of the base by path index."""
        selected = sa.select(documents).where(documents.c.knowledge_base == base)
        return {row.path_index: Known(row.id, row.content_index) for row in connection.execute(selected)}

    def stored_vector(self, connection: sa.Connection, text: str) -> Vector | None:
        """The vector of a piece with this very text, in whatever document."""
        same = sa.select(chunks).where(chunks.c.text_index == self._text_index(text)).limit(1)
        row = connection.execute(same).first()
        return self._open_vector(connection, row) if row else None

    def insert(self, connection: sa.Connection, base: str, path: str, content: bytes, pieces: Sequence[Piece]) -> str:
        """A new document; its id."""
        document_id = new_id("doc")
        sealed_path = self._sealer.seal(connection, documents.c.path, document_id, path.encode())
        row = {"id": document_id, "knowledge_base": base, "path_index": self.path_index(base, path)}
        connection.execute(documents.insert(), row | {"content_index": content, "path": sealed_path})
        for number, piece in enumerate(pieces):
            connection.execute(chunks.insert(), self._chunk_row(connection, document_id, number, piece))
        return document_id

    def delete(self, connection: sa.Connection, document_id: str) -> list[str]:
        """The vector ids of what is no more."""
        numbers = connection.scalars(sa.select(chunks.c.number).where(chunks.c.document_id == document_id)).all()
        connection.execute(chunks.delete().where(chunks.c.document_id == document_id))
        connection.execute(documents.delete().where(documents.c.id == document_id))
        return [vector_id(document_id, number) for number in numbers]

    def vectors(self, connection: sa.Connection, base: str) -> Iterator[tuple[str, Vector]]:
        """Vector id and vector of every piece of the base that this embedder made."""
        joined = sa.select(chunks).join(documents, documents.c.id == chunks.c.document_id)
        selected = joined.where(documents.c.knowledge_base == base, chunks.c.embedder == self._embedder)
        for row in connection.execute(selected):
            yield vector_id(row.document_id, row.number), self._open_vector(connection, row)

    def find(self, connection: sa.Connection, wanted: str) -> Found | None:
        """The piece of a vector id; None when it is gone."""
        document_id, number = wanted.rsplit("/", 1)
        joined = sa.select(chunks.c.text, documents.c.path).join(documents, documents.c.id == chunks.c.document_id)
        row = connection.execute(
            joined.where(chunks.c.document_id == document_id, chunks.c.number == int(number))
        ).first()
        if row is None:
            return None
        text = self._sealer.unseal(connection, chunks.c.text, wanted, row.text).decode()
        path = self._sealer.unseal(connection, documents.c.path, document_id, row.path).decode()
        return Found(path, int(number), text)

    def _chunk_row(self, connection: sa.Connection, document_id: str, number: int, piece: Piece) -> dict[str, object]:
        row = vector_id(document_id, number)
        vector = np.asarray(piece.vector, VECTOR_TYPE).tobytes()
        return {
            "document_id": document_id,
            "number": number,
            "text_index": self._text_index(piece.text),
            "embedder": self._embedder,
            "text": self._sealer.seal(connection, chunks.c.text, row, piece.text.encode()),
            "vector": self._sealer.seal(connection, chunks.c.vector, row, vector),
        }

    def _text_index(self, text: str) -> bytes:
        return self._sealer.blind_index(chunks.c.text_index, f"{self._embedder}\0{text}")

    def _open_vector(self, connection: sa.Connection, row: sa.Row[tuple[object, ...]]) -> Vector:
        place = vector_id(row.document_id, row.number)
        plain = self._sealer.unseal(connection, chunks.c.vector, place, row.vector)
        return np.frombuffer(plain, VECTOR_TYPE).astype(np.float32)


def vector_id(document_id: str, number: int) -> str:
    """Also the row's key, as sealing wants it."""
    return f"{document_id}/{number}"
