"""Who answers TLS where the control plane should, and how it is said."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from data_plane.egress.authorities import Authorities
from data_plane.egress.proxy import Proxy, parse_proxy_url
from data_plane.egress.relay import Relay
from data_plane.egress.route import TunnelRoute, is_about_tls
from data_plane.egress.tls_probe import greet, judge, look, read_leaf
from faos_core.address import Address
from faos_core.clock import SystemClock
from faos_core.errors import FaosError, InvalidError, UnavailableError
from tests.servers.captured_http import captured_http
from tests.servers.proxies import INSPECTOR, Authority, ConnectProxy, running
from tunnel.errors import CONTROL_PLANE_UNREACHABLE, HEARTBEAT_MISSED

OURS = Authority("FAOS transport CA")
DER = Encoding.DER
FAILED = "Ssl handshake failed (TSI_PROTOCOL_FAILURE)"


@asynccontextmanager
async def answering(raw: bytes) -> AsyncIterator[Address]:
    """Something that is no TLS server: says this and hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield Address("127.0.0.1", server.sockets[0].getsockname()[1])
    finally:
        server.close()


async def seen(authority: Authority, *, now: datetime | None = None) -> FaosError | None:
    async with captured_http(tls=authority.server("control-plane.faos.internal")) as server:
        address = Address("127.0.0.1", server.port)
        answerer = await look(address)
    return judge(answerer, address, OURS.certificate, now or datetime.now(UTC))


async def test_control_plane_of_the_join_string_is_recognised() -> None:
    """A diagnosis that cries wolf sends people to the wrong department."""
    assert await seen(OURS) is None


async def test_interception_names_who_signed() -> None:
    """The one word that the network team needs."""
    error = await seen(Authority())

    assert error is not None
    assert error.code.code == "tls.intercepted"
    assert INSPECTOR in error.what
    assert "exempt 127.0.0.1:" in error.next_step


async def test_another_control_plane_is_no_interception() -> None:
    """After a restore from nothing, no firewall is to blame."""
    error = await seen(Authority("FAOS transport CA"))

    assert error is not None
    assert error.code.code == "tls.other_control_plane"


@pytest.mark.parametrize("days", [-400, 400])
async def test_wrong_clock_is_told_from_a_wrong_certificate(days: int) -> None:
    """A machine whose battery died says "certificate not yet valid", and everybody looks at the certificate."""
    error = await seen(OURS, now=datetime.now(UTC) + timedelta(days=days))

    assert error is not None
    assert error.code.code == "clock.off"


@pytest.mark.parametrize("raw", [b"", b"HTTP/1.1 302 Found\r\nLocation: http://portal/\r\n\r\n", b"SSH-2.0-x\r\n"])
async def test_what_does_not_speak_tls_is_said(raw: bytes) -> None:
    """A captive portal or a firewall that hangs up is neither down nor an impostor."""
    async with answering(raw) as address:
        with pytest.raises(UnavailableError) as caught:
            await look(address)

    assert caught.value.code.code == "tls.not_spoken"


@pytest.mark.parametrize("der", [b"", b"garbage", b"\x30\x03\x02\x01\x00", OURS.certificate.public_bytes(DER)[:-9]])
def test_certificate_that_cannot_be_read_is_an_error_of_ours(der: bytes) -> None:
    """Whoever stands in between must not be able to end the node with a few bytes."""
    with pytest.raises(UnavailableError):
        read_leaf(der, Address("far.example", 7443))


async def test_issuer_cannot_drive_a_terminal_or_fill_a_log() -> None:
    """Whoever stands in between chooses the name."""
    async with captured_http(tls=Authority("\x1b[31mred " + "x" * 50).server("a")) as server:
        issuer = (await look(Address("127.0.0.1", server.port))).issuer

    assert issuer.isprintable()
    assert len(issuer) <= 120


