"""What every ModelRuntime does, the scripted one of the tests included, so that what it proves holds."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from data_plane.ceiling.models import Ceiling, DoorCeiling, Endpoint
from data_plane.egress.service import open_egress
from data_plane.models.interfaces import FinishReason, Message, ModelRuntime, Role, Sampling, TextDelta, TurnEnd
from faos_core.errors import InvalidError, LimitError, UnavailableError
from tests.fakes.model import ScriptedModel
from tests.parts import ASSETS
from tests.patience import PATIENCE_S
from tests.servers.ollama import TAG, OllamaProcess, create_model, ollama_server

QUESTION = [Message(Role.SYSTEM, "Answer briefly."), Message(Role.USER, "Tell a long story about a whale.")]
WARD = {
    "type": "object",
    "properties": {"ward": {"enum": ["north", "south"]}},
    "required": ["ward"],
    "additionalProperties": False,
}
LONG = "word " * 3000


def scripted(_messages: Sequence[Message], json_schema: Any) -> str:
    return '{"ward": "north"}' if json_schema else "Once upon a time there was a whale that swam far and wide and sang."


async def llama() -> ModelRuntime:
    from data_plane.models.llama_cpp import LlamaCppRuntime

    return await LlamaCppRuntime.load(next(ASSETS.glob("*.gguf")), context_tokens=1024)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OllamaProcess]:
    """Started for whoever asks for it: only where the machine has one."""
    with ollama_server(tmp_path_factory.mktemp("ollama")) as process:
        create_model(process.url, next(ASSETS.glob("*.gguf")))
        yield process


@asynccontextmanager
async def remote(server: OllamaProcess, folder: Path) -> AsyncIterator[ModelRuntime]:
    from data_plane.models.ollama import OllamaRuntime

    endpoint = Endpoint("box", server.url, DoorCeiling.CUSTOMER)
    async with open_egress(folder, Ceiling()) as egress:
        yield await OllamaRuntime.load(egress.http_door("remote-model", endpoint), TAG, context_tokens=1024)


@pytest.fixture(
    params=[
        "scripted",
        pytest.param("llama_cpp", marks=pytest.mark.needs("model")),
        pytest.param("ollama", marks=pytest.mark.needs("ollama")),
    ]
)
async def runtime(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ModelRuntime]:
    async with AsyncExitStack() as stack:
        loaded: ModelRuntime = ScriptedModel([scripted] * 8, context_tokens=1024)
        if request.param == "llama_cpp":
            loaded = await llama()
        elif request.param == "ollama":
            loaded = await stack.enter_async_context(remote(request.getfixturevalue("server"), tmp_path))
        stack.push_async_callback(loaded.aclose)
        yield loaded


async def turn(runtime: ModelRuntime, messages: Sequence[Message], **options: Any) -> tuple[list[str], TurnEnd]:
    """The deltas, and the end."""
    sampling = Sampling(max_tokens=options.pop("max_tokens", 24))
    items = [item async for item in runtime.chat(messages, sampling=sampling, **options)]
    end = items.pop()
    assert isinstance(end, TurnEnd)
    assert all(isinstance(item, TextDelta) for item in items)
    return [item.text for item in items if isinstance(item, TextDelta)], end


async def test_deltas_join_to_the_text_of_the_end(runtime: ModelRuntime) -> None:
    """What the user saw stream by must be what the journal records."""
    deltas, end = await turn(runtime, QUESTION)

    assert len(deltas) > 1
    assert "".join(deltas) == end.text


async def test_max_tokens_ends_a_turn_with_length(runtime: ModelRuntime) -> None:
    """Token limits of a run are kept by counting these; a cut answer must be known as cut."""
    _, end = await turn(runtime, QUESTION, max_tokens=5)

    assert end.finish_reason is FinishReason.LENGTH
    assert end.output_tokens == 5
    assert end.input_tokens > 5


async def test_a_schema_constrains_the_text(runtime: ModelRuntime) -> None:
    """Tool calls rest on this: whatever the model would like to say, it can only say this."""
    _, end = await turn(runtime, [Message(Role.USER, "Say hello.")], json_schema=WARD, max_tokens=64)

    assert json.loads(end.text)["ward"] in ("north", "south")
    assert end.finish_reason is FinishReason.STOP


@pytest.mark.parametrize("schema", [{"type": "nonsense"}, {"type": 7}], ids=["unknown type", "type is no name"])
async def test_a_schema_that_is_none_is_refused_before_anything_is_said(runtime: ModelRuntime, schema: Any) -> None:
    """Unconstrained text under a constraint that was not understood would be taken for the model's tool call."""
    with pytest.raises(InvalidError):
        await turn(runtime, QUESTION, json_schema=schema)


async def test_messages_over_the_context_are_refused(runtime: ModelRuntime) -> None:
    """Silently cut messages would lose the question or the instructions."""
    with pytest.raises(LimitError):
        await turn(runtime, [Message(Role.USER, LONG)])


async def test_concurrent_turns_each_get_their_own_answer(runtime: ModelRuntime) -> None:
    """Many runs share one model; each must get exactly the text that it gets alone."""
    alone = (await turn(runtime, QUESTION, max_tokens=12))[1].text

    ends = await asyncio.gather(*(turn(runtime, QUESTION, max_tokens=12) for _ in range(3)))

    assert [end.text for _, end in ends] == [alone] * 3


async def test_a_closed_iterator_leaves_the_runtime_usable(runtime: ModelRuntime) -> None:
    """A user who hangs up must not block the next one."""
    stream = runtime.chat(QUESTION, sampling=Sampling(max_tokens=900))
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]  # every implementation is an async generator

    async with asyncio.timeout(PATIENCE_S):
        _, end = await turn(runtime, QUESTION, max_tokens=3)

    assert end.output_tokens == 3


async def test_closing_ends_turns_in_progress_as_unavailable(runtime: ModelRuntime) -> None:
    """A run whose model goes away must learn it, not hang; it is retried after the restart."""
    stream = runtime.chat(QUESTION, sampling=Sampling(max_tokens=900))
    await anext(stream)

    await runtime.aclose()
    await runtime.aclose()

    with pytest.raises(UnavailableError):
        _ = [item async for item in stream]
    with pytest.raises(UnavailableError):
        await turn(runtime, QUESTION)


async def test_a_runtime_can_be_closed_before_any_turn(runtime: ModelRuntime) -> None:
    """A revision that is replaced at once loads and unloads its models without a turn."""
    await runtime.aclose()

    with pytest.raises(UnavailableError):
        await turn(runtime, QUESTION)
