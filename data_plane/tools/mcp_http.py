"""MCP over streamable HTTP, to an endpoint of the site, through its door. Source: MCP 2025-11-25 and 2026-07-28,
"Streamable HTTP".

The library opens a stream for what a server may want to say by itself; nothing here listens to that, so it is refused
on this side and no connection is held open for it. A call's stream that breaks is resumed, not faster than once a
second. A call that is abandoned hangs up, also where the protocol of before 2026 would have waited on.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import httpx2
from mcp.client import Transport
from mcp.client.streamable_http import streamable_http_client

from data_plane.ceiling.models import DoorCeiling
from data_plane.egress.http_door import HttpDoor
from data_plane.egress.httpx2_transport import DoorTransport, TooLongError
from data_plane.tools.lives import Fault
from data_plane.tools.mcp_connection import Fail, message_limit
from faos_core import names
from faos_core.errors import FaosError

log = logging.getLogger(__name__)
T = TypeVar("T")

RESUME_PAUSE_S = 1.0
FAREWELL_S = 2.0  # for the server to hear that a session ends
ANSWER_MESSAGES = 4  # longest answer, a stream of several messages among them, in longest messages
# What holds words of the protocol and of the configuration only. Everything else may hold a customer's.
CONTROL = frozenset({"initialize", "notifications/cancelled", "notifications/initialized", "ping"}) | {
    "server/discover",
    "tools/list",
}
GONE = frozenset({401, 403, 404})  # with 5xx: no session is to be had from it as it is
LAST_EVENT_ID = "last-event-id"
EVENT_STREAM = "text/event-stream"
TYPES = ("application/json", EVENT_STREAM)
REMEMBERED = 4096  # abandoned requests; many times what can be under way at once
RequestId = int | str


class AbandonedError(Exception):
    """Nobody waits for this answer any more."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request says, as far as this side needs it."""

    method: str = ""
    request_id: RequestId | None = None
    cancels: RequestId | None = None


def asked_in(content: bytes) -> Asked:
    message: dict[str, Any] = json.loads(content) if content else {}
    cancels = message.get("params", {}).get("requestId") if message.get("method") == "notifications/cancelled" else None
    return Asked(str(message.get("method", "")), message.get("id"), cancels)


def class_of(headers: Mapping[str, str], content: bytes) -> DoorCeiling:
    """Highest class of data in a request; one without a body is about the session alone, but for one that resumes the
    answer to a call: it says where by a word of the server's."""
    is_control = asked_in(content).method in CONTROL if content else LAST_EVENT_ID not in headers
    return DoorCeiling.IDENTIFIER if is_control else DoorCeiling.CUSTOMER


class HttpCarrier:
    """One session with an endpoint. Implements Carrier."""

    is_ours = False
    pid = None

    def __init__(self, server: str, open_door: Callable[[], HttpDoor], *, result_bytes: int) -> None:
        """open_door: to the endpoint, not entered yet; owned from here on."""
        self._server = server
        self._open_door = open_door
        self._message_bytes = message_limit(result_bytes)
        self._exchanges: Exchanges | None = None

    def cut(self) -> None:
        if self._exchanges:
            self._exchanges.cut()

    @asynccontextmanager
    async def opened(self, fail: Fail) -> AsyncIterator[Transport]:
        """See Carrier.opened."""
        async with AsyncExitStack() as stack:
            try:
                door = await stack.enter_async_context(self._open_door())
            except FaosError as error:
                raise ConnectionError from self._told(error)
            through = DoorTransport(door, class_of, answer_bytes=self._message_bytes * ANSWER_MESSAGES)
            self._exchanges = Exchanges(through, lambda fault, error: self._fail(fail, fault, error))
            client = httpx2.AsyncClient(transport=self._exchanges, timeout=None, trust_env=False)
            await stack.enter_async_context(client)
            yield streamable_http_client(door.endpoint.url, http_client=client, max_sse_event_size=self._message_bytes)

    def _fail(self, fail: Fail, fault: Fault, error: Exception | None) -> None:
        if isinstance(error, FaosError):
            self._told(error)
        fail(fault)

    def _told(self, error: FaosError) -> FaosError:
        log.warning("tool_server.unreachable", extra={names.TOOL_SERVER: self._server, names.CODE: error.code.code})
        return error


