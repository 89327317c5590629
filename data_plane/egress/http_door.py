"""A door that HTTP requests pass: one request, one leaf.

The leaf is over the request's bytes as they go into the connection, head and body, so the ledger's digest can be held
against what the endpoint received. So that nothing else ever goes out: headers are an allow-list, there is no cookie,
no proxy from the environment, no redirect followed, nothing is repeated by itself. The library repeats what other
methods than POST sent over a kept connection that broke, so these have a connection of their own each; those of POST
are kept for a moment, because opening one costs more than all else that a turn of a model does here.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
from yarl import URL

from data_plane.ceiling.models import DoorCeiling, Endpoint
from data_plane.egress.authorities import Authorities
from data_plane.egress.doors import ORDER, ceiling_of
from data_plane.egress.errors import ABOVE_CEILING, ENDPOINT_ELSEWHERE, ENDPOINT_REDIRECTS, ENDPOINT_UNREACHABLE
from data_plane.egress.ledger import Entry, Ledger
from data_plane.egress.pinned_resolver import PinnedResolver
from data_plane.egress.proxied_connector import ProxiedConnector
from data_plane.egress.relay import Relay
from data_plane.egress.tls_probe import look
from faos_core.address import Address
from faos_core.clock import Clock
from faos_core.errors import DeniedError, FaosError, UnavailableError

CONNECTIONS = 128  # requests under way at once; more wait, for as long as their callers do
CONNECT_TIMEOUT_S = 10.0
KEPT_S = 2.0  # an idle connection; servers close theirs after 5 s and more
KEEPING = frozenset({"POST"})  # methods whose connection is kept
CHUNK_BYTES = 64 * 1024
MESSAGE = "http.request"
HEADERS = frozenset({"accept", "content-type", "last-event-id"})
HEADER_PREFIXES = ("mcp-",)
CREDENTIALS = frozenset({"mcp-session-id"})  # of the headers that go out: whoever reads it may speak in its session
WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS"})
CLASSES = {it: it.name for it in DoorCeiling}


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """What a client of a door wants to send. Headers that are not allow-listed are dropped."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    data_class: DoorCeiling  # the highest in it
    read_timeout_s: float | None = None  # between two pieces of the answer; None waits for ever


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """Readable until the context of `send` is left."""

    status: int
    headers: tuple[tuple[str, str], ...]
    pieces: AsyncIterator[bytes]


