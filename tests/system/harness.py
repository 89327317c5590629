"""Whole planes in one process over real sockets, for tests."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from control_plane.app import Endpoints, control_plane
from control_plane.settings import ControlPlaneSettings
from data_plane.ceiling.models import Ceiling
from data_plane.identity.join import join
from data_plane.identity.store import Membership
from faos.admin.v1 import admin_pb2 as admin
from faos.admin.v1 import admin_pb2_grpc as admin_grpc
from faos_core.clock import Clock, SystemClock
from tests.ports import own_port
from tunnel.identity import SERVER_NAME

TENANT = "mercy"


@dataclass
class RunningControlPlane:
    """A control plane with one tenant, and the stubs of its admin API."""

    data_dir: Path
    endpoints: Endpoints
    channel: grpc.aio.Channel
    metadata: tuple[tuple[str, str], ...]
    tenants: Any = field(init=False)
    nodes: Any = field(init=False)
    resources: Any = field(init=False)

    def __post_init__(self) -> None:
        self.tenants = admin_grpc.TenantServiceStub(self.channel)
        self.nodes = admin_grpc.NodeServiceStub(self.channel)
        self.resources = admin_grpc.ResourceServiceStub(self.channel)

    @property
    def tunnel_address(self) -> str:
        return f"127.0.0.1:{self.endpoints.tunnel_port}"

    async def create_tenant(self, tenant: str = TENANT, *sites: str) -> None:
        await self.tenants.CreateTenant(admin.CreateTenantRequest(name=tenant), metadata=self.metadata)
        for site in sites or ("main",):
            await self.tenants.CreateSite(admin.CreateSiteRequest(tenant=tenant, name=site), metadata=self.metadata)

    async def join_string(self, *, tenant: str = TENANT, site: str = "main", ttl_s: int = 600) -> str:
        request = admin.CreateJoinTokenRequest(
            tenant=tenant, site=site, ttl_seconds=ttl_s, addresses=[self.tunnel_address]
        )
        answer = await self.nodes.CreateJoinToken(request, metadata=self.metadata)
        return str(answer.join_string)

    async def join(self, data_dir: Path, **where: Any) -> Membership:
        return await join(data_dir, await self.join_string(**where), Ceiling())

    async def apply(self, *resources: Any, tenant: str = TENANT) -> Any:
        request = admin.ApplyResourcesRequest(tenant=tenant, resources=resources)
        return await self.resources.ApplyResources(request, metadata=self.metadata)

    async def all_nodes(self, tenant: str = TENANT) -> list[Any]:
        answer = await self.nodes.ListNodes(admin.ListNodesRequest(tenant=tenant), metadata=self.metadata)
        return list(answer.nodes)

    async def node(self, name: str, tenant: str = TENANT) -> Any:
        answer = await self.nodes.GetNode(admin.GetNodeRequest(tenant=tenant, name=name), metadata=self.metadata)
        return answer.node


@asynccontextmanager
async def running_control_plane(
    data_dir: Path, *, clock: Clock | None = None, **settings: Any
) -> AsyncIterator[RunningControlPlane]:
    """On free ports of the loopback address; records the frames that it receives."""
    chosen = ControlPlaneSettings(
        data_dir=data_dir,
        tunnel_listen=settings.pop("tunnel_listen", None) or f"127.0.0.1:{own_port()}",
        admin_listen="127.0.0.1:0",
        received_frames_file=data_dir / "received-frames.bin",
        **settings,
    )
    async with control_plane(chosen, clock=clock or SystemClock()) as endpoints:
        credentials = grpc.ssl_channel_credentials((data_dir / "ca" / "ca.pem").read_bytes())
        options = [("grpc.ssl_target_name_override", SERVER_NAME)]
        address = f"127.0.0.1:{endpoints.admin_port}"
        async with grpc.aio.secure_channel(address, credentials, options) as channel:
            token = (data_dir / "admin.token").read_text().strip()
            yield RunningControlPlane(data_dir, endpoints, channel, (("authorization", f"Bearer {token}"),))
