"""One life of a tool server as its supervisor sees it. What speaks MCP is in modules that are imported when the first
server starts: importing `mcp` takes as long as loading a model, and happens beside that."""

import asyncio
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from data_plane.tools.interfaces import ToolDefinition, ToolResult
from faos_core.late_imports import IMPORTING

if TYPE_CHECKING:
    from data_plane.egress.http_door import HttpDoor
    from data_plane.tools.sandbox import Launch


class Fault(StrEnum):
    """Why a life ended."""

    DIED = "died"
    HUNG = "hung"
    GARBAGE = "garbage"
    ENDLESS = "endless"  # lists more tools than anybody could choose from
    NOT_STARTED = "not_started"
    STOPPED = "stopped"  # by us


class ConnectionLostError(Exception):
    """The life ended before the call was answered."""


class Life(Protocol):
    """One life of one server: `live` once, `call` while `definitions` are there, `fail` from anywhere."""

    fault: Fault | None
    definitions: dict[str, ToolDefinition]

    @property
    def pid(self) -> int | None:
        """Of the server's process; None without one."""

    @property
    def is_ours(self) -> bool:
        """A process that we run: one that hangs is ended, and with it all that it does."""

    async def live(self, on_ready: Callable[[], None], *, start_timeout_s: float) -> Fault:
        """Begin, shake hands, list tools, call `on_ready`, and return what ended it.

        Cancelling ends it within 6 s.
        """

    def fail(self, fault: Fault) -> None:
        """End this life for this reason; the first reason stands."""

    def stop(self) -> None:
        """End this life politely: the server may finish what it does within a second."""

    async def call(self, tool: str, arguments: Mapping[str, Any], *, idempotency_key: str) -> ToolResult:
        """Raises ConnectionLostError; `fault` says why. Calls may overlap. Cancelling tells the server."""

    def prove_free(self, within_s: float) -> None:
        """A call was abandoned, and the server told. A process of ours that answers nothing for so long is still busy
        with what nobody waits for: it is ended."""

    async def free(self) -> None:
        """Return when nothing is left to prove, or this life is over: a call that is made before may wait in vain."""


OnOver = Callable[[], None]


class MakeLife(Protocol):
    async def __call__(self, on_over: OnOver) -> Life:
        """A life that has not begun. on_over: called once, when it is over and before any call hears of it."""


def preload() -> None:
    """Blocking: import what speaks MCP with programs, while the node waits for its configuration anyway."""
    with IMPORTING:
        import data_plane.tools.mcp_stdio  # noqa: F401


def of_program(server: str, launch: "Launch", *, result_bytes: int) -> MakeLife:
    def make(on_over: OnOver) -> Life:
        with IMPORTING:
            from data_plane.tools.mcp_connection import McpConnection
            from data_plane.tools.mcp_stdio import StdioCarrier

        carrier = StdioCarrier(server, launch, result_bytes=result_bytes)
        return McpConnection(server, carrier, result_bytes=result_bytes, on_over=on_over)

    return in_thread(make)


def of_endpoint(server: str, open_door: "Callable[[], HttpDoor]", *, result_bytes: int) -> MakeLife:
    """open_door: not entered yet; each life owns its own."""

    def make(on_over: OnOver) -> Life:
        with IMPORTING:
            from data_plane.tools.mcp_connection import McpConnection
            from data_plane.tools.mcp_http import HttpCarrier

        carrier = HttpCarrier(server, open_door, result_bytes=result_bytes)
        return McpConnection(server, carrier, result_bytes=result_bytes, on_over=on_over)

    return in_thread(make)


def in_thread(make: Callable[[OnOver], Life]) -> MakeLife:
    """Imports that take long do not hold up the loop."""

    async def make_life(on_over: OnOver) -> Life:
        return await asyncio.to_thread(make, on_over)

    return make_life