class HttpDoor:
    """One registered way out to one endpoint of `site.toml`. `async with`; any number of requests at once.

    Leaving it closes every connection; requests under way end with UnavailableError.
    """

    def __init__(
        self,
        door: str,
        endpoint: Endpoint,
        *,
        doors: Mapping[str, DoorCeiling],
        ledger: Ledger,
        clock: Clock,
        authorities: Authorities | None = None,
        relay: Relay | None = None,
    ) -> None:
        """doors: of the ceiling. What may pass is the lower of what it and the endpoint allow. relay: to the proxy,
        for an endpoint that is reached through it; open for as long as this door. No I/O.

        Raises DeniedError for a door that is not registered."""
        self.endpoint = endpoint
        self._door = door
        self._ceiling = min(ceiling_of(door, doors), endpoint.data_class, key=ORDER.index)
        self._ledger = ledger
        self._clock = clock
        self._url = URL(endpoint.url)
        self._address = Address(self._url.host or "", self._url.port or 0)
        self._destination = str(self._address)
        self._authorities = authorities or Authorities()
        self._relay = relay if endpoint.through_proxy else None
        self._places = asyncio.Semaphore(CONNECTIONS)
        self._sessions: Mapping[bool, aiohttp.ClientSession] = {}  # by whether they keep connections

    async def __aenter__(self) -> Self:
        """Raises SetupError (no way to the proxy)."""
        tls = self._url.scheme == "https"
        context = await asyncio.to_thread(self._authorities.context, self.endpoint.ca_file) if tls else None
        via = await self._relay.listen(self._address) if self._relay else None
        self._sessions = {keeps: self._opened(context, via, keeps=keeps) for keeps in (True, False)}
        return self

    def _connector(self, context: ssl.SSLContext | None, via: Path | None, *, keeps: bool) -> aiohttp.BaseConnector:
        keeping: dict[str, Any] = {"force_close": not keeps, "keepalive_timeout": KEPT_S if keeps else None, "limit": 0}
        if via:
            return ProxiedConnector(str(via), tls=context, host=self._address.host, **keeping)
        resolver = PinnedResolver(self._address.host)
        return aiohttp.TCPConnector(use_dns_cache=False, resolver=resolver, ssl=context if context else True, **keeping)

    def _opened(self, context: ssl.SSLContext | None, via: Path | None, *, keeps: bool) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=self._connector(context, via, keeps=keeps),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT_S),
        )

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Idempotent."""
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            await session.close()

    @asynccontextmanager
    async def send(self, request: HttpRequest) -> AsyncIterator[HttpAnswer]:
        """Record the request, fsync, then send those bytes.

        Raises: DeniedError (class above the ceiling, or a URL outside the endpoint's): nothing was recorded or sent.
            StopError (the ledger cannot be written): nothing was sent. UnavailableError (no connection, it broke,
            or the endpoint redirects); the error names the endpoint, never its answer. SetupError (the proxy).
        Leaving the context before the answer's end closes the connection: the endpoint learns that nobody listens.
        """
        url = self._admitted(request)
        headers = headers_of(request, url)
        async with self._places:
            await self._record(request, url, wire_bytes(request, url, headers), keep=is_kept(request, headers))
            try:
                async with self._asked(request, url, headers) as answer:
                    if 300 <= answer.status < 400:
                        raise UnavailableError(ENDPOINT_REDIRECTS, endpoint=self.endpoint.name, status=answer.status)
                    found = tuple(answer.headers.items())
                    yield HttpAnswer(answer.status, found, answer.content.iter_chunked(CHUNK_BYTES))
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise await self._failed(error) from error
            except RuntimeError as error:  # the library's word for reading on after the door was closed
                if not self._sessions:
                    raise self._unreachable("the door is closed") from error
                raise

    def _asked(
        self, request: HttpRequest, url: URL, headers: Mapping[str, str]
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        if not self._sessions:
            raise self._unreachable("the door is closed")
        return self._sessions[request.method in KEEPING].request(
            request.method,
            url,
            headers=headers,
            data=request.body or None,
            allow_redirects=False,
            timeout=timeout_of(request.read_timeout_s),
        )

    def _admitted(self, request: HttpRequest) -> URL:
        if ORDER.index(request.data_class) > ORDER.index(self._ceiling):
            fields = {"data_class": CLASSES[request.data_class], "ceiling": self._ceiling.value}
            raise DeniedError(ABOVE_CEILING, message=MESSAGE, field="body", door=self._door, **fields)
        url = found_below(request.url, self._url)
        if url is None:
            raise DeniedError(ENDPOINT_ELSEWHERE, endpoint=self.endpoint.name, door=self._door)
        return url

    async def _record(self, request: HttpRequest, url: URL, wire: bytes, *, keep: bool) -> None:
        """Size and digest in any case, never a query; the bytes, where they are kept."""
        entry = Entry(
            at=self._clock.now(),
            door=self._door,
            destination=self._destination,
            method=f"{request.method} {url.raw_path}",
            message=MESSAGE,
            fields_by_class={CLASSES[request.data_class]: 1},
            body=wire,
            keep_body=keep,
        )
        await self._ledger.append(entry)

    async def _failed(self, error: Exception) -> FaosError:
        """What the proxy said, where there is one and it said anything; whose certificate it is that does not hold."""
        if said := self._relay.failure(self._address) if self._relay else None:
            return said
        fault = certificate_fault(error)
        return self._unreachable(f"{fault}{await self._issuer()}" if fault else type(error).__name__)

    async def _issuer(self) -> str:
        """For the end of a sentence; empty when nobody answers any more."""
        proxy = self._relay.proxy if self._relay else None
        try:
            seen = await look(self._address, proxy=proxy, server_name=self._address.host)
        except (FaosError, OSError, TimeoutError):
            return ""
        return f"; it is issued by {seen.issuer!r}"

    def _unreachable(self, reason: str) -> UnavailableError:
        return UnavailableError(ENDPOINT_UNREACHABLE, endpoint=self.endpoint.name, reason=reason)


@lru_cache(maxsize=64)
def timeout_of(read_s: float | None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT_S, sock_read=read_s)


@lru_cache(maxsize=256)
def found_below(text: str, root: URL) -> URL | None:
    """Where a request goes; None for a place that is not the root's. A door is asked for the same few all the time."""
    url = URL(text)
    return url.with_fragment(None) if url.origin() == root.origin() and is_below(url, root) else None


def is_below(url: URL, root: URL) -> bool:
    """Whether the path is the root's or lies under it. Paths with dots in them are nobody's."""
    base = root.raw_path.rstrip("/")
    if any(part in (".", "..") for part in url.path.split("/")):
        return False
    return url.raw_path == base or url.raw_path.startswith(base + "/")


def headers_of(request: HttpRequest, url: URL) -> dict[str, str]:
    """All headers that go out, in their order."""
    allowed = {
        name.lower(): value
        for name, value in request.headers.items()
        if name.lower() in HEADERS or name.lower().startswith(HEADER_PREFIXES)
    }
    length = {"Content-Length": str(len(request.body))} if request.body or request.method not in WITHOUT_BODY else {}
    close = {} if request.method in KEEPING else {"Connection": "close"}
    return {"Host": url.host_port_subcomponent or "", **allowed, **length, **close}


def is_kept(request: HttpRequest, headers: Mapping[str, str]) -> bool:
    """Whether the ledger may hold the bytes: no customer's data and no credential in them."""
    return request.data_class is not DoorCeiling.CUSTOMER and not CREDENTIALS & headers.keys()


def wire_bytes(request: HttpRequest, url: URL, headers: Mapping[str, str]) -> bytes:
    """The request as it goes into the connection. Source: RFC 9112, sections 3 and 5."""
    lines = [f"{request.method} {url.raw_path_qs} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + request.body


def certificate_fault(error: Exception) -> str:
    """Why a certificate does not hold; empty for any other error. Never words of the endpoint."""
    causes = (getattr(error, "certificate_error", None), error.__cause__)  # as the library wraps it, direct or proxied
    return next((each.verify_message for each in causes if isinstance(each, ssl.SSLCertVerificationError)), "")
