"""Fetches what a verified manifest declares. Implements link's BlobSource over the tunnel."""

from typing import Protocol

from data_plane.egress.interfaces import Identifiers
from data_plane.link.nacks import refusal
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core.errors import IntegrityError, InvalidError


class Fetcher(Protocol):
    """tunnel.client.BlobFetcher."""

    async def get(self, sha256: bytes) -> bytes: ...


class DeclaredBlobs:
    """Allows a digest at the gate before it is asked for: it stands in what the publisher signed, and nowhere else
    are digests asked for."""

    def __init__(self, fetcher: Fetcher, identifiers: Identifiers) -> None:
        self._fetcher = fetcher
        self._identifiers = identifiers

    async def get(self, sha256: bytes) -> bytes:
        """See BlobSource. What comes back and is not that blob is the sender's fault, not a defect of this node."""
        self._identifiers.allow(sha256)
        try:
            return await self._fetcher.get(sha256)
        except (IntegrityError, InvalidError) as error:
            raise refusal(tunnel.NACK_CODE_DIGEST_MISMATCH) from error
