"""The server's life: when it is ready, what it says when it cannot be, and how it ends."""

import asyncio
import socket
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from control_plane.api.bootstrap_admin import BootstrapAdmin
from control_plane.api.server import STOP_GRACE_S, AdminServer
from control_plane.db.schema import migrate_schema
from faos_core.errors import SetupError
from faos_core.lifecycle import running, until_ready
from faos_core.store import Store
from tests.contract.admin_api import OpenSessions, admin_api, credentials_of, services_over
from tunnel.errors import PORT_TAKEN


def server_on(listen: str, folder: Path) -> AdminServer:
    """Over a store that is not open: enough for what needs no data."""
    url = f"sqlite:///{folder / 'cp.db'}"
    services = services_over(Store(url), folder, OpenSessions())
    admin = BootstrapAdmin.open(folder / "admin.token")
    return AdminServer(listen, credentials_of(folder), authenticator=admin, services=services)


async def test_port_is_known_when_ready(tmp_path: Path) -> None:
    """Port 0 is how tests, and two control planes on one machine, live side by side."""
    first, second = server_on("127.0.0.1:0", tmp_path), server_on("127.0.0.1:0", tmp_path)

    async with running([first, second]):
        assert 0 < first.port != second.port > 0


async def test_taken_port_is_said_before_anything_is_served(tmp_path: Path) -> None:
    """What, why and what to type; not a stack trace, and not two servers that share a port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        server = server_on(address, tmp_path)

        with pytest.raises(SetupError) as caught:
            await server.run()

    assert caught.value.code is PORT_TAKEN
    assert address in caught.value.what
    assert "admin_listen" in caught.value.next_step
    assert not server.ready.is_set()


async def test_second_server_on_the_same_port_is_refused(tmp_path: Path) -> None:
    """SO_REUSEPORT would let two control planes answer in turn."""
    first = server_on("127.0.0.1:0", tmp_path)
    async with running([first]):
        with pytest.raises(SetupError):
            await server_on(f"127.0.0.1:{first.port}", tmp_path).run()


async def test_stop_is_bounded_while_a_watcher_stays(tmp_path: Path) -> None:
    """A client that never hangs up must not keep the process; it hears NOT_SERVING first."""
    url = f"sqlite:///{tmp_path / 'cp.db'}"
    migrate_schema(url)
    server = server_on("127.0.0.1:0", tmp_path)
    task = asyncio.create_task(server.run())
    await until_ready(server, task)
    credentials = grpc.ssl_channel_credentials(credentials_of(tmp_path).ca_pem)
    async with grpc.aio.secure_channel(f"localhost:{server.port}", credentials) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING

        task.cancel()
        heard = await watch.read()
        async with asyncio.timeout(STOP_GRACE_S + 5):
            await asyncio.wait([task])

        assert heard.status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert task.cancelled()


async def test_large_page_of_answers_passes(tmp_path: Path) -> None:
    """The server's own bound is the answer's, not gRPC's default of 4 MiB for requests."""
    async with admin_api(tmp_path) as api, api.channel(api.token) as channel:
        body = bytes(5 * 1024 * 1024)
        call = channel.unary_unary("/faos.admin.v1.TenantService/ListTenants")(body)

        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT  # read whole, and parsed
