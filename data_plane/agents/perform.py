"""Doing one step of a run: the I/O behind each kind. What fails with a code becomes the step's outcome."""

from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import asdict, dataclass
from typing import Any

from data_plane.agents import routing
from data_plane.agents.errors import TOOL_FAILED, TOOL_WITHDRAWN, TURN_WITHOUT_END
from data_plane.agents.interfaces import LoadedModels, RunningConfiguration
from data_plane.agents.outages import passes
from data_plane.agents.steps import Purpose, StepKind, StepOutcome, StepRequest
from data_plane.memory.interfaces import KnowledgeBases
from data_plane.models.interfaces import Embedder, Message, Role, Sampling, TextDelta, TurnEnd
from data_plane.tools.interfaces import ToolBroker, ToolCall
from faos.resource.v1.resource_pb2 import Policy
from faos_core.errors import DeniedError, FaosError, InternalError, LimitError

OnDelta = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Ports:
    """What steps reach."""

    configuration: RunningConfiguration
    models: LoadedModels
    embedder: Embedder
    tools: ToolBroker
    knowledge: KnowledgeBases


class Performer:
    """Performs steps. Stateless: everything that a step needs stands in its request."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def perform(
        self, agent: str, request: StepRequest, *, idempotency_key: str, on_delta: OnDelta
    ) -> StepOutcome:
        """on_delta: called with the pieces of an answer as they are generated. Cancel-safe.

        Raises what `outages.passes` tells: the node's database is away, its disk is full; no outcome of the step.
        """
        try:
            match request.kind:
                case StepKind.RETRIEVAL:
                    return StepOutcome(await self._retrieve(request.body))
                case StepKind.ROUTING:
                    return StepOutcome(await self._route(request.body))
                case StepKind.MODEL:
                    return await self._ask(request, on_delta)
                case StepKind.TOOL:
                    return await self._call(agent, request.body, idempotency_key)
        except FaosError as error:
            if passes(error):
                raise
            return StepOutcome({}, error.code.code)

    async def _retrieve(self, body: Mapping[str, Any]) -> dict[str, Any]:
        passages = await self._ports.knowledge.search(body["knowledge"], body["query"], top_k=body["top_k"])
        return {"passages": [asdict(passage) for passage in passages]}

    async def _route(self, body: Mapping[str, Any]) -> dict[str, Any]:
        candidates = body["candidates"]
        texts = [body["query"], *(candidate["text"] for candidate in candidates)]
        scores = routing.similarities(await self._ports.embedder.embed(texts))
        return dict(routing.choose(candidates, scores, body["passage_score"]))

    async def _ask(self, request: StepRequest, on_delta: OnDelta) -> StepOutcome:
        """Messages that exceed the context are an outcome of their own: the loop asks with fewer passages."""
        try:
            return StepOutcome(await self._turn(request, on_delta))
        except LimitError as error:
            return StepOutcome({"overflow": True}, error.code.code)

    async def _turn(self, request: StepRequest, on_delta: OnDelta) -> dict[str, Any]:
        body = request.body
        messages = [Message(Role(message["role"]), message["content"]) for message in body["messages"]]
        streamed = body["purpose"] == Purpose.ANSWER
        runtime = self._ports.models.runtime(request.name)
        chat = runtime.chat(messages, sampling=Sampling(**body["sampling"]), json_schema=body["json_schema"])
        async with aclosing(chat) as items:
            async for item in items:
                if isinstance(item, TurnEnd):
                    return turn_result(item)
                if isinstance(item, TextDelta) and streamed:
                    on_delta(item.text)
        raise InternalError(TURN_WITHOUT_END, model=request.name)

    async def _call(self, agent: str, body: Mapping[str, Any], idempotency_key: str) -> StepOutcome:
        call = ToolCall(body["server"], body["tool"], body["arguments"], frozenset(body["labels"]))
        policies = self._policies(agent, call)
        result = await self._ports.tools.call(call, policies=policies, idempotency_key=idempotency_key)
        outcome = {
            "text": result.text,
            "is_error": result.is_error,
            "structured": dict(result.structured) if result.structured is not None else None,
            "truncated": result.truncated,
        }
        return StepOutcome(outcome, TOOL_FAILED.code if result.is_error else "")

    def _policies(self, agent: str, call: ToolCall) -> dict[str, Policy]:
        """Of the agent in the configuration that runs now, whatever revision the run began with: a tool or a
        permission that was taken away is gone at once. Raises DeniedError."""
        configuration = self._ports.configuration.running()
        spec = configuration.agents.get(agent)
        if spec is None or call.server not in spec.tools:
            raise DeniedError(TOOL_WITHDRAWN, tool=call.tool)
        return {name: configuration.policies[name] for name in spec.policies}


def turn_result(end: TurnEnd) -> dict[str, Any]:
    return {
        "text": end.text,
        "input_tokens": end.input_tokens,
        "output_tokens": end.output_tokens,
        "finish_reason": end.finish_reason.value,
    }
