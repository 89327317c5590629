"""The node's telemetry, put together."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from data_plane.activation import NodeActivation
from data_plane.egress.doors import TELEMETRY
from data_plane.egress.service import Egress
from data_plane.identity.store import Membership
from data_plane.link.session import node_version
from data_plane.settings import NodeSettings
from data_plane.telemetry.errors import ENDPOINT_UNKNOWN
from faos_core.errors import SetupError
from faos_core.meters import Meters
from faos_core.names import Attribute, Resource
from faos_core.telemetry_target import Target

if TYPE_CHECKING:
    from faos_core.telemetry import Sink, Telemetry

FOLDER = "telemetry"


@asynccontextmanager
async def open_telemetry(
    settings: NodeSettings,
    egress: Egress,
    membership: Membership,
    meters: Meters,
    tools: Callable[[], frozenset[str]],
) -> "AsyncIterator[Telemetry | None]":
    """None where it is off: then the SDK is not even imported. tools: names of those that the running configuration
    allows. Raises SetupError (no such endpoint)."""
    if settings.telemetry.to is Target.OFF:
        yield None
        return
    from faos_core.telemetry import Telemetry

    identity = membership.identity
    async with AsyncExitStack() as stack:
        yield Telemetry(
            await open_sink(settings, egress, stack),
            meters,
            resource={
                Resource.SERVICE_NAME: "faos-node",
                Resource.SERVICE_VERSION: node_version(),
                Resource.SERVICE_ID: identity.node,
                Attribute.TENANT_NAME: identity.tenant,
                Attribute.SITE_NAME: identity.site,
            },
            vouches=lambda text: text in egress.identifiers or text in tools(),
            clock=egress.clock,
            interval_s=settings.telemetry.interval_s,
        )


async def open_sink(settings: NodeSettings, egress: Egress, stack: AsyncExitStack) -> "Sink":
    wanted = settings.telemetry
    if wanted.to is Target.FILE:
        from faos_core.telemetry_files import FileSink

        return FileSink(settings.data_dir / FOLDER, file_bytes=wanted.file_bytes, files=wanted.files)
    endpoint = egress.ceiling.endpoints.get(wanted.endpoint)
    if endpoint is None:
        raise SetupError(ENDPOINT_UNKNOWN, endpoint=wanted.endpoint, file=settings.ceiling_path)
    from data_plane.telemetry.collector import CollectorSink

    return CollectorSink(await stack.enter_async_context(egress.http_door(TELEMETRY.name, endpoint)))


def tools_of(activation: NodeActivation) -> frozenset[str]:
    """Names of the tools that the running configuration allows."""
    servers = activation.running().tool_servers.values()
    return frozenset(tool for server in servers for tool in server.allowed_tools)
