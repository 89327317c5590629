import secrets
from collections.abc import AsyncIterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from data_plane.agents.journal import Journal
from data_plane.agents.perform import Ports
from data_plane.agents.service import Runs
from data_plane.ceiling.models import EmbedderFiles, Limits
from data_plane.models.embedder import OnnxEmbedder
from data_plane.models.llama_cpp import LlamaCppRuntime
from data_plane.models.verification import FileVerifier
from data_plane.storage.service import open_storage
from data_plane.tools.interfaces import ToolResult
from faos.site.v1 import site_pb2 as site
from faos_core.clock import SystemClock
from faos_core.ids import TenantName
from faos_core.lifecycle import running
from tests.fakes.agents import Active, InProcessTools, OneModel, configuration, definition
from tests.fakes.agents import StringDocuments as Documents
from tests.parts import ASSETS

pytestmark = [pytest.mark.needs("model", "embedder"), pytest.mark.slow]

INSTRUCTIONS = "Answer in one sentence. Use only what you are given, and repeat numbers exactly."
BEDS = {
    "type": "object",
    "properties": {"ward": {"type": "string", "enum": ["cardiology", "surgery"]}},
    "required": ["ward"],
    "additionalProperties": False,
}


class EmbeddedDocuments(Documents):
    """Strings searched with the real embedder."""

    def __init__(self, texts: list[str], embedder: OnnxEmbedder) -> None:
        super().__init__({"manual": texts})
        self._real = embedder

    async def search(self, names: Any, query: str, *, top_k: int) -> Any:
        from data_plane.memory.interfaces import Passage

        texts = self.documents["manual"]
        question, *rows = await self._real.embed([query, *texts])
        found = [Passage("manual", "a.md", i, text, float(rows[i] @ question)) for i, text in enumerate(texts)]
        return sorted(found, key=lambda passage: -passage.score)[:top_k]


@pytest.fixture
async def model() -> AsyncIterator[LlamaCppRuntime]:
    runtime = await LlamaCppRuntime.load(next(ASSETS.glob("*.gguf")))
    yield runtime
    await runtime.aclose()


@pytest.fixture
async def embedder() -> AsyncIterator[OnnxEmbedder]:
    onnx, tokenizer = next(ASSETS.glob("*.onnx")), next(ASSETS.glob("*tokenizer.json"))
    embedder = await OnnxEmbedder.load(EmbedderFiles(onnx, digest(onnx), tokenizer, digest(tokenizer)), FileVerifier())
    yield embedder
    await embedder.aclose()


def digest(file: Path) -> str:
    return sha256(file.read_bytes()).hexdigest()


async def answer(
    question: str, folder: Path, model: LlamaCppRuntime, embedder: OnnxEmbedder, *, document: str, reservation: str
) -> tuple[site.Run, list[site.Step]]:
    """One question to an agent with a document and a tool, over a real store."""

    async def free_beds(arguments: Mapping[str, Any], idempotency_key: str) -> ToolResult:
        ward = arguments["ward"]
        return ToolResult(
            f"There are free beds in {ward}. The reservation number for a bed in {ward} is {reservation}."
        )

    tools = InProcessTools()
    tools.add(definition("free_beds", "Free beds right now in a ward: cardiology or surgery.", schema=BEDS), free_beds)
    documents = EmbeddedDocuments([document, "Visitors may come from two to six."], embedder)
    active = Active(configuration(instructions=INSTRUCTIONS, knowledge=["manual"], tools=["plant"]))
    ports = Ports(active, OneModel(model), embedder, tools, documents)
    async with open_storage(folder, tenant=TenantName("acme")) as storage:
        runs = Runs(Journal(storage.store, storage.sealer, SystemClock()), ports, Limits(), SystemClock())
        async with running([runs]):
            run_id = await runs.start("helper", question)
            async for _ in runs.watch(run_id):
                pass
            return await runs.get(run_id)


async def test_agent_answers_from_document_with_real_model(
    tmp_path: Path, model: LlamaCppRuntime, embedder: OnnxEmbedder
) -> None:
    """A number that nobody could know but from the document must stand in the answer."""
    number = str(10000 + secrets.randbelow(90000))
    document = f"When the oxygen pressure falls, call the oxygen emergency line. Its number is {number}."

    run, steps = await answer(
        "What is the number of the oxygen emergency line?",
        tmp_path,
        model,
        embedder,
        document=document,
        reservation="1",
    )

    assert number in run.output
    assert [step.kind for step in steps] == [
        site.STEP_KIND_RETRIEVAL,
        site.STEP_KIND_ROUTING,
        site.STEP_KIND_MODEL,
    ]


async def test_agent_answers_from_tool_with_real_model(
    tmp_path: Path, model: LlamaCppRuntime, embedder: OnnxEmbedder
) -> None:
    """A number that only the tool knows must stand in the answer, and its call in the journal."""
    number = str(10000 + secrets.randbelow(90000))

    run, steps = await answer(
        "What is the reservation number for a bed in cardiology?",
        tmp_path,
        model,
        embedder,
        document="Wear gloves in the laboratory.",
        reservation=number,
    )

    assert number in run.output
    assert steps[3].request["arguments"]["ward"] == "cardiology"
    assert number in steps[3].result["text"]
