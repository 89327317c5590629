"""The network's HTTP proxy: asks it for a connection to somewhere else. Source: RFC 9110, section 9.3.6 (CONNECT).

The request names the destination and, where the proxy wants to know, who asks. It is recorded before it is sent, as
every message; with credentials in it, only its size and digest are kept. What goes through the connection afterwards is
between the node and the destination.
"""

import asyncio
import base64
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from data_plane.egress.authorities import Authorities
from data_plane.egress.dialing import Streams, dial
from data_plane.egress.errors import (
    PROXY_CREDENTIALS_UNUSABLE,
    PROXY_NOT_HTTP,
    PROXY_REFUSED,
    PROXY_UNREACHABLE,
    PROXY_UNTRUSTED,
    PROXY_URL_MALFORMED,
    PROXY_WANTS_CREDENTIALS,
)
from data_plane.network import Network
from faos_core.address import Address
from faos_core.errors import FaosError, SetupError, UnavailableError

DEFAULT_PORTS = {"http": 3128, "https": 3129}
TIMEOUT_S = 10.0  # for each of: connection, answer
REASONS = {
    403: "Its rules do not allow it.",
    502: "It could not reach it.",
    503: "It could not reach it.",
    504: "It got no answer from it.",
}


@dataclass(frozen=True, slots=True)
class ProxyRequest:
    """A CONNECT that is about to be sent."""

    proxy: Address
    destination: Address
    wire: bytes
    is_secret: bool  # it carries credentials


