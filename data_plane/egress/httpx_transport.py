"""A door as the transport of a library that speaks through httpx: what the library sends, the door records first."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import httpx

from data_plane.ceiling.models import DoorCeiling
from data_plane.egress.http_door import HttpDoor, HttpRequest

ClassOf = Callable[[str], DoorCeiling]


class DoorTransport(httpx.AsyncBaseTransport):
    """For one httpx client. Errors of the door pass through the library as they are."""

    def __init__(self, door: HttpDoor, class_of: ClassOf) -> None:
        """class_of: path → highest class of data in a request to it."""
        self._door = door
        self._class_of = class_of

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
            body = AnswerBody(answer.pieces, stack.pop_all())
        return httpx.Response(answer.status, headers=list(answer.headers), stream=body)


class AnswerBody(httpx.AsyncByteStream):
    """The answer's pieces; closing it closes the connection."""

    def __init__(self, pieces: AsyncIterator[bytes], context: AsyncExitStack) -> None:
        self._pieces = pieces
        self._context = context

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async with self._context:  # so that the door maps what breaks in here
            async for piece in self._pieces:
                yield piece

    async def aclose(self) -> None:
        await self._context.aclose()
