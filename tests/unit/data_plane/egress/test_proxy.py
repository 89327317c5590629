"""The way through a proxy: what is asked of it, what is recorded, and every way in which it can refuse."""

import asyncio
from pathlib import Path

import pytest

from data_plane.egress.authorities import Authorities
from data_plane.egress.proxy import Proxy, ProxyRequest, parse_proxy_url
from data_plane.egress.relay import Relay
from faos_core.address import Address
from faos_core.errors import FaosError, SetupError, StopError, UnavailableError, define
from tests.patience import PATIENCE_S
from tests.servers.captured_http import captured_http
from tests.servers.proxies import Authority, ConnectProxy, running

SOMETHING = define("test.ledger_full", what="w", why="w", next_step="n")
SECRET = "us%40er:p%3Ass"  # as typed in a URL
ASK = b"GET / HTTP/1.1\r\n\r\n"


def proxy_of(server: ConnectProxy, *, user: str = "", pem: bytes = b"", file: Path | None = None) -> Proxy:
    url = server.url.replace("://", f"://{user}@") if user else server.url
    return Proxy(parse_proxy_url(url), credentials_file=file, authorities=Authorities(pem.decode()))


async def answer_through(proxy: Proxy, port: int, host: str = "127.0.0.1") -> bytes:
    reader, writer = await proxy.connect(Address(host, port))
    writer.write(ASK)
    answer = await reader.readuntil(b"\r\n")
    writer.close()
    return answer


async def test_destination_is_reached_through_the_proxy() -> None:
    """A site whose firewall lets nothing else out works."""
    async with captured_http() as server, running(ConnectProxy()) as proxy:
        assert await answer_through(proxy_of(proxy), server.port) == b"HTTP/1.1 200 OK\r\n"

    assert server.requests == [ASK]
    assert proxy.requests == [
        f"CONNECT 127.0.0.1:{server.port} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode()
    ]


@pytest.mark.needs("ipv6")
async def test_proxy_and_destination_may_have_ipv6_addresses() -> None:
    """Brackets belong in text and not in sockets."""
    async with running(ConnectProxy(host="::1")) as proxy, running(ConnectProxy(host="::1")) as far:
        _reader, writer = await proxy_of(proxy).connect(Address("::1", far.port))
        writer.close()

    assert proxy.destinations() == {f"[::1]:{far.port}"}


async def test_credentials_come_from_the_url_or_from_a_file(tmp_path: Path) -> None:
    """A file can be rotated, and is in no process list."""
    (file := tmp_path / "credentials").write_text("us@er:p:ss\n")
    async with captured_http() as server, running(ConnectProxy(credentials="us@er:p:ss")) as proxy:
        await answer_through(proxy_of(proxy, user=SECRET), server.port)
        await answer_through(proxy_of(proxy, file=file), server.port)

    assert len(server.requests) == 2


async def test_request_is_recorded_before_it_is_sent() -> None:
    """A message outside the ledger would make it a lie; one that cannot be recorded does not leave."""
    recorded: list[ProxyRequest] = []

    async def record(request: ProxyRequest) -> None:
        assert server.requests == []
        recorded.append(request)
        raise StopError(SOMETHING)

    async with running(ConnectProxy()) as server:
        proxy = Proxy(parse_proxy_url(server.url), credentials_file=None, authorities=Authorities(), record=record)
        with pytest.raises(StopError):
            await proxy.connect(Address("far.example", 443))
        await asyncio.sleep(0)

    assert [str(each.destination) for each in recorded] == ["far.example:443"]
    assert server.requests == []


@pytest.mark.parametrize(
    ("server", "user", "code"),
    [
        (ConnectProxy(credentials="a:b"), "", "proxy.wants_credentials"),
        (ConnectProxy(credentials="a:b"), "a:wrong", "proxy.wants_credentials"),
        (ConnectProxy(answer=b"HTTP/1.1 403 Forbidden\r\n\r\n"), "", "proxy.refused"),
        (ConnectProxy(answer=b"HTTP/1.1 502 Bad Gateway\r\n\r\n"), "", "proxy.refused"),
        (ConnectProxy(answer=b"HTTP/1.1 302 Found\r\nLocation: /login\r\n\r\n"), "", "proxy.refused"),
        (ConnectProxy(answer=b"SSH-2.0-OpenSSH\r\n\r\n"), "", "proxy.not_http"),
        (ConnectProxy(answer=b"HTTP/1.1 OK\r\n\r\n"), "", "proxy.not_http"),
        (ConnectProxy(answer=b"x" * 100_000), "", "proxy.not_http"),
        (ConnectProxy(answer=b"cut"), "", "proxy.not_http"),
    ],
    ids=["asks", "wrong", "forbidden", "unreachable", "portal", "ssh", "no-status", "endless", "cut"],
)
async def test_refusal_says_why_and_hides_the_password(server: ConnectProxy, user: str, code: str) -> None:
    """Whoever runs the site must know whom to ask, and for what."""
    async with running(server) as proxy:
        with pytest.raises(FaosError) as caught:
            await proxy_of(proxy, user=user).connect(Address("far.example", 443))

    error = caught.value
    assert error.code.code == code
    assert "wrong" not in error.what + error.why + error.next_step
    assert str(proxy.port) in error.what
    server.requests.clear()


async def test_what_a_proxy_cannot_reach_may_come_back() -> None:
    """The node dials again by itself; a proxy that refuses by rule needs a person."""
    async with running(ConnectProxy()) as proxy:
        with pytest.raises(UnavailableError):
            await proxy_of(proxy).connect(Address("127.0.0.1", 1))


