from collections.abc import AsyncIterator

import numpy as np
import pytest

from data_plane.memory.vector_index import BATCH_VECTORS, Vector, VectorIndex

RANDOM = np.random.default_rng(7)


def unit(count: int) -> Vector:
    rows = RANDOM.normal(size=(count, 32)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
async def index() -> AsyncIterator[VectorIndex]:
    opened = VectorIndex()
    await opened.open("kb")
    yield opened
    await opened.aclose()


async def test_staged_vectors_are_found_before_they_are_settled(index: VectorIndex) -> None:
    """A node answers right after its start, while its index is still being rebuilt."""
    rows = unit(BATCH_VECTORS + 10)
    index.stage("kb", {f"d/{n}": row for n, row in enumerate(rows)})
    exact = [hit.id for hit in await index.search("kb", rows[3], top_k=3)]

    await index.settle()
    settled = await index.search("kb", rows[3], top_k=3)

    assert exact[0] == settled[0].id == "d/3"
    assert settled[0].score == pytest.approx(1.0, abs=1e-5)
    assert [hit.id for hit in settled] == exact


async def test_discarded_vectors_are_gone_at_once(index: VectorIndex) -> None:
    """A deleted document must not answer while the index catches up."""
    rows = unit(3)
    index.stage("kb", {f"d/{n}": row for n, row in enumerate(rows)})
    await index.settle()

    index.discard("kb", ["d/0", "never-there"])
    before = {hit.id for hit in await index.search("kb", rows[0], top_k=3)}
    await index.settle()

    assert before == {hit.id for hit in await index.search("kb", rows[0], top_k=3)} == {"d/1", "d/2"}


async def test_two_indexes_in_one_process_share_nothing() -> None:
    """Chroma gives every client of a process the same memory; two nodes of a test must not see each other."""
    first, second = VectorIndex(), VectorIndex()
    await first.open("kb")
    await second.open("kb")
    first.stage("kb", {"d/0": unit(1)[0]})
    await first.settle()

    assert await second.search("kb", unit(1)[0], top_k=1) == []
    await first.aclose()
    await second.aclose()
