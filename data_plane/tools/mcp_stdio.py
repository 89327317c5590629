"""One life of an MCP server over standard input and output. The only importer of `mcp`.

Everything that goes wrong goes one way: `fail` notes the first fault and kills the process; that ends its standard
output, which closes the session, which wakes every call. Nothing here is cancelled from outside in the middle of a
handshake, and the session is entered and left by the one task that runs `live`.
"""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Any, cast

import anyio
import mcp
import mcp_types
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client import Transport
from mcp.shared.message import SessionMessage
from pydantic import ValidationError

from data_plane.tools.interfaces import ToolDefinition, ToolResult
from data_plane.tools.process import LineTooLongError, ServerProcess, running
from data_plane.tools.sandbox import Launch
from faos_core.json_schema import canonical

for library_logger in ("mcp", "client"):  # they log what servers send
    logging.getLogger(library_logger).propagate = False
    logging.getLogger(library_logger).addHandler(logging.NullHandler())

IDEMPOTENCY_KEY = "faos/idempotencyKey"
LIST_PAGES = 100
PINNED_FIELDS = {"name", "title", "description", "input_schema", "output_schema", "annotations"}

type_of_item = SessionMessage | Exception


class Fault(StrEnum):
    """Why a life ended."""

    DIED = "died"
    HUNG = "hung"
    GARBAGE = "garbage"
    NOT_STARTED = "not_started"
    STOPPED = "stopped"  # by us


class ConnectionLostError(Exception):
    """The life ended before the call was answered."""


class McpConnection:
    """One life of one server: `live` once, `call` while `definitions` are there, `fail` from anywhere."""

    def __init__(self, server: str, launch: Launch, *, result_bytes: int, on_over: Callable[[], None]) -> None:
        """on_over: called once, when this life is over and before any call hears of it."""
        self.fault: Fault | None = None
        self.definitions: dict[str, ToolDefinition] = {}
        self._server = server
        self._launch = launch
        self._result_bytes = result_bytes
        self._on_over = on_over
        self._process: ServerProcess | None = None
        self._client: mcp.Client | None = None
        self._over = asyncio.Event()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def stderr(self) -> bytes:
        """The last 16 KiB that the server wrote to standard error; never for a log."""
        return self._process.stderr if self._process else b""

    async def live(self, on_ready: Callable[[], None], *, start_timeout_s: float) -> Fault:
        """Start the process, shake hands, list tools, call `on_ready`, and return what ended it.

        Cancelling stops the process within 6 s.
        """
        watchdog = asyncio.get_running_loop().call_later(start_timeout_s, self.fail, Fault.HUNG)

        def ready() -> None:
            watchdog.cancel()
            on_ready()

        try:
            async with running(self._launch, line_bytes=line_limit(self._result_bytes)) as process:
                self._process = process
                await self._pumped(process, ready)
        except OSError:
            self.fail(Fault.NOT_STARTED)
        finally:
            watchdog.cancel()
        return self.fault or Fault.DIED

    def fail(self, fault: Fault) -> None:
        """End this life for this reason; the first reason stands."""
        self._end(fault)
        if self._process:
            self._process.kill()

    def stop(self) -> None:
        """End this life politely: the process may finish what it does within a second."""
        self._end(Fault.STOPPED)
        if self._client is None and self._process:
            self._process.kill()  # in the middle of the handshake there is nothing to be polite about

    async def call(self, tool: str, arguments: Mapping[str, Any], *, idempotency_key: str) -> ToolResult:
        """Raises ConnectionLostError; `fault` says why. Calls may overlap."""
        if self._client is None or self._over.is_set():
            raise ConnectionLostError
        try:
            meta = cast(mcp_types.RequestParamsMeta, {IDEMPOTENCY_KEY: idempotency_key})
            result = await self._client.call_tool(tool, dict(arguments), meta=meta)
        except mcp.MCPError as error:
            if self._over.is_set():
                raise ConnectionLostError from error
            return bounded(error.message, None, is_error=True, limit_bytes=self._result_bytes)
        except (ValidationError, RuntimeError) as error:  # a result that is none, or breaks its own output schema
            self.fail(Fault.GARBAGE)
            raise ConnectionLostError from error
        text = "\n".join(text_of(block) for block in result.content)
        structured = result.structured_content if isinstance(result.structured_content, dict) else None
        return bounded(text, structured, is_error=bool(result.is_error), limit_bytes=self._result_bytes)

    def _end(self, fault: Fault) -> None:
        if not self._over.is_set():
            self.fault = fault
            self._over.set()
            self._on_over()

    async def _pumped(self, process: ServerProcess, on_ready: Callable[[], None]) -> None:
        if self._over.is_set():
            return
        to_session, inbox = anyio.create_memory_object_stream[type_of_item](0)
        outbox, from_session = anyio.create_memory_object_stream[SessionMessage](0)
        async with asyncio.TaskGroup() as group:
            pumps = [
                group.create_task(self._read(process, to_session), name=f"{self._server}.stdout"),
                group.create_task(write(process, from_session), name=f"{self._server}.stdin"),
                group.create_task(process.drain_stderr(), name=f"{self._server}.stderr"),
            ]
            try:
                await self._converse(joined(inbox, outbox), on_ready)
            finally:
                await process.stop()
                for pump in pumps:
                    pump.cancel()

    async def _converse(self, transport: Transport, on_ready: Callable[[], None]) -> None:
        """Shake hands and list tools, then stay until this life is over."""
        try:
            async with mcp.Client(transport, cache=None) as client:
                self.definitions = {tool.name: tool for tool in await list_tools(client, self._server)}
                self._client = client
                on_ready()
                await self._over.wait()
        except* (mcp.MCPError, ValidationError, RuntimeError):
            self.fail(Fault.GARBAGE)  # unless it died or hung before: then that stands
        finally:
            self._client = None

    async def _read(self, process: ServerProcess, sink: MemoryObjectSendStream[type_of_item]) -> None:
        async with sink:
            try:
                while (line := await process.read_line()) is not None:
                    if line.strip():
                        await sink.send(SessionMessage(mcp_types.jsonrpc_message_adapter.validate_json(line)))
                self.fail(Fault.DIED)
            except (ValidationError, LineTooLongError):
                self.fail(Fault.GARBAGE)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                self.fail(Fault.DIED)  # the session ended first
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


