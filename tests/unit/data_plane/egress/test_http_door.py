"""The HTTP door: what may leave through it, and that it is exactly what is recorded."""

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from yarl import URL

from data_plane.ceiling.models import DoorCeiling, Endpoint
from data_plane.egress.http_door import HttpDoor, HttpRequest, is_below
from data_plane.egress.ledger import Ledger, open_ledger
from data_plane.egress.pinned_resolver import PinnedResolver, may_be
from data_plane.egress.reader import read_leaves
from faos_core.clock import SystemClock
from faos_core.errors import DeniedError, StopError, UnavailableError
from tests.patience import PATIENCE_S
from tests.servers.captured_http import captured_http

CUSTOMER = DoorCeiling.CUSTOMER
BODY = "grüß Gott, 4711".encode()


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    async with open_ledger(tmp_path / "ledger") as opened:
        yield opened


def door(ledger: Ledger, port: int, *, scheme: str = "http", host: str = "127.0.0.1", **fields: object) -> HttpDoor:
    endpoint = Endpoint("box", f"{scheme}://{host}:{port}/api", CUSTOMER)
    endpoint = replace(endpoint, **fields)  # type: ignore[arg-type]  # fields of Endpoint, by the tests' own hand
    return HttpDoor("remote-model", endpoint, doors={}, ledger=ledger, clock=SystemClock())


def post(port: int, path: str = "/api/chat", *, scheme: str = "http", host: str = "127.0.0.1") -> HttpRequest:
    headers = {"Content-Type": "application/json", "Authorization": "secret", "Cookie": "a=b", "User-Agent": "me"}
    return HttpRequest("POST", f"{scheme}://{host}:{port}{path}", headers, BODY, CUSTOMER)


async def read(opened: HttpDoor, request: HttpRequest) -> bytes:
    async with opened.send(request) as answer:
        return b"".join([piece async for piece in answer.pieces])


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
async def test_bytes_received_are_the_bytes_recorded(ledger: Ledger, tmp_path: Path, method: str) -> None:
    """The ledger proves what left only if its digest is over the very bytes that arrive."""
    async with captured_http() as server, door(ledger, server.port) as opened:
        request = replace(post(server.port), method=method, body=BODY if method == "POST" else b"")
        assert await read(opened, request) == b"{}"

    [received], [leaf] = server.requests, list(read_leaves(tmp_path / "ledger"))
    assert leaf.body_sha256 == hashlib.sha256(received).digest()
    assert leaf.size_bytes == len(received)
    assert (leaf.door, leaf.destination) == ("remote-model", f"127.0.0.1:{server.port}")
    assert (leaf.method, leaf.fields_by_class) == (f"{method} /api/chat", {"CUSTOMER": 1})


async def test_customer_bytes_are_not_kept_and_others_are(ledger: Ledger, tmp_path: Path) -> None:
    """The ledger is shown to auditors; questions of customers are none of their business."""
    async with captured_http() as server, door(ledger, server.port) as opened:
        await read(opened, post(server.port))
        await read(opened, replace(post(server.port), data_class=DoorCeiling.IDENTIFIER))

    first, second = read_leaves(tmp_path / "ledger")
    assert first.body is None
    assert second.body == server.requests[1]
    segment = next((tmp_path / "ledger").glob("*.seg")).read_bytes()
    assert segment.count(BODY) == 1


async def test_bytes_with_a_sessions_credential_are_not_kept(ledger: Ledger, tmp_path: Path) -> None:
    """Who reads the ledger could speak in the session otherwise."""
    async with captured_http() as server, door(ledger, server.port) as opened:
        request = replace(
            post(server.port), data_class=DoorCeiling.IDENTIFIER, headers={"Mcp-Session-Id": "4711-secret"}
        )
        await read(opened, request)

    [leaf] = read_leaves(tmp_path / "ledger")
    assert b"mcp-session-id: 4711-secret" in server.requests[0]
    assert leaf.body is None
    assert leaf.body_sha256 == hashlib.sha256(server.requests[0]).digest()
    assert b"4711-secret" not in next((tmp_path / "ledger").glob("*.seg")).read_bytes()


