import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator

import numpy as np
import pytest

from data_plane.memory.vector_index import BATCH_VECTORS, EXACT_VECTORS, Vector, VectorIndex

RANDOM = np.random.default_rng(7)


def unit(count: int) -> Vector:
    rows = RANDOM.normal(size=(count, 32)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
async def index() -> AsyncIterator[VectorIndex]:
    opened = VectorIndex()
    opened.open("kb")
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
    rows = unit(EXACT_VECTORS + 1)
    index.stage("kb", {f"d/{n}": row for n, row in enumerate(rows)})
    await index.settle()
    found = await index.search("kb", rows[0], top_k=3)

    index.discard("kb", ["d/0", "never-there"])
    before = {hit.id for hit in await index.search("kb", rows[0], top_k=2)}
    await index.settle()

    after = {hit.id for hit in await index.search("kb", rows[0], top_k=2)}
    assert before == after == {hit.id for hit in found[1:]}
    assert found[0].id == "d/0"


async def test_a_base_that_shrinks_and_grows_finds_what_it_holds(index: VectorIndex) -> None:
    """Below and above the size from which Chroma holds it, nothing may be lost or come back."""
    rows = unit(EXACT_VECTORS + 2)
    named = {f"d/{n}": row for n, row in enumerate(rows)}
    few = {"d/0": named["d/0"], "d/1": named["d/1"]}
    index.stage("kb", few)
    await index.settle()
    assert await nearest(index, rows[0]) == "d/0"

    index.discard("kb", ["d/0"])
    await index.settle()
    assert await nearest(index, rows[0]) == "d/1"

    index.stage("kb", named)
    await index.settle()
    for n in (0, 1, EXACT_VECTORS + 1):
        assert await nearest(index, rows[n]) == f"d/{n}"

    index.discard("kb", named.keys() - few.keys())
    await index.settle()
    assert {hit.id for hit in await index.search("kb", rows[0], top_k=9)} == few.keys()

    await index.drop("kb")
    index.open("kb")
    assert await index.search("kb", rows[0], top_k=1) == []


async def nearest(index: VectorIndex, query: Vector) -> str:
    return (await index.search("kb", query, top_k=1))[0].id


async def test_a_base_that_goes_while_it_is_settled_is_gone(index: VectorIndex) -> None:
    """A removal that crosses the start of the index must not fail, nor leave vectors for the next base of the name."""
    index.stage("kb", {f"d/{n}": row for n, row in enumerate(unit(EXACT_VECTORS + 1))})
    async with asyncio.TaskGroup() as group:
        group.create_task(index.settle())
        await asyncio.sleep(0)
        await index.drop("kb")

    index.open("kb")
    index.stage("kb", {f"e/{n}": row for n, row in enumerate(unit(EXACT_VECTORS + 1))})
    await index.settle()

    assert {hit.id[0] for hit in await index.search("kb", unit(1)[0], top_k=9)} == {"e"}


SMALL_BASE = """
import asyncio, sys
import numpy as np
import data_plane.app
from data_plane.memory.vector_index import EXACT_VECTORS, VectorIndex
async def fill(count):
    index = VectorIndex()
    index.open("kb")
    index.stage("kb", {str(n): np.eye(512, dtype=np.float32)[n] for n in range(count)})
    await index.settle()
    (hit,) = await index.search("kb", np.eye(512, dtype=np.float32)[1], top_k=1)
    assert hit.id == "1", hit
    await index.aclose()
asyncio.run(fill(EXACT_VECTORS))
assert "chromadb" not in sys.modules
async def two():
    await asyncio.gather(fill(EXACT_VECTORS + 1), fill(EXACT_VECTORS + 1))
sys.setswitchinterval(1e-6)
asyncio.run(two())
assert "chromadb" in sys.modules
"""


def test_a_node_of_small_bases_does_without_chroma_and_two_larger_ones_begin_at_once() -> None:
    """Chroma is the half of what a node imports; nodes of one process import it in a thread each."""
    done = subprocess.run([sys.executable, "-c", SMALL_BASE], capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stderr) == (0, "")


async def test_two_indexes_in_one_process_share_nothing() -> None:
    """Chroma gives every client of a process the same memory; two nodes of a test must not see each other."""
    first, second = VectorIndex(), VectorIndex()
    first.open("kb")
    second.open("kb")
    first.stage("kb", {f"d/{n}": row for n, row in enumerate(unit(EXACT_VECTORS + 1))})
    await first.settle()

    assert await second.search("kb", unit(1)[0], top_k=1) == []
    await first.aclose()
    await second.aclose()
