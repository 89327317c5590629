"""Takes an offer from bytes that anyone could have sent to durable content that the tenant's publisher signed."""

import asyncio
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_plane.link import selection
from data_plane.link.config_store import ConfigStore, Pointer
from data_plane.link.interfaces import BlobSource
from data_plane.link.nacks import refusal
from data_plane.link.trust import Trust
from faos.resource.v1.resource_pb2 import ManifestEntry
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos.tunnel.v1.tunnel_pb2 import ConfigOffer
from faos_core import names
from faos_core.clock import Clock
from faos_core.errors import IntegrityError, NotFoundError, RetryError
from faos_core.lifecycle import undivided

log = logging.getLogger(__name__)

FETCH_FIRST_WAIT_S = 0.5
FETCH_LAST_WAIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Verifier:
    """Trust, identity, age and completeness of an offer, in this order. Holds no state of its own."""

    store: ConfigStore
    trust: Trust
    blobs: BlobSource
    clock: Clock
    tenant: str
    labels: Mapping[str, str]

    async def verify(self, offer: ConfigOffer) -> Pointer:
        """Check all and make it durable in one commit. Cancel-safe: then nothing, or all of it, has changed.

        Raises: ConfigurationError; OSError when the disk fails.
        """
        work = self.store.work_folder()
        try:
            await undivided(asyncio.to_thread(self._check_trust, offer, work))
            return await self._complete(offer, work)
        finally:
            await undivided(asyncio.to_thread(shutil.rmtree, work, ignore_errors=True))

    def _check_trust(self, offer: ConfigOffer, work: Path) -> None:
        trusted = self.store.trusted_metadata()
        self.trust.check(offer.metadata, offer.manifest, trusted=trusted, work=work)

    async def _complete(self, offer: ConfigOffer, work: Path) -> Pointer:
        manifest = selection.parse_manifest(offer.manifest, tenant=self.tenant)
        if manifest.revision != offer.revision:
            raise refusal(tunnel.NACK_CODE_UNPARSABLE)
        pointer = Pointer(manifest.revision, selection.digest(offer.manifest))
        self.store.check_high_water(pointer)
        new = await self._gather(selection.select(manifest, self.labels), offer)
        await undivided(asyncio.to_thread(self.store.commit_verified, pointer, offer.manifest, new, work=work))
        return pointer

    async def _gather(self, entries: Sequence[ManifestEntry], offer: ConfigOffer) -> dict[bytes, bytes]:
        """Checked bodies that the store lacks, by SHA-256."""
        carried = {selection.digest(blob.data): blob.data for blob in offer.blobs}
        if any(blob.sha256 not in carried for blob in offer.blobs):
            raise refusal(tunnel.NACK_CODE_DIGEST_MISMATCH)
        here = await undivided(asyncio.to_thread(self._held, entries))
        wanted = {entry.sha256: entry for entry in entries if entry.sha256 not in here}
        return {sha256: await self._body(entry, carried.get(sha256)) for sha256, entry in wanted.items()}

    def _held(self, entries: Sequence[ManifestEntry]) -> set[bytes]:
        known = self.store.known_blobs()
        return {entry.sha256 for entry in entries if entry.sha256 in known and self._is_whole(entry)}

    def _is_whole(self, entry: ManifestEntry) -> bool:
        """Whether what the store has is the body; a damaged one is fetched again, and said."""
        try:
            selection.check_blob(entry, self.store.blob(entry.sha256))
        except IntegrityError as error:
            log.error("config.blob_damaged", extra={names.CODE: error.code.code, names.RESOURCE: entry.name})
            return False
        return True

    async def _body(self, entry: ManifestEntry, carried: bytes | None) -> bytes:
        data = carried if carried is not None else await self._fetch(entry)
        return selection.check_blob(entry, data)

    async def _fetch(self, entry: ManifestEntry) -> bytes:
        """Over and over while the link is down: a broken link says nothing about the offer. The deadline ends it."""
        wait_s = FETCH_FIRST_WAIT_S
        while True:
            try:
                return await self.blobs.get(entry.sha256)
            except NotFoundError as error:
                code = tunnel.NACK_CODE_BLOB_MISSING
                raise refusal(code, kind=entry.kind, name=entry.name) from error
            except RetryError:
                await self.clock.sleep(wait_s)
                wait_s = min(2 * wait_s, FETCH_LAST_WAIT_S)
