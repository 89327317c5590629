"""One life of an MCP server, however it is reached. Only this package imports `mcp`.

Everything that goes wrong goes one way: `fail` notes the first fault and cuts the carrier; that closes the session,
which wakes every call. Nothing here is cancelled from outside in the middle of a handshake, and the session is entered
and left by the one task that runs `live`.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, cast

import anyio
import mcp
import mcp_types
from mcp.client import Transport
from pydantic import ValidationError

from data_plane.tools.interfaces import ToolDefinition, ToolResult
from data_plane.tools.lives import ConnectionLostError, Fault
from faos_core.json_schema import BadSchemaError, canonical, first_violation

SILENT = logging.CRITICAL + 1
for library_logger in ("mcp", "client"):  # they log what servers send
    logging.getLogger(library_logger).setLevel(SILENT)

IDEMPOTENCY_KEY = "faos/idempotencyKey"
LIST_PAGES = 100
LIST_TOOLS = 1024
LIST_BYTES = 4 << 20  # of all that a server says of its tools
PINNED_FIELDS = {"name", "title", "description", "input_schema", "output_schema", "annotations"}
CLOSED = (anyio.BrokenResourceError, anyio.ClosedResourceError)  # what the library raises when it closes in a hurry


class EndlessListError(Exception):
    """A server's list of tools is longer than LIST_PAGES, LIST_TOOLS or LIST_BYTES."""


Fail = Callable[[Fault], None]


class Carrier(Protocol):
    """What messages of one life go over: a process of ours, or HTTP."""

    is_ours: bool  # a process that we run: one that hangs is ended, and with it all that it does

    def opened(self, fail: Fail) -> AbstractAsyncContextManager[Transport]:
        """Entered once; on leaving, all of it is gone within 6 s. fail: told of what goes wrong meanwhile.

        Raises OSError (it cannot be begun).
        """

    def cut(self) -> None:
        """Let nothing through any more, now: what waits for the server is woken. Idempotent."""

    @property
    def pid(self) -> int | None:
        """Of the server's process; None without one."""