async def list_tools(client: mcp.Client, server: str) -> list[ToolDefinition]:
    """All tools of the server, each with the digest of what it says about itself."""
    tools: list[ToolDefinition] = []
    cursor: str | None = None
    for _ in range(LIST_PAGES):
        page = await client.list_tools(cursor=cursor)
        tools += [definition_of(server, tool) for tool in page.tools]
        if (cursor := page.next_cursor) is None:
            break
    return tools


def definition_of(server: str, tool: mcp_types.Tool) -> ToolDefinition:
    """What a model is shown, pinned by SHA-256 over canonical JSON of all that describes the tool."""
    described = tool.model_dump(mode="json", by_alias=True, exclude_none=True, include=PINNED_FIELDS)
    digest = hashlib.sha256(canonical(described).encode()).hexdigest()
    return ToolDefinition(server, tool.name, tool.description or "", tool.input_schema, digest)


def text_of(block: mcp_types.ContentBlock) -> str:
    """The text of a block; for anything else a word that says what was left out."""
    if isinstance(block, mcp_types.TextContent):
        return block.text
    if isinstance(block, mcp_types.EmbeddedResource) and isinstance(block.resource, mcp_types.TextResourceContents):
        return block.resource.text
    return f"[{block.type}]"


def bounded(text: str, structured: dict[str, Any] | None, *, is_error: bool, limit_bytes: int) -> ToolResult:
    """The result with its text cut at `limit_bytes` of UTF-8; structured content that is longer is left out whole."""
    encoded = text.encode()
    kept = structured if len(canonical(structured).encode()) <= limit_bytes else None
    cut = len(encoded) > limit_bytes or kept is not structured
    return ToolResult(encoded[:limit_bytes].decode(errors="ignore"), is_error, kept, cut)


def line_limit(result_bytes: int) -> int:
    """Longest line taken from a server: room for a full result twice (text and structured) after JSON escaping."""
    return max(1 << 20, 16 * result_bytes)
