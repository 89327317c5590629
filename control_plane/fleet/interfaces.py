"""What the fleet needs from configuration."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from faos.resource.v1.resource_pb2 import Manifest
from faos.tunnel.v1.tunnel_pb2 import TufMetadata


@dataclass(frozen=True, slots=True)
class OfferMaterial:
    """A tenant's standing revision, encoded once and shared by all of its nodes."""

    revision: int
    manifest_bytes: bytes
    manifest_sha256: bytes
    manifest: Manifest
    metadata: TufMetadata
    blobs: Mapping[bytes, bytes]  # by SHA-256
    traceparent: str = ""  # of the change that made it; empty: none


class Desired(Protocol):
    """What each tenant declares."""

    async def offer_material(self, tenant: str) -> OfferMaterial | None:
        """The standing revision with fresh metadata; None before the first apply."""


class Changes(Protocol):
    """Tells connected nodes of a tenant that there is a newer revision."""

    async def targets_changed(self, tenant: str) -> None: ...