class Exchanges(httpx2.AsyncBaseTransport):
    """The requests of one session. Never raises what the library would not survive: it ends the session instead."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, fail: Callable[[Fault, Exception | None], None]) -> None:
        self._inner = inner
        self._fail = fail
        self._is_cut = False
        self._abandoned: dict[RequestId, None] = {}  # the latest, in order
        self._waits: dict[asyncio.Timeout, RequestId | None] = {}
        self._request_of: WeakKeyDictionary[asyncio.Task[Any], RequestId] = WeakKeyDictionary()

    def cut(self) -> None:
        """Wake all that waits for the server; nothing is sent any more."""
        self._is_cut = True
        self._wake(lambda _: True)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """An answer in any case; one of ours (405, 503) where the server was not asked, or did not answer."""
        if self._is_cut:
            return httpx2.Response(httpx2.codes.SERVICE_UNAVAILABLE)
        if request.method == "GET" and LAST_EVENT_ID not in request.headers:
            return httpx2.Response(httpx2.codes.METHOD_NOT_ALLOWED)
        asked = asked_in(await request.aread())
        request_id = self._owner(request, asked)
        try:
            if request.method == "GET":
                await self.unless_abandoned(request_id, lambda: asyncio.sleep(RESUME_PAUSE_S))
            async with asyncio.timeout(FAREWELL_S if request.method == "DELETE" else None):
                answer = await self.unless_abandoned(request_id, lambda: self._inner.handle_async_request(request))
        except AbandonedError:
            return httpx2.Response(httpx2.codes.OK, json=last_word(request_id))
        except (FaosError, TimeoutError) as error:
            self._fail(Fault.DIED, error)
            return httpx2.Response(httpx2.codes.SERVICE_UNAVAILABLE)
        if asked.cancels is not None:
            self._abandon(asked.cancels)
        return await self._judged(asked, request_id, request, answer)

    async def unless_abandoned(self, request_id: RequestId | None, begin: Callable[[], Awaitable[T]]) -> T:
        """Raises AbandonedError as soon as the request is, or all is cut."""
        try:
            async with asyncio.timeout(None) as limit:
                if self._is_over(request_id):
                    limit.reschedule(0)
                    await asyncio.Event().wait()
                self._waits[limit] = request_id
                try:
                    return await begin()
                finally:
                    del self._waits[limit]
        except TimeoutError as error:
            if limit.expired():
                raise AbandonedError from error
            raise

    def broke(self, error: Exception) -> None:
        """An answer ended too early, or does not end."""
        self._fail(Fault.GARBAGE if isinstance(error, TooLongError) else Fault.DIED, error)

    def _owner(self, request: httpx2.Request, asked: Asked) -> RequestId | None:
        """Whose answer it is about: a stream is resumed by the task that asked."""
        task = asyncio.current_task()
        if task is None or request.method == "DELETE":
            return None
        if asked.request_id is not None:
            self._request_of[task] = asked.request_id
        return self._request_of.get(task) if request.method == "GET" else asked.request_id

    async def _judged(
        self, asked: Asked, request_id: RequestId | None, request: httpx2.Request, answer: httpx2.Response
    ) -> httpx2.Response:
        """A call that is refused by HTTP, or answered in another format, ends the session: the next one may do."""
        if asked.method == "tools/call":
            in_session = "mcp-session-id" in request.headers or answer.status_code != httpx2.codes.NOT_FOUND
            if answer.status_code >= 500 or (answer.status_code in GONE and in_session):
                self._fail(Fault.DIED, None)
            elif answer.status_code == httpx2.codes.OK and not content_type(answer).startswith(TYPES):
                self._fail(Fault.GARBAGE, None)
        body = AnswerBody(self, request_id, answer)
        return httpx2.Response(answer.status_code, headers=answer.headers, stream=body)

    def _abandon(self, request_id: RequestId) -> None:
        self._abandoned[request_id] = None
        while len(self._abandoned) > REMEMBERED:
            del self._abandoned[next(iter(self._abandoned))]
        self._wake(lambda waiting: waiting == request_id)

    def _is_over(self, request_id: RequestId | None) -> bool:
        return self._is_cut or request_id in self._abandoned

    def _wake(self, which: Callable[[RequestId | None], bool]) -> None:
        now_s = asyncio.get_running_loop().time()
        for limit, request_id in self._waits.items():
            if which(request_id) and not limit.expired():  # one that is waking is not to be woken again
                limit.reschedule(now_s)


class AnswerBody(httpx2.AsyncByteStream):
    """An answer's pieces. One that breaks ends the session and then itself; one that is abandoned ends in our words."""

    def __init__(self, exchanges: Exchanges, request_id: RequestId | None, answer: httpx2.Response) -> None:
        self._exchanges = exchanges
        self._request_id = request_id
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        pieces = aiter(self._answer.stream)  # type: ignore[arg-type]  # a door's answers are asynchronous
        try:
            while piece := await self._exchanges.unless_abandoned(self._request_id, lambda: anext(pieces, None)):
                yield piece
        except AbandonedError:
            yield ended_by_us(self._request_id, content_type(self._answer))
        except (FaosError, TooLongError) as error:
            self._exchanges.broke(error)

    async def aclose(self) -> None:
        await self._answer.aclose()


def content_type(answer: httpx2.Response) -> str:
    return answer.headers.get("content-type", "").lower()


def last_word(request_id: RequestId | None) -> dict[str, object]:
    """What ends a request for the library; whoever asked has left already."""
    return {"jsonrpc": "2.0", "id": request_id, "error": {"code": -32000, "message": "abandoned"}}


def ended_by_us(request_id: RequestId | None, kind: str) -> bytes:
    word = json.dumps(last_word(request_id))
    return f"\n\nevent: message\ndata: {word}\n\n".encode() if kind.startswith(EVENT_STREAM) else word.encode()
