"""MCP over the standard input and output of a process of ours."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import mcp_types
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client import Transport
from mcp.shared.message import SessionMessage
from pydantic import ValidationError

from data_plane.tools.lives import Fault
from data_plane.tools.mcp_connection import Fail, message_limit
from data_plane.tools.process import LineTooLongError, ServerProcess, running
from data_plane.tools.sandbox import Launch

type_of_item = SessionMessage | Exception


class StdioCarrier:
    """One process, from its start to its certain end. Implements Carrier."""

    is_ours = True

    def __init__(self, server: str, launch: Launch, *, result_bytes: int) -> None:
        self._server = server
        self._launch = launch
        self._result_bytes = result_bytes
        self._process: ServerProcess | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def stderr(self) -> bytes:
        """The last 16 KiB that the server wrote to standard error; never for a log."""
        return self._process.stderr if self._process else b""

    def cut(self) -> None:
        """A killed process ends its standard output, which closes the session."""
        if self._process:
            self._process.kill()

    @asynccontextmanager
    async def opened(self, fail: Fail) -> AsyncIterator[Transport]:
        """See Carrier.opened."""
        async with running(self._launch, line_bytes=message_limit(self._result_bytes)) as process:
            self._process = process
            to_session, inbox = anyio.create_memory_object_stream[type_of_item](0)
            outbox, from_session = anyio.create_memory_object_stream[SessionMessage](0)
            async with asyncio.TaskGroup() as group:
                pumps = [
                    group.create_task(read(process, to_session, fail), name=f"{self._server}.stdout"),
                    group.create_task(write(process, from_session), name=f"{self._server}.stdin"),
                    group.create_task(process.drain_stderr(), name=f"{self._server}.stderr"),
                ]
                try:
                    yield joined(inbox, outbox)
                finally:
                    await process.stop()
                    for pump in pumps:
                        pump.cancel()


async def read(process: ServerProcess, sink: MemoryObjectSendStream[type_of_item], fail: Fail) -> None:
    """Hand every line of the process to the session."""
    async with sink:
        try:
            while (line := await process.read_line()) is not None:
                if line.strip():
                    await sink.send(SessionMessage(mcp_types.jsonrpc_message_adapter.validate_json(line)))
            fail(Fault.DIED)
        except (ValidationError, LineTooLongError):
            fail(Fault.GARBAGE)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            fail(Fault.DIED)  # the session ended first
    await process.discard_stdout()


async def write(process: ServerProcess, source: MemoryObjectReceiveStream[SessionMessage]) -> None:
    """Hand every message of the session to the process."""
    async with source:
        async for item in source:
            await process.write_line(item.message.model_dump_json(by_alias=True, exclude_unset=True).encode())


@asynccontextmanager
async def joined(
    inbox: MemoryObjectReceiveStream[type_of_item], outbox: MemoryObjectSendStream[SessionMessage]
) -> AsyncIterator[tuple[MemoryObjectReceiveStream[type_of_item], MemoryObjectSendStream[SessionMessage]]]:
    """Both ends as the library's transport; closed on leaving."""
    async with inbox, outbox:
        yield inbox, outbox