async def test_headers_that_nobody_allowed_stay_here(ledger: Ledger) -> None:
    """Libraries add credentials and versions from the environment; none of them was asked for."""
    async with captured_http() as server, door(ledger, server.port) as opened:
        await read(opened, post(server.port))

    names = {line.split(b":")[0].lower() for line in server.requests[0].split(b"\r\n\r\n")[0].split(b"\r\n")[1:]}
    assert names == {b"host", b"content-type", b"content-length"}


async def test_what_cannot_be_recorded_is_not_sent(tmp_path: Path) -> None:
    """A message outside the ledger would make it a lie."""
    async with open_ledger(tmp_path / "ledger") as closed:
        pass
    async with captured_http() as server, door(closed, server.port) as opened:
        with pytest.raises(StopError):
            await read(opened, post(server.port))

    assert server.requests == []


@pytest.mark.parametrize("doors", [{}, {"remote-model": DoorCeiling.OPERATIONAL}], ids=["endpoint", "door"])
async def test_class_above_the_ceiling_is_refused(
    ledger: Ledger, tmp_path: Path, doors: dict[str, DoorCeiling]
) -> None:
    """Both the endpoint and the door bound what leaves; the lower one holds."""
    async with captured_http() as server:
        highest = CUSTOMER if doors else DoorCeiling.IDENTIFIER
        endpoint = Endpoint("box", f"http://127.0.0.1:{server.port}/api", highest)
        async with HttpDoor("remote-model", endpoint, doors=doors, ledger=ledger, clock=SystemClock()) as opened:
            with pytest.raises(DeniedError) as caught:
                await read(opened, post(server.port))

    assert caught.value.code.code == "egress.above_ceiling"
    assert server.requests == list(read_leaves(tmp_path / "ledger")) == []


def test_door_outside_the_registry_is_refused(ledger: Ledger) -> None:
    """A door that nobody registered has no ceiling to keep."""
    with pytest.raises(DeniedError):
        HttpDoor("side", Endpoint("box", "http://box", CUSTOMER), doors={}, ledger=ledger, clock=SystemClock())


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/api/chat",
        "https://127.0.0.1:{port}/api/chat",
        "http://localhost:{port}/api/chat",
        "http://127.0.0.1:{port}/apian",
        "http://127.0.0.1:{port}/",
        "http://127.0.0.1:{port}/api/%2e%2e/other",
    ],
)
async def test_url_outside_the_endpoint_is_refused(ledger: Ledger, tmp_path: Path, url: str) -> None:
    """The ceiling names scheme, host, port and path; a library or a server cannot talk the node into another."""
    async with captured_http() as server, door(ledger, server.port) as opened:
        for _ in range(2):
            with pytest.raises(DeniedError) as caught:
                await read(opened, replace(post(server.port), url=url.format(port=server.port)))

            assert caught.value.code.code == "egress.endpoint_elsewhere"
    assert server.requests == list(read_leaves(tmp_path / "ledger")) == []


async def test_redirects_are_not_followed(ledger: Ledger, tmp_path: Path) -> None:
    """A server that was trusted with a question must not pass the node on to another."""
    async with captured_http() as other:
        answer = f"HTTP/1.1 307 X\r\nLocation: http://127.0.0.1:{other.port}/api/chat\r\nContent-Length: 0\r\n\r\n"
        async with captured_http(answer.encode()) as server, door(ledger, server.port) as opened:
            with pytest.raises(UnavailableError) as caught:
                await read(opened, post(server.port))

    assert caught.value.code.code == "egress.endpoint_redirects"
    assert other.requests == []
    assert len(list(read_leaves(tmp_path / "ledger"))) == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_broken_answer_is_unavailable_and_not_asked_for_again(
    ledger: Ledger, tmp_path: Path, method: str
) -> None:
    """A repeat that nobody asked for would leave twice and be recorded once."""
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\nhalf"
    async with captured_http(half) as server, door(ledger, server.port) as opened:
        request = replace(post(server.port), method=method, body=b"", read_timeout_s=0.2)
        with pytest.raises(UnavailableError):
            await read(opened, request)

    assert len(server.requests) == len(list(read_leaves(tmp_path / "ledger"))) == 1


async def test_leaving_an_answer_hangs_up(ledger: Ledger) -> None:
    """A cancelled run must not keep a server computing for nobody."""
    endless = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"
    async with captured_http(endless) as server, door(ledger, server.port) as opened:
        async with opened.send(post(server.port)) as answer:
            assert await anext(answer.pieces) == b"x"
        async with asyncio.timeout(PATIENCE_S):
            await server.closed.wait()