async def test_proxy_that_is_gone_is_not_gone_around() -> None:
    """The network's rule is that everything passes it."""
    async with running(ConnectProxy()) as proxy:
        pass
    with pytest.raises(UnavailableError) as caught:
        await proxy_of(proxy).connect(Address("127.0.0.1", 1))

    assert caught.value.code.code == "proxy.unreachable"


async def test_proxy_in_tls_is_believed_by_the_sites_authorities_alone() -> None:
    """Whoever holds the credentials of the proxy must be the proxy."""
    authority = Authority("Corp CA")
    async with captured_http() as server, running(ConnectProxy(tls=authority.server("127.0.0.1"))) as proxy:
        assert await answer_through(proxy_of(proxy, pem=authority.pem), server.port) == b"HTTP/1.1 200 OK\r\n"
        with pytest.raises(SetupError) as caught:
            await proxy_of(proxy, pem=Authority("Corp CA").pem).connect(Address("127.0.0.1", server.port))

    assert caught.value.code.code == "proxy.untrusted"
    assert len(proxy.requests) == 1


@pytest.mark.parametrize(
    "said", [None, b"", b"nocolon", b"a:b\nc:d"], ids=["missing", "empty", "no password", "two lines"]
)
async def test_credentials_file_that_is_none_is_said(tmp_path: Path, said: bytes | None) -> None:
    """Half a password would be sent, and refused for a reason that nobody finds."""
    if said is not None:
        (tmp_path / "file").write_bytes(said)
    async with running(ConnectProxy()) as proxy:
        with pytest.raises(SetupError) as caught:
            await proxy_of(proxy, file=tmp_path / "file").connect(Address("far.example", 443))

    assert caught.value.code.code == "proxy.credentials_unusable"
    assert proxy.connections == 0


@pytest.mark.parametrize(
    "text",
    [
        "proxy:3128",
        "ftp://proxy",
        "http://",
        "http://u:secret@",
        "http://u:secret@p:99999",
        "http://p/path",
        "http://proxy..example:3128",
        "http://p?q",
    ],
)
def test_malformed_url_is_refused_without_its_password(text: str) -> None:
    """The error goes into logs."""
    with pytest.raises(SetupError) as caught:
        parse_proxy_url(text)

    assert "secret" not in caught.value.what + caught.value.why


def test_url_with_a_password_is_not_shown() -> None:
    """Values of settings end in tracebacks and logs."""
    assert "p%3Ass" not in repr(url := parse_proxy_url(f"http://{SECRET}@proxy"))
    assert "p:ss" not in repr(url)
    assert (url.address, url.credentials) == (Address("proxy", 3128), b"us@er:p:ss")


async def test_relay_leads_to_its_destination_and_remembers_what_failed(tmp_path: Path) -> None:
    """gRPC says "socket closed"; the proxy said why."""
    async with running(ConnectProxy()) as proxy, captured_http() as server, Relay(tmp_path, proxy_of(proxy)) as relay:
        destination = Address("127.0.0.1", server.port)
        path = await relay.listen(destination)
        assert path.stat().st_mode & 0o777 == 0o600
        assert await relay.listen(destination) == path
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(ASK)
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
        assert relay.failure(destination) is None
        writer.close()

        proxy.answer = b"HTTP/1.1 403 Forbidden\r\n\r\n"
        reader, writer = await asyncio.open_unix_connection(path)
        assert await reader.read() == b""
        writer.close()
        failure = relay.failure(destination)

    assert failure is not None
    assert failure.code.code == "proxy.refused"
    assert not path.exists()


async def test_error_of_who_uses_the_relay_stays_what_it_is(tmp_path: Path) -> None:
    """A group of one error would reach the person as a defect of ours."""

    async def use(proxy: Proxy) -> None:
        async with Relay(tmp_path, proxy) as relay:
            await relay.listen(Address("far.example", 443))
            raise StopError(SOMETHING)

    async with running(ConnectProxy()) as server:
        with pytest.raises(StopError):
            await use(proxy_of(server))


async def test_relay_ends_while_connections_are_open(tmp_path: Path) -> None:
    """A node that stops does not wait for who holds a stream open."""
    async with running(ConnectProxy()) as proxy, captured_http() as server:
        async with Relay(tmp_path, proxy_of(proxy)) as relay:
            path = await relay.listen(Address("127.0.0.1", server.port))
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(ASK)
            await reader.readuntil(b"\r\n")
        async with asyncio.timeout(PATIENCE_S):
            await reader.read()
        writer.close()


async def test_relay_takes_the_place_of_a_dead_process_socket(tmp_path: Path) -> None:
    """A killed node leaves its sockets behind."""
    async with running(ConnectProxy()) as proxy:
        (tmp_path / "via0.sock").touch()
        async with Relay(tmp_path, proxy_of(proxy)) as relay:
            assert (await relay.listen(Address("far.example", 443))).is_socket()


async def test_folder_with_too_long_a_path_is_said(tmp_path: Path) -> None:
    """The system's own words would not tell what to change."""
    (folder := tmp_path / ("x" * 110)).mkdir()
    async with running(ConnectProxy()) as proxy, Relay(folder, proxy_of(proxy)) as relay:
        with pytest.raises(SetupError) as caught:
            await relay.listen(Address("far.example", 443))

        with pytest.raises(SetupError):  # and again: it was not noted as there
            await relay.listen(Address("far.example", 443))

    assert caught.value.code.code == "proxy.relay_failed"
