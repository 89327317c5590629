"""A node behind the networks that companies have: through a proxy, behind an inspector, over IPv6."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from data_plane.app import node
from data_plane.ceiling.models import Ceiling
from data_plane.egress.ledger_verifier import verify
from data_plane.egress.reader import read_leaves
from data_plane.egress.service import ledger_folder, open_egress
from data_plane.identity.certificates import NodeCertificates
from data_plane.identity.join import join
from data_plane.identity.store import IdentityStore, Membership
from data_plane.network import Network, kept
from data_plane.settings import NodeSettings
from faos.admin.v1 import admin_pb2 as admin
from faos.site.v1 import site_pb2 as site
from faos_cli.site_client import SiteClient, connect
from faos_core.clock import SystemClock
from faos_core.errors import FaosError
from faos_core.lifecycle import running as services_running
from tests.patience import PATIENCE_S
from tests.servers.proxies import INSPECTOR, Authority, ConnectProxy, running
from tests.system.harness import TENANT, RunningControlPlane, running_control_plane
from tests.system.small_site import fill_small_site
from tests.system.test_certificate_life import Eager, Obedient
from tunnel.client import TunnelClient
from tunnel.identity import decode_join_string, encode_join_string

CLOUD = "cloud.example"  # a name that only the proxy knows: there is no other way
USER = "node:fjord-lantern"


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[RunningControlPlane]:
    async with running_control_plane(tmp_path / "cp", heartbeat_s=1.0) as plane:
        await plane.create_tenant()
        yield plane


async def string_for(plane: RunningControlPlane, *addresses: str) -> str:
    string = decode_join_string(await plane.join_string())
    string.addresses[:] = addresses
    return encode_join_string(string)


@asynccontextmanager
async def light_node(data_dir: Path, member: Membership, network: Network | None = None) -> AsyncIterator[Obedient]:
    """The real identity, gate, ledger, route and tunnel; nothing behind them. Its `client` is there to be asked."""
    async with open_egress(data_dir, Ceiling(), network=network) as egress:
        side = Obedient(egress, epoch=1)
        certificates = NodeCertificates(IdentityStore(data_dir), SystemClock(), allow=egress.identifiers.allow)
        client = TunnelClient(
            member.addresses, certificates, sealer=egress.gate, node=side, backoff=Eager(), route=egress.route
        )
        async with services_running([client]):
            yield side


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(0.02)


async def test_node_joins_and_stays_connected_through_a_proxy_alone(plane: RunningControlPlane, tmp_path: Path) -> None:
    """In most hospitals and banks there is no other way out; and what the proxy was asked is in the ledger."""
    (credentials := tmp_path / "credentials").write_text(USER)
    async with running(ConnectProxy(credentials=USER, hosts={CLOUD: "127.0.0.1"})) as proxy:
        address = f"{CLOUD}:{plane.endpoints.tunnel_port}"
        network = Network(proxy=proxy.url, proxy_credentials_file=credentials)
        member = await join(tmp_path / "node", await string_for(plane, address), Ceiling(), network=network)
        async with light_node(tmp_path / "node", member, kept(tmp_path / "node")) as side:
            await until(lambda: side.is_connected)
            proxy.cut()
            await until(lambda: side.losses and side.is_connected and side.welcomes > 1)

    leaves = list(read_leaves(ledger_folder(tmp_path / "node")))
    asked = [leaf for leaf in leaves if leaf.door == "proxy"]
    assert verify(ledger_folder(tmp_path / "node")).ok
    assert proxy.destinations() == {address}
    assert len(asked) == len(proxy.requests) == proxy.connections >= 3  # enrolment, session, session again
    assert {leaf.body for leaf in asked} == {None}
    assert {leaf.destination for leaf in leaves if leaf.door == "tunnel"} == {address}


@pytest.mark.parametrize("behind_proxy", [True, False], ids=["at the proxy", "on the way"])
async def test_interception_is_named_when_a_node_joins(
    plane: RunningControlPlane, tmp_path: Path, behind_proxy: bool
) -> None:
    """ "Handshake failed" costs a day; the name of the inspector ends the search."""
    inspector = Authority()
    listening = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=inspector.server("x"))
    async with running(ConnectProxy(inspector=inspector)) as proxy, listening:
        port = plane.endpoints.tunnel_port if behind_proxy else listening.sockets[0].getsockname()[1]
        network = Network(proxy=proxy.url) if behind_proxy else None
        with pytest.raises(FaosError) as caught:
            await join(tmp_path / "node", await string_for(plane, f"127.0.0.1:{port}"), Ceiling(), network=network)

    assert caught.value.code.code == "tls.intercepted"
    assert INSPECTOR in caught.value.what
    assert not IdentityStore(tmp_path / "node").is_joined()


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 302 Found\r\nLocation: http://portal/\r\n\r\n"])
async def test_what_is_no_control_plane_at_all_is_said(plane: RunningControlPlane, tmp_path: Path, said: bytes) -> None:
    """A captive portal and a firewall that hangs up look alike to TLS libraries, and "unreachable" to people."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(said)
        writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with listening:
        address = f"127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        with pytest.raises(FaosError) as caught:
            await join(tmp_path / "node", await string_for(plane, address), Ceiling())

    assert caught.value.code.code == "tls.not_spoken"


