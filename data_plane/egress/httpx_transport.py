"""A door as the transport of a library that speaks through httpx: what the library sends, the door records first."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import httpx

from data_plane.ceiling.models import DoorCeiling
from data_plane.egress.http_door import HttpDoor, HttpRequest

ClassOf = Callable[[str], DoorCeiling]
ENCODING = "content-encoding"  # none was asked for; undone, it could make any size of few bytes


class TooLongError(httpx.HTTPError):
    """An answer exceeded what its reader takes."""

    def __init__(self) -> None:
        super().__init__("too long")


class DoorTransport(httpx.AsyncBaseTransport):
    """For one httpx client. Errors of the door pass through the library as they are."""

    def __init__(self, door: HttpDoor, class_of: ClassOf, *, answer_bytes: int) -> None:
        """class_of: path → highest class of data in a request to it. answer_bytes: of one answer; reading more raises
        TooLongError."""
        self._door = door
        self._class_of = class_of
        self._answer_bytes = answer_bytes

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        wanted = HttpRequest(
            method=request.method,
            url=str(request.url),
            headers=dict(request.headers),
            body=await request.aread(),
            data_class=self._class_of(request.url.path),
            read_timeout_s=request.extensions.get("timeout", {}).get("read"),
        )
        async with AsyncExitStack() as stack:
            answer = await stack.enter_async_context(self._door.send(wanted))
            body = AnswerBody(answer.pieces, stack.pop_all(), limit_bytes=self._answer_bytes)
        headers = [each for each in answer.headers if each[0].lower() != ENCODING]
        return httpx.Response(answer.status, headers=headers, stream=body)


class AnswerBody(httpx.AsyncByteStream):
    """The answer's pieces; closing it closes the connection."""

    def __init__(self, pieces: AsyncIterator[bytes], context: AsyncExitStack, *, limit_bytes: int) -> None:
        self._pieces = pieces
        self._context = context
        self._left_bytes = limit_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async with self._context:  # so that the door maps what breaks in here
            async for piece in self._pieces:
                self._left_bytes -= len(piece)
                if self._left_bytes < 0:
                    raise TooLongError
                yield piece

    async def aclose(self) -> None:
        await self._context.aclose()