class McpConnection:
    """Implements Life."""

    def __init__(self, server: str, carrier: Carrier, *, result_bytes: int, on_over: Callable[[], None]) -> None:
        """on_over: called once, when this life is over and before any call hears of it."""
        self.fault: Fault | None = None
        self.definitions: dict[str, ToolDefinition] = {}
        self._output_schemas: dict[str, dict[str, Any] | None] = {}
        self._server = server
        self._carrier = carrier
        self._result_bytes = result_bytes
        self._on_over = on_over
        self._client: mcp.Client | None = None
        self._over = asyncio.Event()
        self._group = asyncio.TaskGroup()
        self._proofs: set[asyncio.Task[None]] = set()
        self._free = asyncio.Event()
        self._free.set()

    @property
    def pid(self) -> int | None:
        return self._carrier.pid

    @property
    def is_ours(self) -> bool:
        return self._carrier.is_ours

    async def live(self, on_ready: Callable[[], None], *, start_timeout_s: float) -> Fault:
        watchdog = asyncio.get_running_loop().call_later(start_timeout_s, self.fail, Fault.HUNG)

        def ready() -> None:
            watchdog.cancel()
            on_ready()

        try:
            async with self._carrier.opened(self.fail) as transport:
                if not self._over.is_set():
                    await self._converse(transport, ready)
        except OSError:
            self.fail(Fault.NOT_STARTED)
        finally:
            watchdog.cancel()
        return self.fault or Fault.DIED

    def fail(self, fault: Fault) -> None:
        self._end(fault)
        self._carrier.cut()

    def stop(self) -> None:
        self._end(Fault.STOPPED)
        if self._client is None:
            self._carrier.cut()  # in the middle of the handshake there is nothing to be polite about

    async def call(self, tool: str, arguments: Mapping[str, Any], *, idempotency_key: str) -> ToolResult:
        if self._client is None or self._over.is_set():
            raise ConnectionLostError
        try:
            meta = cast(mcp_types.RequestParamsMeta, {IDEMPOTENCY_KEY: idempotency_key})
            result = await self._client.call_tool(tool, dict(arguments), meta=meta)
        except mcp.MCPError as error:
            if error.code == mcp_types.PARSE_ERROR:
                self.fail(Fault.GARBAGE)  # what it said was no JSON
            if self._over.is_set():
                raise ConnectionLostError from error
            return bounded(error.message, None, is_error=True, limit_bytes=self._result_bytes)
        except (ValidationError, RuntimeError) as error:  # a result that is none
            self.fail(Fault.GARBAGE)
            raise ConnectionLostError from error
        text = "\n".join(text_of(block) for block in result.content)
        structured = result.structured_content if isinstance(result.structured_content, dict) else None
        if not result.is_error and not fits(structured, self._output_schemas.get(tool)):
            self.fail(Fault.GARBAGE)
            raise ConnectionLostError
        return bounded(text, structured, is_error=bool(result.is_error), limit_bytes=self._result_bytes)

    def prove_free(self, within_s: float) -> None:
        if self.is_ours and self._client is not None and not self._over.is_set():
            proof = self._group.create_task(self._prove_free(self._client, within_s), name=f"{self._server}.proof")
            self._proofs.add(proof)
            self._free.clear()
            proof.add_done_callback(self._proved)

    async def free(self) -> None:
        await self._free.wait()

    async def _prove_free(self, client: mcp.Client, within_s: float) -> None:
        try:
            async with asyncio.timeout(within_s):
                await client.list_tools()
        except TimeoutError:
            self.fail(Fault.HUNG)
        except (mcp.MCPError, ValidationError, RuntimeError):
            pass  # it answered, or it is over

    def _proved(self, proof: asyncio.Task[None]) -> None:
        self._proofs.discard(proof)
        if not self._proofs:
            self._free.set()

    def _end(self, fault: Fault) -> None:
        if not self._over.is_set():
            self.fault = fault
            self._over.set()
            self._free.set()
            self._on_over()

    async def _converse(self, transport: Transport, on_ready: Callable[[], None]) -> None:
        """Shake hands and list tools, then stay until this life is over."""
        try:
            async with mcp.Client(transport, cache=None) as client, self._group:
                client.session.validate_tool_result = unvalidated  # type: ignore[assignment, method-assign]  # see there
                tools = await list_tools(client)
                self._output_schemas = {tool.name: tool.output_schema for tool in tools}
                self.definitions = {tool.name: definition_of(self._server, tool) for tool in tools}
                self._client = client
                on_ready()
                await self._over.wait()
                for proof in self._proofs:
                    proof.cancel()
        except* EndlessListError:
            self.fail(Fault.ENDLESS)
        except* (mcp.MCPError, ValidationError, RuntimeError, *CLOSED):
            self.fail(Fault.GARBAGE)  # unless it died or hung before: then that stands
        finally:
            self._client = None


async def unvalidated(_name: str, _result: mcp_types.CallToolResult) -> None:
    """In the place of the library's check of a result, whose patterns backtrack: a server that writes both schema and
    result could hold the event loop for ever. `fits` does it in linear time."""


def fits(structured: dict[str, Any] | None, output_schema: Mapping[str, Any] | None) -> bool:
    """Whether a result is what its tool promised. A schema that cannot be used promises nothing."""
    if output_schema is None:
        return True
    try:
        return structured is not None and first_violation(output_schema, structured) is None
    except BadSchemaError:
        return True


class Pages(Protocol):
    """What lists tools: a client of the library."""

    async def list_tools(self, *, cursor: str | None = None) -> mcp_types.ListToolsResult:
        """One page."""


async def list_tools(client: Pages) -> list[mcp_types.Tool]:
    """All of them, or EndlessListError: a list that was cut would hide tools without a word."""
    tools: list[mcp_types.Tool] = []
    size_bytes = 0
    cursor: str | None = None
    for _ in range(LIST_PAGES):
        page = await client.list_tools(cursor=cursor)
        tools += page.tools
        size_bytes += len(page.model_dump_json())
        if len(tools) > LIST_TOOLS or size_bytes > LIST_BYTES:
            break
        if (cursor := page.next_cursor) is None:
            return tools
    raise EndlessListError


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


def message_limit(result_bytes: int) -> int:
    """Longest message taken from a server: room for a full result twice (text and structured) after JSON escaping."""
    return max(1 << 20, 16 * result_bytes)
