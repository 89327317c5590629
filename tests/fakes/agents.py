"""The neighbours of the agent loop, in this process: tools that are Python functions behind the real policy and the
real argument check, documents that are strings, and an embedder that counts words."""

import re
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_plane.link.interfaces import Configuration
from data_plane.memory.interfaces import IngestReport, Passage
from data_plane.models.interfaces import ModelRuntime
from data_plane.tools.broker import require_allowed, require_valid
from data_plane.tools.interfaces import ToolCall, ToolDefinition, ToolResult
from data_plane.tools.policy import judge
from faos.resource.v1 import resource_pb2 as resource

ToolFunction = Callable[[Mapping[str, Any], str], Awaitable[ToolResult]]
READING_SCHEMA = {
    "type": "object",
    "properties": {"sensor": {"type": "string"}},
    "required": ["sensor"],
    "additionalProperties": False,
}


def definition(
    name: str, description: str, *, server: str = "plant", schema: Mapping[str, Any] = READING_SCHEMA
) -> ToolDefinition:
    return ToolDefinition(server, name, description, schema, sha256="0" * 64)


@dataclass
class InProcessTools:
    """A ToolBroker whose tools are functions of (arguments, idempotency_key)."""

    tools: dict[str, tuple[ToolDefinition, ToolFunction]] = field(default_factory=dict)
    calls: list[ToolCall] = field(default_factory=list)  # that policy let through

    def add(self, tool: ToolDefinition, function: ToolFunction) -> None:
        self.tools[tool.name] = (tool, function)

    def definitions(self, servers: Sequence[str]) -> list[ToolDefinition]:
        return [tool for tool, _ in self.tools.values() if tool.server in servers]

    async def call(
        self, call: ToolCall, *, policies: Mapping[str, resource.Policy], idempotency_key: str
    ) -> ToolResult:
        tool, function = self.tools[call.tool]
        require_allowed(call, judge(call, policies))
        require_valid(call, tool)
        self.calls.append(call)
        return await function(call.arguments, idempotency_key)


class WordEmbedder:
    """Texts that share words are near: a bag of hashed words, of unit length."""

    dimensions = 512
    digest = "words"

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.stack([self.vector(text) for text in texts])

    def vector(self, text: str) -> NDArray[np.float32]:
        vector = np.zeros(self.dimensions, dtype=np.float32)
        for word in re.findall(r"\w+", text.lower()):
            vector[zlib.crc32(word.encode()) % self.dimensions] += 1
        length = float(np.linalg.norm(vector)) or 1.0
        return vector / np.float32(length)


@dataclass
class StringDocuments:
    """KnowledgeBases whose documents are given as strings."""

    documents: dict[str, list[str]] = field(default_factory=dict)
    embedder: WordEmbedder = field(default_factory=WordEmbedder)

    async def ingest(self, name: str, spec: resource.KnowledgeBase, folder: Path) -> IngestReport:
        raise NotImplementedError

    async def search(self, names: Sequence[str], query: str, *, top_k: int) -> list[Passage]:
        question = self.embedder.vector(query)
        found = [
            Passage(name, f"{index}.txt", 0, text, float(self.embedder.vector(text) @ question))
            for name in names
            for index, text in enumerate(self.documents[name])
        ]
        return sorted(found, key=lambda passage: -passage.score)[:top_k]

    async def remove(self, name: str) -> None:
        self.documents.pop(name, None)


@dataclass
class OneModel:
    """LoadedModels with one runtime under every name."""

    model: ModelRuntime

    def runtime(self, name: str) -> ModelRuntime:
        return self.model


@dataclass
class Active:
    """RunningConfiguration that a test sets."""

    configuration: Configuration

    def running(self) -> Configuration:
        return self.configuration


def configuration(*, revision: int = 1, allow: bool = True, **agent: Any) -> Configuration:
    """One agent "helper" with a model, a knowledge base "manual" and a tool server "plant", all of it allowed."""
    given = {"model": "small", "instructions": "Answer briefly.", "policies": ["rules"]} | agent
    effect = resource.POLICY_EFFECT_ALLOW if allow else resource.POLICY_EFFECT_DENY
    return Configuration(
        revision=revision,
        agents={"helper": resource.Agent(**given)},
        models={"small": resource.Model()},
        tool_servers={"plant": resource.ToolServer()},
        knowledge_bases={"manual": resource.KnowledgeBase()},
        policies={"rules": resource.Policy(rules=[resource.PolicyRule(name="all", effect=effect)])},
    )
