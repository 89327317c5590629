"""What the agent loop needs from tools. Policy is enforced here, outside the model: the model is assumed hijacked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from faos.resource.v1.resource_pb2 import Policy


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    """A tool as a model is shown it."""

    server: str  # ToolServer name
    name: str
    description: str
    input_schema: Mapping[str, Any]
    sha256: str  # of the canonical definition: a change is visible


@dataclass(frozen=True, slots=True)
class ToolCall:
    server: str
    tool: str
    arguments: Mapping[str, Any]
    labels: frozenset[str] = frozenset()  # where the values came from, e.g. "retrieved", "tool-output"


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool said; `is_error` when the tool itself reports failure."""

    text: str
    is_error: bool = False
    structured: Mapping[str, Any] | None = None
    truncated: bool = False  # cut at the ceiling's tool_result_bytes


@dataclass(frozen=True, slots=True)
class ToolState:
    """How an allowed tool of a running server stands. Digests are SHA-256 in hex, "" where there is none."""

    server: str
    tool: str
    accepted_sha256: str  # of the definition that this site accepted
    offered_sha256: str  # of what the server says now; "" while it is down
    is_quarantined: bool  # the two differed after some start, and nobody has accepted that


class ToolBroker(Protocol):
    """All running tool servers of a node."""

    def definitions(self, servers: Sequence[str]) -> list[ToolDefinition]:
        """Allow-listed tools of these servers, in a stable order. Raises NotFoundError for an unknown server."""

    async def call(self, call: ToolCall, *, policies: Mapping[str, Policy], idempotency_key: str) -> ToolResult:
        """Judge the call by `policies` (name → Policy), validate its arguments, and make it.

        idempotency_key: stable over retries and restarts; handed to the server in the request's _meta.
        Raises: DeniedError (not allow-listed, or policy says no), InvalidError (arguments against the schema),
            DeadlineError (the server hung; it is restarted), UnavailableError (it died or answered garbage; it is
            restarted with back-off).
        """
