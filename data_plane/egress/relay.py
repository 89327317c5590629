"""Connections of libraries that know no proxy, handed to it: gRPC's and the HTTP door's.

For each destination a Unix socket of this process, mode 0600, in the node's data folder. Whoever connects to it speaks
with the destination, and TLS is between those two. gRPC could speak to a proxy by itself, but it lets the
environment's `no_proxy` decide, says nothing to the ledger, and cannot reach a proxy over TLS; see
docs/dev/adr/0009-proxy-by-a-relay.md.
"""

import asyncio
import logging
import os
import socket
from contextlib import AsyncExitStack, suppress
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

from data_plane.egress.dialing import Streams
from data_plane.egress.errors import RELAY_FAILED
from data_plane.egress.proxy import Proxy
from faos_core import names
from faos_core.address import Address
from faos_core.errors import FaosError, SetupError

log = logging.getLogger(__name__)

CHUNK_BYTES = 64 * 1024
BACKLOG = 128


class Relay:
    """`async with`; leaving it breaks every connection. Belongs to one event loop."""

    def __init__(self, folder: Path, proxy: Proxy) -> None:
        """folder: only this user may look into it."""
        self.proxy = proxy
        self._folder = folder
        self._numbers = count()
        self._sockets: dict[Address, Path] = {}
        self._failures: dict[Address, FaosError] = {}
        self._stack = AsyncExitStack()
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._group)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for path in self._sockets.values():
            path.unlink(missing_ok=True)
        for task in self._tasks:
            task.cancel()
        await self._stack.aclose()  # told of no error: a task group would wrap that of who uses the relay

    async def listen(self, destination: Address) -> Path:
        """The socket that leads there. Idempotent. Raises SetupError."""
        if destination not in self._sockets:
            path = self._folder.resolve() / f"via{next(self._numbers)}.sock"
            await self._serve(path, destination)
        return self._sockets[destination]

    def failure(self, destination: Address) -> FaosError | None:
        """Why the latest connection there did not come up; None when it did."""
        return self._failures.get(destination)

    async def _serve(self, path: Path, destination: Address) -> None:
        def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = self._group.create_task(self._relay((reader, writer), destination), name="proxy.relay")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        try:
            listening = bound(path)
        except OSError as error:
            raise SetupError(RELAY_FAILED, path=path, reason=str(error.strerror or error)) from error
        self._sockets[destination] = path  # before the first await: who asks meanwhile connects to it already
        server = await asyncio.start_unix_server(accepted, sock=listening)
        self._stack.callback(server.close)

    async def _relay(self, near: Streams, destination: Address) -> None:
        try:
            far = await self.proxy.connect(destination)
        except FaosError as error:
            self._failures[destination] = error
            log.warning("proxy.failed", extra={names.ADDRESS: str(destination), names.CODE: error.code.code})
            near[1].close()
            return
        self._failures.pop(destination, None)
        await join(near, far)


async def join(near: Streams, far: Streams) -> None:
    """Pass bytes both ways until one end is done; both are closed then. Bounded by what the streams buffer."""
    try:
        async with asyncio.TaskGroup() as group:
            ways = [group.create_task(pump(near[0], far[1])), group.create_task(pump(far[0], near[1]))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
    finally:
        near[1].close()
        far[1].close()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()


def bound(path: Path) -> socket.socket:
    """A listening socket of mode 0600. What is there is a dead process's. Raises OSError."""
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        listening.bind(str(path))
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    finally:
        os.umask(before)
    listening.setblocking(False)
    return listening
