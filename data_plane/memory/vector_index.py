"""The vector index: Chroma in memory, and exact search over what it does not hold yet.

The one module that knows Chroma. Vectors are always given (Chroma would download a model to make them), telemetry
is off, and nothing is on disk.
"""

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import chromadb
import numpy as np
from chromadb.config import Settings
from numpy.typing import NDArray

Vector = NDArray[np.float32]

BATCH_VECTORS = 256
HNSW = {"space": "cosine", "ef_construction": 200, "max_neighbors": 32, "ef_search": 256}


@dataclass(frozen=True, slots=True)
class Hit:
    id: str
    score: float  # cosine similarity, -1 to 1


@dataclass(slots=True)
class Base:
    """One named set of vectors. An id is in `waiting` or in the collection; in both, `waiting` counts."""

    collection: Any
    waiting: dict[str, Vector] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)  # not taken out of the collection yet


class VectorIndex:
    """Vectors under names. What `stage` and `discard` were given counts for the next search at once; `settle` moves
    it into Chroma. Every method is for the event loop's thread; Chroma runs in a thread of its own.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="chroma")
        self._client: Any = None
        self._bases: dict[str, Base] = {}
        self._prefix = uuid.uuid4().hex  # Chroma shares one memory among all clients of a process

    async def open(self, name: str) -> None:
        """Make the base, empty. Idempotent."""
        if name not in self._bases:
            collection = await self._call(self._create, name)
            self._bases.setdefault(name, Base(collection))

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
        base.removed.update(ids)

    async def settle(self) -> None:
        """Until nothing waits: move what was staged and discarded into Chroma, a batch at a time. Cancel-safe."""
        for name, base in tuple(self._bases.items()):
            while self._bases.get(name) is base and (base.waiting or base.removed):
                await self._settle_some(base)

    async def search(self, name: str, query: Vector, *, top_k: int) -> list[Hit]:
        """Best first; exact for what waits, nearly exact for the rest. Raises KeyError for a base not opened."""
        base = self._bases[name]
        hidden = base.removed | base.waiting.keys()
        waiting = dict(base.waiting)
        settled = await self._call(self._query, base.collection, query, top_k + len(base.removed))
        found = [hit for hit in settled if hit.id not in hidden] + exact_search(waiting, query)
        return sorted(found, key=lambda hit: (-hit.score, hit.id))[:top_k]

    async def drop(self, name: str) -> None:
        """Forget the base. Idempotent."""
        if self._bases.pop(name, None):
            await self._call(self._client.delete_collection, self._collection_name(name))

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
        if self._client is None:
            self._client = chromadb.EphemeralClient(Settings(anonymized_telemetry=False))
        return self._client.create_collection(
            self._collection_name(name), embedding_function=None, configuration={"hnsw": HNSW}
        )

    def _query(self, collection: Any, query: Vector, count: int) -> list[Hit]:
        available = min(count, collection.count())
        if not available:
            return []
        found = collection.query(query_embeddings=[query], n_results=available, include=["distances"])
        return [Hit(i, 1.0 - distance) for i, distance in zip(found["ids"][0], found["distances"][0], strict=True)]

    def _collection_name(self, name: str) -> str:
        return f"{self._prefix}-{name}"


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
