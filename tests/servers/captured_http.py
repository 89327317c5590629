"""An HTTP server that keeps every byte that it is sent, and answers what a test says."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


class CapturedHttp:
    """`requests` holds each request as it came, head and body; `closed` is set when a client hangs up.

    A connection is kept for as long as the client wants; `connections` counts them."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.requests: list[bytes] = []
        self.connections = 0
        self.closed = asyncio.Event()
        self.port = 0
        self._writers: set[asyncio.StreamWriter] = set()

    def hang_up(self) -> None:
        """Close every connection, as a server that is restarted does."""
        for writer in self._writers:
            writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = LENGTH.search(head)
                self.requests.append(head + (await reader.readexactly(int(length[1])) if length else b""))
                writer.write(self.answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            self.closed.set()
        finally:
            self._writers.discard(writer)
            writer.close()


@asynccontextmanager
async def captured_http(answer: bytes = OK, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[CapturedHttp]:
    captured = CapturedHttp(answer)
    server = await asyncio.start_server(captured.serve, "127.0.0.1", 0, ssl=tls)
    captured.port = server.sockets[0].getsockname()[1]
    try:
        yield captured
    finally:
        server.close()