Record = Callable[[ProxyRequest], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class ProxyUrl:
    """A proxy as it was typed."""

    address: Address
    is_tls: bool  # spoken to in TLS itself
    credentials: bytes = field(default=b"", repr=False)  # user:password; empty: none


def parse_proxy_url(text: str) -> ProxyUrl:
    """Raises SetupError; it shows nothing that could be a password."""
    try:
        parts = urlsplit(text)
        port = parts.port or DEFAULT_PORTS[parts.scheme]
        host = parts.hostname or ""
        host.encode("idna")  # as whoever looks the name up will; what cannot be is a ValueError
    except (ValueError, KeyError) as error:
        raise SetupError(PROXY_URL_MALFORMED, proxy=without_user(text)) from error
    if (
        not host
        or not host.isprintable()
        or " " in host
        or parts.path not in ("", "/")
        or parts.query
        or parts.fragment
    ):
        raise SetupError(PROXY_URL_MALFORMED, proxy=without_user(text))
    return ProxyUrl(Address(host, port), parts.scheme == "https", _credentials(parts))


def without_user(text: str) -> str:
    return text.rpartition("@")[2]


def _credentials(parts: SplitResult) -> bytes:
    return f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode() if parts.username else b""


class Proxy:
    """One proxy. For concurrent use; connections belong to who asked for them."""

    def __init__(
        self, url: ProxyUrl, *, credentials_file: Path | None, authorities: Authorities, record: Record | None = None
    ) -> None:
        """record: is awaited before anything is sent; None: nothing is recorded, which is not for a node."""
        self.address = url.address
        self._url = url
        self._credentials_file = credentials_file
        self._authorities = authorities
        self._record = record

    async def connect(self, destination: Address) -> Streams:
        """A connection to the destination. The caller closes it.

        Raises: UnavailableError (no answer), SetupError (refused, not authenticated, not trusted, not a proxy), and
        what the record raises; nothing was sent then.
        """
        request = await self._request(destination)
        reader, writer = await self._open(destination)
        try:
            if self._record:
                await self._record(request)
            writer.write(request.wire)
            status, head = await self._answer(reader, writer, destination)
            if not 200 <= status < 300:
                raise self._refused(status, head, destination, with_credentials=request.is_secret)
        except BaseException:
            writer.close()
            raise
        return reader, writer

    async def _request(self, destination: Address) -> ProxyRequest:
        credentials = await asyncio.to_thread(self._read_credentials)
        lines = [f"CONNECT {destination} HTTP/1.1", f"Host: {destination}"]
        if credentials:
            lines.append(f"Proxy-Authorization: Basic {base64.b64encode(credentials).decode()}")
        wire = "\r\n".join([*lines, "", ""]).encode()
        return ProxyRequest(self.address, destination, wire, is_secret=bool(credentials))

    def _read_credentials(self) -> bytes:
        if self._credentials_file is None:
            return self._url.credentials
        try:
            said = self._credentials_file.read_bytes().strip()
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise SetupError(PROXY_CREDENTIALS_UNUSABLE, file=self._credentials_file, reason=reason) from error
        if b":" not in said or b"\n" in said:
            reason = "it is not one line of user:password"
            raise SetupError(PROXY_CREDENTIALS_UNUSABLE, file=self._credentials_file, reason=reason)
        return said

    async def _open(self, destination: Address) -> Streams:
        context = await asyncio.to_thread(self._authorities.context) if self._url.is_tls else None
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await dial(self.address.host, self.address.port, tls=context)
        except ssl.SSLCertVerificationError as error:
            raise SetupError(PROXY_UNTRUSTED, proxy=self.address, reason=error.verify_message) from error
        except ssl.SSLError as error:
            raise SetupError(PROXY_NOT_HTTP, proxy=self.address) from error
        except (OSError, TimeoutError) as error:
            raise self._unreachable(destination, error) from error

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, destination: Address
    ) -> tuple[int, bytes]:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await writer.drain()
                head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError as error:
            raise SetupError(PROXY_NOT_HTTP, proxy=self.address) from error
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise SetupError(PROXY_NOT_HTTP, proxy=self.address) from error
            raise self._unreachable(destination, ConnectionResetError()) from error
        except (OSError, TimeoutError) as error:
            raise self._unreachable(destination, error) from error
        version, _, rest = head.partition(b" ")
        if not version.startswith(b"HTTP/1.") or not rest[:3].isdigit():
            raise SetupError(PROXY_NOT_HTTP, proxy=self.address)
        return int(rest[:3]), head

    def _refused(self, status: int, head: bytes, destination: Address, *, with_credentials: bool) -> FaosError:
        if status == 407:
            shown = "it did not accept what it was told" if with_credentials else "it was told nothing"
            return SetupError(PROXY_WANTS_CREDENTIALS, proxy=self.address, shown=shown, offered=schemes_of(head))
        reason = REASONS.get(status, "It gave no reason that is known here.")
        if status >= 500:
            return UnavailableError(
                PROXY_REFUSED, proxy=self.address, destination=destination, status=status, reason=reason
            )
        return SetupError(PROXY_REFUSED, proxy=self.address, destination=destination, status=status, reason=reason)

    def _unreachable(self, destination: Address, error: BaseException) -> UnavailableError:
        reason = "no answer in time" if isinstance(error, TimeoutError) else str_of(error)
        return UnavailableError(PROXY_UNREACHABLE, proxy=self.address, destination=destination, reason=reason)


def open_proxy(network: Network, authorities: Authorities, record: Record | None = None) -> Proxy | None:
    """The proxy of this network; None without one. No I/O. Raises SetupError."""
    if not network.proxy:
        return None
    url = parse_proxy_url(network.proxy)
    return Proxy(url, credentials_file=network.proxy_credentials_file, authorities=authorities, record=record)


def schemes_of(head: bytes) -> str:
    """The ways to authenticate that a 407 names, e.g. "Basic, NTLM". Words of the proxy, cut to names."""
    lines = [line for line in head.split(b"\r\n") if line.lower().startswith(b"proxy-authenticate:")]
    words = [line.split(b":", 1)[1].split()[:1] for line in lines]
    known = [word[0].decode("ascii", "replace")[:20] for word in words if word and word[0].isalnum()]
    return ", ".join(dict.fromkeys(known)) or "nothing that it named"


def str_of(error: BaseException) -> str:
    """The system's words for an error, or its kind."""
    return getattr(error, "strerror", None) or type(error).__name__
