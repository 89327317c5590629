"""The HTTP door where the way leads through a proxy: the same request, and a ledger that stays true."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from data_plane.ceiling.models import Ceiling, DoorCeiling, Endpoint
from data_plane.egress.http_door import HttpDoor, HttpRequest
from data_plane.egress.interfaces import Leaf
from data_plane.egress.reader import read_leaves
from data_plane.egress.service import ledger_folder, open_egress
from data_plane.network import Network
from faos_core.errors import FaosError, SetupError, UnavailableError
from tests.servers.captured_http import captured_http
from tests.servers.proxies import INSPECTOR, Authority, ConnectProxy, running, write

CUSTOMER = DoorCeiling.CUSTOMER
PASSWORD = "fjord-lantern"


@asynccontextmanager
async def opened(folder: Path, endpoint: Endpoint, network: Network) -> AsyncIterator[HttpDoor]:
    ceiling = Ceiling(endpoints={endpoint.name: endpoint})
    way = open_egress(folder, ceiling, network=network)
    async with way as egress, egress.http_door("remote-model", endpoint) as door:
        yield door


def endpoint_at(url: str, **fields: bool) -> Endpoint:
    return Endpoint("box", url, CUSTOMER, through_proxy=fields.get("through_proxy", True))


async def post(door: HttpDoor) -> bytes:
    async with door.send(HttpRequest("POST", f"{door.endpoint.url}/chat", {}, b"secret", CUSTOMER)) as answer:
        return b"".join([piece async for piece in answer.pieces])


def leaves(folder: Path) -> list[Leaf]:
    return list(read_leaves(ledger_folder(folder)))


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("localhost", id="name")])
async def test_endpoint_receives_what_the_ledger_says_and_so_does_the_proxy(
    tmp_path: Path, scheme: str, host: str
) -> None:
    """Without CONNECT, a proxy would get the request in another form than is recorded."""
    authority = Authority()
    tls = authority.server(host) if scheme == "https" else None
    async with captured_http(tls=tls) as server, running(ConnectProxy()) as proxy:
        network = Network(proxy=proxy.url, ca_dir=write(tmp_path / "ca", corp=authority.pem))
        endpoint = endpoint_at(f"{scheme}://{host}:{server.port}/api")
        async with opened(tmp_path / "node", endpoint, network) as door:
            assert [await post(door) for _ in range(3)] == [b"{}"] * 3

    asked = [leaf for leaf in leaves(tmp_path / "node") if leaf.door == "proxy"]
    sent = [leaf for leaf in leaves(tmp_path / "node") if leaf.door == "remote-model"]
    assert [leaf.body for leaf in asked] == proxy.requests
    assert {leaf.method for leaf in asked} == {f"CONNECT {host}:{server.port}"}
    assert {leaf.destination for leaf in asked} == {f"127.0.0.1:{proxy.port}"}
    assert [leaf.body_sha256 for leaf in sent] == [hashlib.sha256(each).digest() for each in server.requests]
    assert {leaf.destination for leaf in sent} == {f"{host}:{server.port}"}


async def test_proxys_password_is_nowhere_at_rest(tmp_path: Path) -> None:
    """The ledger is shown to auditors, and kept for ever."""
    (credentials := tmp_path / "proxy.credentials").write_text(f"node:{PASSWORD}")
    async with captured_http() as server, running(ConnectProxy(credentials=f"node:{PASSWORD}")) as proxy:
        network = Network(proxy=proxy.url, proxy_credentials_file=credentials)
        async with opened(tmp_path / "node", endpoint_at(f"http://127.0.0.1:{server.port}"), network) as door:
            await post(door)

    [asked] = [leaf for leaf in leaves(tmp_path / "node") if leaf.door == "proxy"]
    [request] = proxy.requests
    assert (asked.body, asked.size_bytes) == (None, len(request))
    assert asked.body_sha256 == hashlib.sha256(request).digest()
    shown = request.split(b"Basic ")[1].split(b"\r\n")[0]
    kept = b"".join(file.read_bytes() for file in (tmp_path / "node").rglob("*") if file.is_file())
    assert shown not in kept
    assert PASSWORD.encode() not in kept


async def test_endpoint_that_does_not_say_so_is_reached_directly(tmp_path: Path) -> None:
    """A model server of the site's own network is no business of its proxy."""
    async with captured_http() as server, running(ConnectProxy()) as proxy:
        endpoint = endpoint_at(f"http://127.0.0.1:{server.port}", through_proxy=False)
        async with opened(tmp_path / "node", endpoint, Network(proxy=proxy.url)) as door:
            await post(door)

    assert proxy.connections == 0


async def test_environments_proxy_is_never_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would see where the node goes, and no setting of the site said so."""
    async with captured_http() as server, running(ConnectProxy()) as proxy, running(ConnectProxy()) as stray:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "grpc_proxy"):
            monkeypatch.setenv(name, stray.url)
        monkeypatch.setenv("no_proxy", "*")
        endpoint = endpoint_at(f"http://127.0.0.1:{server.port}")
        async with opened(tmp_path / "node", endpoint, Network(proxy=proxy.url)) as door:
            await post(door)

    assert (proxy.connections, stray.connections) == (1, 0)


async def test_proxys_refusal_is_what_the_caller_hears(tmp_path: Path) -> None:
    """ "Server disconnected" would send people to the endpoint."""
    async with captured_http() as server, running(ConnectProxy(answer=b"HTTP/1.1 403 No\r\n\r\n")) as proxy:
        endpoint = endpoint_at(f"https://127.0.0.1:{server.port}")
        async with opened(tmp_path / "node", endpoint, Network(proxy=proxy.url)) as door:
            with pytest.raises(FaosError) as caught:
                await post(door)

    assert caught.value.code.code == "proxy.refused"
    assert server.requests == []


async def test_interception_of_an_endpoint_is_refused_unless_the_site_trusts_it(tmp_path: Path) -> None:
    """Only the site says whose certificates it believes."""
    inspector = Authority()
    async with captured_http() as server, running(ConnectProxy(inspector=inspector)) as proxy:
        endpoint = endpoint_at(f"https://127.0.0.1:{server.port}")
        async with opened(tmp_path / "node", endpoint, Network(proxy=proxy.url)) as door:
            with pytest.raises(UnavailableError) as caught:
                await post(door)
        assert server.requests == []
        trusting = Network(proxy=proxy.url, ca_dir=write(tmp_path / "ca", corp=inspector.pem))
        async with opened(tmp_path / "node", endpoint, trusting) as door:
            assert await post(door) == b"{}"

    assert caught.value.code.code == "egress.endpoint_unreachable"
    assert "certificate" in caught.value.what
    assert INSPECTOR in caught.value.what


async def test_endpoint_behind_a_proxy_that_nobody_set_stops_the_start(tmp_path: Path) -> None:
    """The node must neither go around the proxy nor fail at the first question."""
    with pytest.raises(SetupError) as caught:
        async with opened(tmp_path, endpoint_at("http://box"), Network()):
            pass

    assert caught.value.code.code == "proxy.missing"


@pytest.mark.needs("ipv6")
async def test_endpoint_with_an_ipv6_address_is_recorded_as_it_is_typed(tmp_path: Path) -> None:
    """An auditor compares the ledger with site.toml."""
    async with running(ConnectProxy(host="::1", answer=b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")) as server:
        endpoint = endpoint_at(server.url, through_proxy=False)
        async with opened(tmp_path, endpoint, Network()) as door:
            assert await post(door) == b"{}"

    [leaf] = leaves(tmp_path)
    assert leaf.destination == f"[::1]:{server.port}"
