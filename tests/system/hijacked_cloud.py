"""A control plane in the hands of somebody else: its address, its CA, every signing key of its tenants, no scruples."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

import grpc

from control_plane.config import trust
from control_plane.identity.authority import Authority
from faos.resource.v1.resource_pb2 import Manifest, ManifestEntry, Resource
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core.clock import SystemClock
from faos_core.kinds import kind_of
from tests.patience import PATIENCE_S
from tests.system.harness import TENANT

Body = bytes
TERMINAL = (tunnel.APPLY_STATE_HEALTHY, tunnel.APPLY_STATE_REJECTED, tunnel.APPLY_STATE_ROLLED_BACK)
CLOSED = "the node closed the stream"
IGNORED = "the node went on as if nothing had come"


@dataclass
class Stream:
    """One session that the node opened."""

    context: grpc.aio.ServicerContext[Any, Any]
    received: "asyncio.Queue[tunnel.NodeFrame | None]" = field(default_factory=asyncio.Queue)
    is_closed: bool = False

    async def send(self, raw: bytes) -> None:
        with suppress(grpc.aio.UsageError, grpc.aio.BaseError, asyncio.InvalidStateError):
            await self.context.write(raw)  # the node may have closed it: that is what `verdict` tells

    async def welcome(self, heartbeat_seconds: int = 3600) -> None:
        frame = tunnel.CloudFrame(welcome=tunnel.Welcome(session_id=b"hijacked", heartbeat_seconds=heartbeat_seconds))
        await self.send(frame.SerializeToString())

    async def verdict(self, revision: int) -> str:
        """How the node answered the offer of this revision: a NACK's or a state's name, CLOSED, or IGNORED."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while frame := await self.received.get():
                    status = frame.apply_status
                    if status.state in TERMINAL and status.revision == revision:
                        code = tunnel.NackCode.Name(status.nack.code)
                        return code if status.HasField("nack") else tunnel.ApplyState.Name(status.state)
        except TimeoutError:
            return IGNORED
        self.is_closed = True
        return CLOSED


class HijackedCloud:
    """Answers on the real address with the real certificate. What it says is up to the test."""

    def __init__(self, data_dir: Path) -> None:
        """data_dir: of the control plane that was taken over."""
        self.keys = trust.load_tenant_keys(data_dir / "keys" / TENANT)
        self.blobs: dict[bytes, Sequence[tunnel.BlobChunk]] = {}
        self.frames: list[bytes] = []
        self._authority = Authority.open(data_dir / "ca", SystemClock())
        self._arrivals: asyncio.Queue[Stream] = asyncio.Queue()
        self._timestamps = count(1_000)

    @asynccontextmanager
    async def serving(self, address: str) -> AsyncIterator[None]:
        server = grpc.aio.server(options=[("grpc.max_send_message_length", -1)])
        session = grpc.stream_stream_rpc_method_handler(self._session, self._parse)
        blob = grpc.unary_stream_rpc_method_handler(
            self._get_blob, tunnel.GetBlobRequest.FromString, tunnel.BlobChunk.SerializeToString
        )
        handlers = {"Session": session, "GetBlob": blob}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("faos.tunnel.v1.Tunnel", handlers),))
        assert server.add_secure_port(address, self._authority.server_credentials([address]).for_server())
        await server.start()
        try:
            yield
        finally:
            await server.stop(0)

    async def next_stream(self) -> Stream:
        """A session that has just said Hello."""
        async with asyncio.timeout(PATIENCE_S):
            stream = await self._arrivals.get()
            assert (await stream.received.get()).WhichOneof("frame") == "hello"  # type: ignore[union-attr]
            return stream

    def offer(
        self,
        revision: int,
        bodies: Sequence[Resource | ManifestEntry] = (),
        *,
        raw: dict[bytes, Body] | None = None,
        tenant: str = TENANT,
        **fields: Any,
    ) -> tunnel.ConfigOffer:
        """Signed with all of the tenant's keys. raw: bodies of entries that are given as such; fields: of the offer."""
        resources = [body for body in bodies if isinstance(body, Resource)]
        entries = [body if isinstance(body, ManifestEntry) else entry_of(body) for body in bodies]
        manifest = Manifest(tenant=tenant, revision=revision, entries=entries).SerializeToString()
        data = {sha256(body).digest(): body for body in map(Resource.SerializeToString, resources)} | (raw or {})
        chosen = {
            "nonce": f"{revision}".encode(),
            "revision": revision,
            "manifest": manifest,
            "metadata": self.sign(manifest, revision),
            "blobs": [tunnel.Blob(sha256=digest, data=body) for digest, body in data.items()],
        }
        return tunnel.ConfigOffer(**chosen | fields)

    def sign(
        self, manifest: bytes, revision: int, *, keys: trust.TenantKeys | None = None, now: datetime | None = None
    ) -> tunnel.TufMetadata:
        signed = trust.sign_revision(
            keys or self.keys,
            manifest=manifest,
            revision=revision,
            timestamp_version=next(self._timestamps),
            now=now or datetime.now(UTC),
        )
        return tunnel.TufMetadata(timestamp=signed.timestamp, snapshot=signed.snapshot, targets=signed.targets)

    def _parse(self, raw: bytes) -> tunnel.NodeFrame:
        self.frames.append(raw)
        return tunnel.NodeFrame.FromString(raw)

    async def _session(self, requests: AsyncIterator[tunnel.NodeFrame], context: Any) -> None:
        stream = Stream(context)
        self._arrivals.put_nowait(stream)
        try:
            async for frame in requests:
                stream.received.put_nowait(frame)
        finally:
            stream.received.put_nowait(None)

    async def _get_blob(self, request: tunnel.GetBlobRequest, context: Any) -> AsyncIterator[tunnel.BlobChunk]:
        if request.sha256 not in self.blobs:
            await context.abort(grpc.StatusCode.NOT_FOUND, "")
        for chunk in self.blobs[request.sha256]:
            yield chunk


def entry_of(resource: Resource, **fields: Any) -> ManifestEntry:
    body = resource.SerializeToString()
    known = {"kind": kind_of(resource), "name": resource.metadata.name, "sha256": sha256(body).digest()}
    return ManifestEntry(**known | {"length_bytes": len(body)} | fields)


def entry_for(body: bytes, **fields: Any) -> tuple[ManifestEntry, dict[bytes, bytes]]:
    """An entry for bytes that need not be a resource, and the bytes by digest."""
    digest = sha256(body).digest()
    return ManifestEntry(sha256=digest, length_bytes=len(body), **fields), {digest: body}