async def test_connections_are_kept_for_post_alone(ledger: Ledger) -> None:
    """Opening one costs more than asking; but the library repeats a GET by itself when a kept one breaks."""
    async with captured_http() as server, door(ledger, server.port) as opened:
        for method in ("POST", "POST", "GET", "GET"):
            await read(opened, replace(post(server.port), method=method, body=b""))

    assert [request.startswith(b"GET") for request in server.requests] == [False, False, True, True]
    assert server.connections == 3


async def test_kept_connection_that_broke_is_not_used_twice(ledger: Ledger, tmp_path: Path) -> None:
    """A model server that was restarted must not cost a run, and nothing may be sent unrecorded."""
    async with captured_http() as server, door(ledger, server.port) as opened:
        await read(opened, post(server.port))
        server.hang_up()
        async with asyncio.timeout(PATIENCE_S):
            await server.closed.wait()
        assert await read(opened, post(server.port)) == b"{}"

    assert len(server.requests) == len(list(read_leaves(tmp_path / "ledger"))) == 2


async def test_more_requests_than_places_wait_and_are_recorded_when_they_go(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiting for a busy model server is no failure, however long it takes; what waits has not left yet."""
    monkeypatch.setattr("data_plane.egress.http_door.CONNECTIONS", 1)
    monkeypatch.setattr("data_plane.egress.http_door.CONNECT_TIMEOUT_S", 0.5)
    async with captured_http() as server, door(ledger, server.port) as opened, asyncio.TaskGroup() as group:
        async with opened.send(post(server.port)):
            second = group.create_task(read(opened, post(server.port)))
            await asyncio.wait([second], timeout=0.8)
            assert not second.done()
            assert ledger.head().size == 1

        assert await second == b"{}"
        assert ledger.head().size == 2


async def test_proxy_of_the_environment_is_not_used(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable in somebody's shell is no ceiling."""
    async with captured_http() as proxy, captured_http() as server, door(ledger, server.port) as opened:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        await read(opened, post(server.port))

    assert (len(proxy.requests), len(server.requests)) == (0, 1)


def certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's context for localhost, and the certificate to trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, private = folder / "ca.pem", folder / "key.pem"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, private)
    return context, pem


async def test_tls_holds_under_the_sites_own_authority_only(ledger: Ledger, tmp_path: Path) -> None:
    """A hospital's own authority must work, and whoever else answers at that address must not."""
    context, authority = certificate(tmp_path)
    async with captured_http(tls=context) as server:
        request = post(server.port, scheme="https", host="localhost")
        async with door(ledger, server.port, scheme="https", host="localhost", ca_file=authority) as trusted:
            assert await read(trusted, request) == b"{}"
        async with door(ledger, server.port, scheme="https", host="localhost") as distrustful:
            with pytest.raises(UnavailableError):
                await read(distrustful, request)

    assert len(server.requests) == 1


async def test_resolver_knows_no_other_host() -> None:
    """A look-up is a packet that leaves: only the endpoint's own name is asked for."""
    with pytest.raises(OSError, match="not the endpoint"):
        await PinnedResolver("box.example").resolve("elsewhere.example", 80)


@pytest.mark.parametrize(
    ("host", "address", "usable"),
    [
        ("box.example", "10.1.2.3", True),
        ("box.example", "2001:db8::1", True),
        ("box.example", "127.0.0.1", False),
        ("box.example", "::1", False),
        ("box.example", "::ffff:127.0.0.1", False),
        ("box.example", "169.254.169.254", False),
        ("box.example", "fe80::1%eth0", False),
        ("box.example", "0.0.0.0", False),
        ("localhost", "127.0.0.1", True),
        ("localhost", "10.1.2.3", False),
    ],
)
def test_name_stands_only_for_addresses_that_it_may_have(host: str, address: str, usable: bool) -> None:
    """DNS rebinding: whoever answers for a name must not point the node at itself or at a metadata service."""
    assert may_be(host, address) is usable


def test_path_is_below_by_whole_parts() -> None:
    """'/api' must not open '/apian'."""
    assert is_below(URL("http://a/api"), URL("http://a/api/"))
    assert is_below(URL("http://a/x"), URL("http://a"))
    assert not is_below(URL("http://a/apian"), URL("http://a/api"))
