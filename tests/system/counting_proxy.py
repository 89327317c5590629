"""A TCP proxy that counts what passes, and that cuts or holds it when told to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Wire:
    """Bytes of TCP payload, both ways, and how many connections carried them.

    cut: connections break, and new ones are closed at once; hold: they stay and nothing passes, as behind a firewall
    that drops; heal: all as before. up_bytes are those from who dialled.
    """

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.up_bytes = self.down_bytes = self.connections = 0
        self._target_port = target_port
        self._is_cut = False
        self._hold_at: int | None = None
        self._passes = asyncio.Event()
        self._passes.set()
        self._writers: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        self._is_cut = True
        for writer in self._writers:
            writer.transport.abort()

    def hold_after(self, down_bytes: int) -> None:
        """Nothing passes any more once so many more have gone down."""
        self._hold_at = self.down_bytes + down_bytes

    def hold(self) -> None:
        self._passes.clear()

    def heal(self) -> None:
        self._is_cut = False
        self._passes.set()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            if self._is_cut:
                raise ConnectionError
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.close()
            return
        ends = {writer, far_writer}
        for end in ends:
            end.transport.set_write_buffer_limits(0)  # what is counted has gone: nothing waits here
        self._writers |= ends
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pump(reader, far_writer, "up_bytes"))
            group.create_task(self._pump(far_reader, writer, "down_bytes"))
        self._writers -= ends

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: str) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._passes.wait()
                setattr(self, direction, getattr(self, direction) + len(data))
                writer.write(data)
                await writer.drain()
                if self._hold_at is not None and self.down_bytes >= self._hold_at:
                    self._hold_at = None
                    self.hold()
        writer.close()


@asynccontextmanager
async def counting_proxy(target_port: int) -> AsyncIterator[Wire]:
    """Listens on a free loopback port and passes everything on to `target_port`."""
    wire = Wire(target_port)
    server = await asyncio.start_server(wire.connected, "127.0.0.1", 0)
    wire.port = server.sockets[0].getsockname()[1]
    try:
        yield wire
    finally:
        server.close()
        wire.heal()
        wire.cut()
