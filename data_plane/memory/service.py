"""Knowledge bases: folders of the site, made searchable. See data_plane.memory.interfaces."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from data_plane.memory import errors
from data_plane.memory.chunking import chunks
from data_plane.memory.interfaces import IngestReport, Passage
from data_plane.memory.readers import FolderContents, read_folder
from data_plane.memory.rows import DocumentRows, Piece, vector_id
from data_plane.memory.vector_index import Hit, Vector, VectorIndex
from data_plane.models.interfaces import Embedder
from data_plane.storage.sealer import Sealer
from faos.resource.v1.resource_pb2 import KnowledgeBase
from faos_core import names
from faos_core.errors import NotFoundError, SetupError
from faos_core.store import Store

log = logging.getLogger(__name__)

DEFAULT_CHUNK_CHARACTERS = 600
EMBED_TEXTS = 32


@dataclass(frozen=True, slots=True)
class Change:
    """A document that is new, or has another text than the stored one."""

    path: str
    text: str
    content_index: bytes
    replaces: str | None  # id of the stored one


@dataclass(frozen=True, slots=True)
class Plan:
    """What makes the store agree with a folder."""

    changed: tuple[Change, ...]
    gone: tuple[str, ...]  # ids of documents


class KnowledgeService:
    """All knowledge bases of a node, as a supervised service: ready when every stored vector can be searched.

    Until Chroma holds them, search is exact over memory. One ingest or removal at a time; searches go on meanwhile,
    and see each document whole: as it was, or as it is.
    """

    name = "knowledge"

    def __init__(self, store: Store, sealer: Sealer, embedder: Embedder) -> None:
        self.ready = asyncio.Event()
        self._store = store
        self._embedder = embedder
        self._rows = DocumentRows(sealer, embedder=embedder.digest)
        self._index = VectorIndex()
        self._changing = asyncio.Lock()

    async def run(self) -> None:
        """See Service."""
        try:
            async with self._changing:
                for base in await self._store.read(self._rows.bases):
                    await self._load(base)
            self.ready.set()
            await self._index.settle()
            await asyncio.Event().wait()
        finally:
            self.ready.clear()
            await asyncio.shield(self._index.aclose())

    async def ingest(self, name: str, spec: KnowledgeBase, folder: Path) -> IngestReport:
        """See KnowledgeBases. Cancel-safe: each document is stored whole or not at all."""
        contents = await read(name, folder)
        chunk_characters = spec.chunk_characters or DEFAULT_CHUNK_CHARACTERS
        async with self._changing:
            self._index.open(name)
            plan = await self._store.read(lambda c: self._plan(c, name, contents.documents, chunk_characters))
            await self._forget(name, plan.gone)
            embedded = 0
            for change in plan.changed:
                embedded += await self._put(name, change, chunk_characters)
            await self._index.settle()
        counts = [len(cut(text, chunk_characters)) for text in contents.documents.values()]
        log.info("knowledge.ingested", extra={names.RESOURCE: name, names.SIZE: sum(counts)})
        return IngestReport(len(counts), sum(counts), embedded, contents.skipped)

    async def search(self, names: Sequence[str], query: str, *, top_k: int) -> list[Passage]:
        """See KnowledgeBases."""
        for name in names:
            if name not in self._index:
                raise NotFoundError(errors.NEVER_INGESTED, name=name)
        if not names or top_k < 1:
            return []
        vector = (await self._embedder.embed([query]))[0]
        hits = [(name, hit) for name in names for hit in await self._index.search(name, vector, top_k=top_k)]
        hits.sort(key=lambda found: -found[1].score)
        return await self._store.read(lambda connection: self._passages(connection, hits[:top_k]))

    async def remove(self, name: str) -> None:
        """See KnowledgeBases."""
        async with self._changing:
            known = await self._store.read(lambda connection: self._rows.known(connection, name))
            await self._index.drop(name)
            await self._store.write(lambda c: self._delete(c, [document.id for document in known.values()]))

    async def _load(self, base: str) -> None:
        """Bring the stored vectors into memory."""
        self._index.open(base)
        self._index.stage(base, await self._store.read(lambda c: dict(self._rows.vectors(c, base))))

    def _plan(self, connection: sa.Connection, base: str, texts: Mapping[str, str], chunk_characters: int) -> Plan:
        known = self._rows.known(connection, base)
        changed = []
        for path, text in texts.items():
            stored = known.pop(self._rows.path_index(base, path), None)
            content = self._rows.content_index(text, chunk_characters=chunk_characters)
            if stored is None or stored.content_index != content:
                changed.append(Change(path, text, content, stored.id if stored else None))
        return Plan(tuple(changed), tuple(document.id for document in known.values()))

    async def _forget(self, base: str, document_ids: Sequence[str]) -> None:
        removed = await self._store.write(lambda connection: self._delete(connection, document_ids))
        self._index.discard(base, removed)

    def _delete(self, connection: sa.Connection, document_ids: Sequence[str]) -> list[str]:
        return [vector for document_id in document_ids for vector in self._rows.delete(connection, document_id)]

    async def _put(self, base: str, change: Change, chunk_characters: int) -> int:
        """Store and index one document in place of the one that it replaces; how many pieces had to be embedded."""
        texts = cut(change.text, chunk_characters)
        stored = await self._store.read(lambda c: {text: self._rows.stored_vector(c, text) for text in texts})
        vectors = {text: vector for text, vector in stored.items() if vector is not None}
        missing = [text for text in stored if text not in vectors]
        vectors |= await self._embed(missing)
        pieces = [Piece(text, vectors[text]) for text in texts]
        await self._replace(base, change, pieces)
        return len(missing)

    async def _replace(self, base: str, change: Change, pieces: Sequence[Piece]) -> None:
        """One transaction; then the index follows without a gap."""

        def write(connection: sa.Connection) -> tuple[list[str], str]:
            removed = self._rows.delete(connection, change.replaces) if change.replaces else []
            return removed, self._rows.insert(connection, base, change.path, change.content_index, pieces)

        removed, document_id = await self._store.write(write)
        self._index.discard(base, removed)
        self._index.stage(base, {vector_id(document_id, n): piece.vector for n, piece in enumerate(pieces)})

    async def _embed(self, texts: Sequence[str]) -> dict[str, Vector]:
        vectors: dict[str, Vector] = {}
        for start in range(0, len(texts), EMBED_TEXTS):
            batch = texts[start : start + EMBED_TEXTS]
            vectors |= dict(zip(batch, await self._embedder.embed(batch), strict=True))
        return vectors

    def _passages(self, connection: sa.Connection, hits: Sequence[tuple[str, Hit]]) -> list[Passage]:
        passages = []
        for base, hit in hits:
            if found := self._rows.find(connection, hit.id):
                passages.append(Passage(base, found.document, found.chunk, found.text, hit.score))
        return passages


def cut(text: str, chunk_characters: int) -> list[str]:
    """The pieces that are worth embedding, without the blanks around them."""
    return [piece.strip() for piece in chunks(text, chunk_characters) if piece.strip()]


async def read(name: str, folder: Path) -> FolderContents:
    """Raises SetupError when the folder cannot be read."""
    try:
        return await asyncio.to_thread(read_folder, folder)
    except OSError as error:
        raise SetupError(errors.FOLDER_UNREADABLE, name=name, folder=folder, reason=error.strerror) from error