@pytest.mark.parametrize("own_tls", [False, True], ids=["http proxy", "https proxy"])
async def test_inspecting_proxy_is_seen_through_the_proxy(tmp_path: Path, own_tls: bool) -> None:
    """The usual place of an inspector is behind the CONNECT that the node must use."""
    corp = Authority("Corp CA")
    server = ConnectProxy(inspector=Authority(), tls=corp.server("127.0.0.1") if own_tls else None)
    async with running(server), captured_http(tls=OURS.server("x")) as far:
        url = parse_proxy_url(server.url)
        proxy = Proxy(url, credentials_file=None, authorities=Authorities(corp.pem.decode()))
        address = f"127.0.0.1:{far.port}"
        async with Relay(tmp_path, proxy) as relay:
            route = TunnelRoute(SystemClock(), relay)
            error = await route.explain(address, unreachable(address, FAILED), OURS.pem)

    assert error.code.code == "tls.intercepted"
    assert INSPECTOR in error.what


async def test_proxys_own_refusal_goes_before_any_look(tmp_path: Path) -> None:
    """gRPC only sees a socket that closes."""
    async with running(ConnectProxy(answer=b"HTTP/1.1 403 Forbidden\r\n\r\n")) as server:
        proxy = Proxy(parse_proxy_url(server.url), credentials_file=None, authorities=Authorities())
        async with Relay(tmp_path, proxy) as relay:
            route = TunnelRoute(SystemClock(), relay)
            path = (await route.target("far.example:7443")).removeprefix("unix:")
            reader, writer = await asyncio.open_unix_connection(path)
            await reader.read()
            writer.close()
            error = await route.explain("far.example:7443", unreachable("far.example:7443", "Socket closed"), OURS.pem)

    assert error.code.code == "proxy.refused"
    assert len(server.requests) == 1


async def test_control_plane_that_is_merely_down_is_not_looked_at() -> None:
    """Thousands of nodes that wait for one restart must not knock twice each."""
    async with captured_http(tls=OURS.server("x")) as server:
        address = f"127.0.0.1:{server.port}"
        for error in (
            unreachable(address, "failed to connect to all addresses; last error: connection refused"),
            UnavailableError(HEARTBEAT_MISSED, silent_s=3, interval_s=1),
        ):
            assert await TunnelRoute(SystemClock()).explain(address, error, OURS.pem) is error

    assert not server.closed.is_set()


async def test_nobody_at_the_address_leaves_the_first_error() -> None:
    """The look adds what it saw, and hides nothing when it saw nothing."""
    async with answering(b"") as address:
        pass
    error = unreachable(str(address), FAILED)
    assert await TunnelRoute(SystemClock()).explain(str(address), error, OURS.pem) is error


async def test_address_that_nobody_can_dial_is_an_error_of_ours() -> None:
    """A join string may come from an old control plane."""
    with pytest.raises(InvalidError):
        await TunnelRoute(SystemClock()).target("::1:7443")


def unreachable(address: str, details: str) -> UnavailableError:
    return UnavailableError(CONTROL_PLANE_UNREACHABLE, address=address, details=details, timeout_s=20)


@pytest.mark.parametrize("details", [FAILED, "Socket closed", "recvmsg:Connection reset by peer", "End of TCP stream"])
def test_grpcs_words_for_tls_are_known(details: str) -> None:
    """They are all that there is to go by; tests/system/test_networks.py meets the real ones."""
    assert is_about_tls(details)


async def test_connection_that_ends_right_behind_the_handshake_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A control plane that wants a certificate hangs up on who shows none; on a busy machine before anybody looks."""

    async def start_tls(*_: object, **__: object) -> None:
        """As the library's, which has forgotten the connection by then."""

    async with captured_http(tls=OURS.server("control-plane.faos.internal")) as server:
        monkeypatch.setattr(asyncio.get_running_loop(), "start_tls", start_tls, raising=False)
        with pytest.raises(UnavailableError) as caught:
            await look(Address("127.0.0.1", server.port))
        with pytest.raises(ConnectionResetError):
            await greet(Address("127.0.0.1", server.port), ssl.create_default_context())

    assert "Connection reset" in caught.value.what + caught.value.why
