"""What the agent loop and configuration need from knowledge bases."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from faos.resource.v1.resource_pb2 import KnowledgeBase


@dataclass(frozen=True, slots=True)
class Passage:
    """A retrieved piece of a document."""

    knowledge_base: str
    document: str  # path relative to the folder
    chunk: int  # counts from 0 within the document
    text: str
    score: float  # cosine similarity to the query, -1 to 1


@dataclass(frozen=True, slots=True)
class IngestReport:
    documents: int
    chunks: int
    embedded: int  # chunks that had no stored vector yet
    skipped: tuple[str, ...] = ()  # documents of a type that is not read


class KnowledgeBases(Protocol):
    """Every knowledge base of a node: rows sealed in the store, vectors in memory."""

    async def ingest(self, name: str, spec: KnowledgeBase, folder: Path) -> IngestReport:
        """Make the store and the index agree with the folder: unchanged text is not embedded again, what is gone
        is removed. Safe to repeat after a crash. Raises SetupError (folder missing or unreadable)."""

    async def search(self, names: Sequence[str], query: str, *, top_k: int) -> list[Passage]:
        """Best first, over all named bases. Raises NotFoundError for a base that was never ingested."""

    async def remove(self, name: str) -> None:
        """Forget a base, rows included. Idempotent."""
