"""How a verified configuration becomes the running one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from faos.resource.v1 import resource_pb2 as resource
from faos.tunnel.v1 import tunnel_pb2 as tunnel


@dataclass(frozen=True, slots=True)
class Configuration:
    """What a node runs: the resources of one revision that its labels select. Immutable."""

    revision: int = 0
    manifest_sha256: bytes = b""
    agents: Mapping[str, resource.Agent] = field(default_factory=dict)
    models: Mapping[str, resource.Model] = field(default_factory=dict)
    tool_servers: Mapping[str, resource.ToolServer] = field(default_factory=dict)
    knowledge_bases: Mapping[str, resource.KnowledgeBase] = field(default_factory=dict)
    policies: Mapping[str, resource.Policy] = field(default_factory=dict)

    def names(self) -> frozenset[str]:
        groups = (self.agents, self.models, self.tool_servers, self.knowledge_bases, self.policies)
        return frozenset(name for group in groups for name in group)


class ConfigurationError(Exception):
    """A configuration cannot be run here: the NACK that goes up."""

    def __init__(self, nack: tunnel.Nack) -> None:
        self.nack = nack
        super().__init__(tunnel.NackCode.Name(nack.code))


class Activation(Protocol):
    """Makes a configuration the running one."""

    async def activate(self, configuration: Configuration) -> None:
        """Load models, start tool servers, ingest knowledge; then switch, atomically for new runs.

        On failure what ran before still runs. Raises ConfigurationError. Cancel-safe: cancelling leaves what ran.
        """

    def running(self) -> Configuration:
        """The active configuration; an empty one of revision 0 before the first."""


class BlobSource(Protocol):
    """Where the bodies come from that an offer did not carry: GetBlob, over whatever session is up."""

    async def get(self, sha256: bytes) -> bytes:
        """The whole blob; the caller checks its digest. Raises: NotFoundError (the control plane has none),
        RetryError (no session, or it broke): the caller tries again until its deadline; ConfigurationError (what
        came is not that blob)."""


class HealthProbe(Protocol):
    """Whether what was activated still works, asked again and again during the soak."""

    def __call__(self) -> tunnel.Nack | None:
        """None when healthy, else the NACK to roll back with. Quick; never raises."""
