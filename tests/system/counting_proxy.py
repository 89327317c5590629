"""A TCP proxy that counts what passes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass


@dataclass
class Counts:
    """Bytes of TCP payload, both ways, and how many connections carried them."""

    port: int = 0
    up_bytes: int = 0  # from who dialled
    down_bytes: int = 0
    connections: int = 0


@asynccontextmanager
async def counting_proxy(target_port: int) -> AsyncIterator[Counts]:
    """Listens on a free loopback port and passes everything on to `target_port`."""
    counts = Counts()
    writers: set[asyncio.StreamWriter] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: str) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                setattr(counts, direction, getattr(counts, direction) + len(data))
                writer.write(data)
                await writer.drain()
        writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        counts.connections += 1
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target_port)
        except OSError:
            writer.close()
            return
        writers.update({writer, far_writer})
        async with asyncio.TaskGroup() as group:
            group.create_task(pump(reader, far_writer, "up_bytes"))
            group.create_task(pump(far_reader, writer, "down_bytes"))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    counts.port = server.sockets[0].getsockname()[1]
    try:
        yield counts
    finally:
        server.close()
        for writer in writers:
            writer.close()
