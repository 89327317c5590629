import hashlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from data_plane.memory.service import KnowledgeService
from data_plane.storage.service import Storage, open_storage
from faos.resource.v1.resource_pb2 import KnowledgeBase
from faos_core.errors import NotFoundError, SetupError
from faos_core.ids import TenantName
from faos_core.lifecycle import running
from tests.servers.databases import OnDisk

SPEC = KnowledgeBase(folder="handbook", chunk_characters=60)


class WordEmbedder:
    """A fake model: a text is the sum of its words' random directions, so texts that share words are near."""

    dimensions = 64
    digest = "f" * 64

    def __init__(self) -> None:
        self.embedded: list[str] = []

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.embedded.extend(texts)
        rows = np.stack([sum((direction(word) for word in text.lower().split()), np.zeros(64)) for text in texts])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def direction(word: str) -> NDArray[np.float64]:
    seed = int.from_bytes(hashlib.sha256(word.strip(".?!").encode()).digest()[:8])
    return np.random.default_rng(seed).normal(size=64)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "handbook"
    root.mkdir()
    (root / "oxygen.md").write_text("The oxygen valve code is 48213.\n\nNever close a valve alone at night or by day.")
    (root / "meals.md").write_text("Lunch is at twelve.")
    return root


@pytest.fixture
async def storage(tmp_path: Path, database_url: str) -> AsyncIterator[Storage]:
    async with open_storage(tmp_path / "data", tenant=TenantName("clinic"), database_url=database_url) as opened:
        yield opened


async def best(service: KnowledgeService, query: str) -> list[tuple[str, str]]:
    return [(p.document, p.text) for p in await service.search(["handbook"], query, top_k=1)]


async def test_what_was_ingested_is_found_with_its_place(storage: Storage, folder: Path) -> None:
    """The journal shows where an answer came from."""
    service = KnowledgeService(storage.store, storage.sealer, WordEmbedder())

    async with running([service]):
        report = await service.ingest("handbook", SPEC, folder)
        found = await service.search(["handbook"], "What is the oxygen valve code?", top_k=2)

    assert (report.documents, report.chunks, report.embedded) == (2, 3, 3)
    assert found[0].document == "oxygen.md"
    assert "48213" in found[0].text
    assert found[0].score > found[1].score


async def test_unchanged_text_is_not_embedded_again(storage: Storage, folder: Path) -> None:
    """A site with a million pages restarts within seconds only because of this."""
    first = WordEmbedder()
    async with running([service := KnowledgeService(storage.store, storage.sealer, first)]):
        await service.ingest("handbook", SPEC, folder)

    second = WordEmbedder()
    async with running([service := KnowledgeService(storage.store, storage.sealer, second)]):
        (folder / "fire.md").write_text("Use the stairs.")
        report = await service.ingest("handbook", SPEC, folder)

    assert second.embedded == ["Use the stairs."]
    assert report.embedded == 1


async def test_stored_vectors_are_searched_after_a_restart_without_the_folder(storage: Storage, folder: Path) -> None:
    """The node must answer from what it knows while a network share is away."""
    async with running([service := KnowledgeService(storage.store, storage.sealer, WordEmbedder())]):
        await service.ingest("handbook", SPEC, folder)

    async with running([service := KnowledgeService(storage.store, storage.sealer, WordEmbedder())]):
        assert await best(service, "When is lunch?") == [("meals.md", "Lunch is at twelve.")]


async def test_a_changed_document_replaces_its_text(storage: Storage, folder: Path) -> None:
    """An old phone number that can still be found is worse than none."""
    async with running([service := KnowledgeService(storage.store, storage.sealer, WordEmbedder())]):
        await service.ingest("handbook", SPEC, folder)
        (folder / "meals.md").write_text("Lunch is at one.")
        (folder / "oxygen.md").unlink()
        await service.ingest("handbook", SPEC, folder)
        found = await service.search(["handbook"], "Lunch is at twelve. oxygen valve", top_k=5)

    assert [passage.text for passage in found] == ["Lunch is at one."]


async def test_a_removed_base_is_gone_for_good(storage: Storage, folder: Path) -> None:
    """What the site took back must not answer again after a restart."""
    async with running([service := KnowledgeService(storage.store, storage.sealer, WordEmbedder())]):
        await service.ingest("handbook", SPEC, folder)
        await service.remove("handbook")
        await service.remove("handbook")
        with pytest.raises(NotFoundError):
            await best(service, "lunch")

    async with running([service := KnowledgeService(storage.store, storage.sealer, WordEmbedder())]):
        with pytest.raises(NotFoundError):
            await best(service, "lunch")


async def test_a_missing_folder_forgets_nothing(storage: Storage, folder: Path) -> None:
    """An unmounted share is not an order to delete."""
    async with running([service := KnowledgeService(storage.store, storage.sealer, WordEmbedder())]):
        await service.ingest("handbook", SPEC, folder)
        with pytest.raises(SetupError):
            await service.ingest("handbook", SPEC, folder / "unmounted")

        assert await best(service, "When is lunch?") == [("meals.md", "Lunch is at twelve.")]


async def test_nothing_is_on_disk_in_the_clear(storage: Storage, folder: Path, on_disk: OnDisk) -> None:
    """Text, paths and vectors: from a vector the text can be guessed."""
    embedder = WordEmbedder()
    async with running([service := KnowledgeService(storage.store, storage.sealer, embedder)]):
        await service.ingest("handbook", SPEC, folder)

    disk = on_disk()
    vector = (await embedder.embed(["Lunch is at twelve."]))[0].tobytes()

    assert len(disk) > 10_000
    assert not any(clear in disk for clear in (b"48213", b"Lunch", b"meals.md", vector[:16]))