async def test_the_next_address_is_tried_past_an_inspector(plane: RunningControlPlane, tmp_path: Path) -> None:
    """Control planes have several addresses so that one can fail."""
    inspector = Authority()
    listening = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=inspector.server("x"))
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        await join(tmp_path / "node", await string_for(plane, f"127.0.0.1:{port}", plane.tunnel_address), Ceiling())

    assert IdentityStore(tmp_path / "node").is_joined()


@pytest.mark.needs("model", "embedder")
async def test_interception_is_an_alarm_with_a_name_until_it_ends(
    plane: RunningControlPlane, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The site works on; whoever looks at it is told what to tell the network team."""
    async with running(ConnectProxy()) as proxy:
        network, data_dir = Network(proxy=proxy.url), tmp_path / "node"
        await join(data_dir, await string_for(plane, plane.tunnel_address), Ceiling(), network=network)
        proxy.inspector = Authority()
        settings = NodeSettings(data_dir=data_dir, site_file=fill_small_site(tmp_path / "site"))
        with caplog.at_level(logging.WARNING):
            async with node(replace(settings, dial_again_s=1.0)), connect(data_dir) as client:
                before = await status_with(client, lambda said: "tls.intercepted" in said.alarms)
                proxy.inspector = None
                after = await status_with(client, lambda said: said.connected)

    assert INSPECTOR in before.link_problem.what
    assert "exempt" in before.link_problem.next_step
    assert (list(after.alarms), after.HasField("link_problem")) == ([], False)
    [issuer, *_] = [each.issuer for each in caplog.records if getattr(each, "code", "") == "tls.intercepted"]  # type: ignore[attr-defined]  # names.ISSUER
    assert issuer == INSPECTOR


async def status_with(client: SiteClient, holds: Callable[[site.GetStatusResponse], bool]) -> site.GetStatusResponse:
    """What the node says of itself, once that holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds(said := await client.get_status()):
            await asyncio.sleep(0.1)
    return said


async def test_environments_proxy_is_not_the_tunnels(
    plane: RunningControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gRPC would follow it by itself, and with it the node's way out would be nobody's decision."""
    async with running(ConnectProxy()) as stray:
        for name in ("grpc_proxy", "https_proxy", "http_proxy"):
            monkeypatch.setenv(name, stray.url)
        member = await plane.join(tmp_path / "node")
        async with light_node(tmp_path / "node", member) as side:
            await until(lambda: side.is_connected)

    assert stray.connections == 0


async def test_environments_exceptions_do_not_lead_around_the_proxy(
    plane: RunningControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`no_proxy` in a unit's environment would send the node where the site said it must not go."""
    monkeypatch.setenv("no_proxy", "*,127.0.0.1,localhost")
    async with running(ConnectProxy()) as proxy:
        network = Network(proxy=proxy.url)
        string = await string_for(plane, plane.tunnel_address)
        await join(tmp_path / "node", string, Ceiling(), network=network)

    assert proxy.destinations() == {plane.tunnel_address}


@pytest.mark.needs("ipv6")
async def test_everything_goes_over_ipv6(tmp_path: Path) -> None:
    """Networks without IPv4 exist; brackets get lost in one place of ten."""
    async with running_control_plane(tmp_path / "cp", tunnel_listen="[::1]:0", heartbeat_s=1.0) as plane:
        await plane.create_tenant()
        address = f"[::1]:{plane.endpoints.tunnel_port}"
        async with running(ConnectProxy(host="::1")) as proxy:
            for name, network in (("direct", None), ("proxied", Network(proxy=proxy.url))):
                member = await join(tmp_path / name, await string_for(plane, address), Ceiling(), network=network)
                async with light_node(tmp_path / name, member, network) as side:
                    await until(lambda connected=side: connected.is_connected)  # type: ignore[misc]  # bound now

    assert proxy.destinations() == {address}
    for name in ("direct", "proxied"):
        leaves = read_leaves(ledger_folder(tmp_path / name))
        assert {leaf.destination for leaf in leaves} <= {address, f"[::1]:{proxy.port}"}


@pytest.mark.needs("ipv6")
async def test_join_string_of_an_ipv6_control_plane_names_where_it_listens(tmp_path: Path) -> None:
    """Without public_addresses the string is for this machine, and must hold there."""
    async with running_control_plane(tmp_path / "cp", tunnel_listen="[::1]:0") as plane:
        await plane.create_tenant()
        request = admin.CreateJoinTokenRequest(tenant=TENANT, site="main", ttl_seconds=60)
        answer = await plane.nodes.CreateJoinToken(request, metadata=plane.metadata)

    assert list(decode_join_string(answer.join_string).addresses) == [f"[::1]:{plane.endpoints.tunnel_port}"]
