"""The vector index: Chroma in memory, and exact search over what it does not hold yet.

A base of few vectors is searched exactly for good: that is faster than Chroma's search, and a node with no larger one
does without Chroma, which takes a second of processor time to import and 25 MB. The one module that knows Chroma.
Vectors are always given (Chroma would download a model to make them), telemetry is off, and nothing is on disk.
"""

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faos_core.late_imports import IMPORTING

Vector = NDArray[np.float32]

EXACT_VECTORS = 256  # a base of no more is not worth an index: all of them are compared in less time
BATCH_VECTORS = 256
CONNECTING = Lock()  # a first client makes what all of the process share; another one meanwhile finds half of it
HNSW = {"space": "cosine", "ef_construction": 200, "max_neighbors": 32, "ef_search": 256}


@dataclass(frozen=True, slots=True)
class Hit:
    id: str
    score: float  # cosine similarity, -1 to 1


@dataclass(slots=True)
class Base:
    """One named set of vectors. An id is in `waiting` or in the collection; in both, `waiting` counts."""

    collection: Any = None  # Chroma's, of a base that has grown beyond EXACT_VECTORS
    waiting: dict[str, Vector] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)  # not taken out of the collection yet

    @property
    def is_behind(self) -> bool:
        """Whether the collection lacks something; small bases have none."""
        if self.collection is None:
            return len(self.waiting) > EXACT_VECTORS
        return bool(self.waiting or self.removed)


class VectorIndex:
    """Vectors under names. What `stage` and `discard` were given counts for the next search at once; `settle` moves
    it into Chroma where there is enough of it. Every method is for the event loop's thread; Chroma has its own.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="chroma")
        self._client: Any = None
        self._made: set[str] = set()  # bases with a collection; both are Chroma's thread's
        self._bases: dict[str, Base] = {}
        self._prefix = uuid.uuid4().hex  # Chroma shares one memory among all clients of a process

    def open(self, name: str) -> None:
        """Make the base, empty. Idempotent."""
        self._bases.setdefault(name, Base())

    def __contains__(self, name: str) -> bool:
        return name in self._bases

    def stage(self, name: str, vectors: Mapping[str, Vector]) -> None:
        """Add or replace, by id. Rows of unit length."""
        base = self._bases[name]
        base.waiting.update(vectors)
        base.removed.difference_update(vectors)

    def discard(self, name: str, ids: Sequence[str]) -> None:
        """Ids that are not there are passed over."""
        base = self._bases[name]
        for vector_id in ids:
            base.waiting.pop(vector_id, None)
        if base.collection is not None:
            base.removed.update(ids)

    async def settle(self) -> None:
        """Until nothing need wait: move what was staged and discarded into Chroma, a batch at a time. Cancel-safe."""
        for name, base in tuple(self._bases.items()):
            while self._bases.get(name) is base and base.is_behind:
                if base.collection is None:
                    base.collection = await self._call(self._create, name)
                else:
                    await self._settle_some(base)

    async def search(self, name: str, query: Vector, *, top_k: int) -> list[Hit]:
        """Best first; exact for what waits, nearly exact for the rest. Raises KeyError for a base not opened."""
        base = self._bases[name]
        hidden = base.removed | base.waiting.keys()
        waiting = dict(base.waiting)
        settled: list[Hit] = []
        if base.collection is not None:
            settled = await self._call(self._query, base.collection, query, top_k + len(base.removed))
        found = [hit for hit in settled if hit.id not in hidden] + exact_search(waiting, query)
        return sorted(found, key=lambda hit: (-hit.score, hit.id))[:top_k]

    async def drop(self, name: str) -> None:
        """Forget the base. Idempotent."""
        if self._bases.pop(name, None):
            await self._call(self._delete, name)

    async def aclose(self) -> None:
        """Forget all; memory is freed. Idempotent."""
        for name in tuple(self._bases):
            await self.drop(name)
        await asyncio.to_thread(self._thread.shutdown)

    async def _settle_some(self, base: Base) -> None:
        batch = dict(list(base.waiting.items())[:BATCH_VECTORS])
        removed = list(base.removed)[:BATCH_VECTORS]
        await self._call(change_collection, base.collection, batch, removed)
        base.removed.difference_update(removed)
        for vector_id, vector in batch.items():
            if base.waiting.get(vector_id) is vector:  # else staged anew meanwhile
                del base.waiting[vector_id]

    async def _call(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    def _create(self, name: str) -> Any:
        """Idempotent: whoever waited for it may have been cancelled meanwhile."""
        if self._client is None:
            self._client = new_client()
        self._made.add(name)
        return self._client.get_or_create_collection(
            self._collection_name(name), embedding_function=None, configuration={"hnsw": HNSW}
        )

    def _delete(self, name: str) -> None:
        if name in self._made:
            self._client.delete_collection(self._collection_name(name))
            self._made.discard(name)

    def _query(self, collection: Any, query: Vector, count: int) -> list[Hit]:
        available = min(count, collection.count())
        if not available:
            return []
        found = collection.query(query_embeddings=[query], n_results=available, include=["distances"])
        return [Hit(i, 1.0 - distance) for i, distance in zip(found["ids"][0], found["distances"][0], strict=True)]

    def _collection_name(self, name: str) -> str:
        return f"{self._prefix}-{name}"


def new_client() -> Any:
    with IMPORTING:
        import chromadb
        from chromadb.config import Settings
    with CONNECTING:
        return chromadb.EphemeralClient(Settings(anonymized_telemetry=False))


def change_collection(collection: Any, batch: Mapping[str, Vector], removed: Sequence[str]) -> None:
    """In Chroma's thread."""
    if removed:
        collection.delete(ids=list(removed))
    if batch:
        collection.upsert(ids=list(batch), embeddings=list(batch.values()))


def exact_search(vectors: Mapping[str, Vector], query: Vector) -> list[Hit]:
    """Every vector with its score. All rows of unit length, so the dot product is the cosine."""
    if not vectors:
        return []
    scores = np.stack(list(vectors.values())) @ query
    return [Hit(vector_id, float(score)) for vector_id, score in zip(vectors, scores, strict=True)]
