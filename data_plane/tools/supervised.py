"""A tool server that is kept running: one life after another, with growing pauses, under pinned definitions."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from data_plane.tools import errors
from data_plane.tools.errors import StartCause, ToolServerError
from data_plane.tools.interfaces import ToolCall, ToolDefinition, ToolResult
from data_plane.tools.mcp_connection import ConnectionLostError, Fault, McpConnection
from data_plane.tools.mcp_stdio import StdioCarrier
from data_plane.tools.sandbox import Launch
from faos.resource.v1.resource_pb2 import ToolServer
from faos_core import names
from faos_core.clock import Clock
from faos_core.errors import DeadlineError, DeniedError, ErrorCode, RetryError, UnavailableError

log = logging.getLogger(__name__)

DEFAULT_CALL_TIMEOUT_S = 30
START_TIMEOUT_S = 30.0
MAX_CALLS = 64
STABLE_S = 60.0
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
LOST = {Fault.GARBAGE: errors.SERVER_GARBAGE}


def pause_s(attempt: int, jitter: float) -> float:
    """Seconds before the restart after `attempt` (from 0) short lives; jitter from 0 to 1 spreads the upper half."""
    longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(attempt, 16))
    return longest * (1 + jitter) / 2


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What one supervised server is made of."""

    name: str
    spec: ToolServer
    launch: Launch
    result_bytes: int
    start_timeout_s: float = START_TIMEOUT_S

    @property
    def call_timeout_s(self) -> int:
        return self.spec.call_timeout_seconds or DEFAULT_CALL_TIMEOUT_S


class SupervisedServer:
    """`run` in a task of its own; then `started`; then `definitions` and `call`, until `stop`."""

    def __init__(self, settings: ServerSettings, *, clock: Clock, jitter: Callable[[], float]) -> None:
        self.settings = settings
        self._clock = clock
        self._jitter = jitter
        self._life: McpConnection | None = None  # the one that is starting or running
        self._up = asyncio.Event()
        self._first = asyncio.Event()  # the first life is up, or over
        self._came_up = False
        self._stopping = asyncio.Event()
        self._pins: dict[str, ToolDefinition] = {}
        self._quarantined: frozenset[str] = frozenset()
        self._calls = 0

    async def run(self) -> None:
        """Live, and live again after each fault, until `stop`; a first life that never comes up is the last."""
        attempt = 0
        while not self._stopping.is_set():
            born_s = self._clock.monotonic_s()
            fault = await self._one_life()
            if self._stopping.is_set() or not self._came_up:
                return
            attempt = 0 if self._clock.monotonic_s() - born_s >= STABLE_S else attempt + 1
            await self._pause(fault, attempt)

    async def started(self) -> None:
        """Return when the first life is up and offers every allowed tool. Raises ToolServerError."""
        await self._first.wait()
        if not self._came_up:
            fault = self._life.fault if self._life else Fault.NOT_STARTED
            raise self._start_error(errors.START_FAILED, StartCause.START_FAILED, fault=fault)
        for tool in self.settings.spec.allowed_tools:
            if tool not in self._pins:
                raise self._start_error(errors.TOOL_NOT_OFFERED, StartCause.TOOL_NOT_OFFERED, tool=tool)

    def stop(self) -> None:
        """Ask `run` to return; it does within 7 s. Idempotent."""
        self._stopping.set()
        if self._life:
            self._life.stop()

    @property
    def quarantined(self) -> frozenset[str]:
        """Tools whose definition differed from the pinned one after some restart; for as long as this object lives."""
        return self._quarantined

    def definitions(self) -> list[ToolDefinition]:
        """Allow-listed tools that are not quarantined, by name."""
        shown = set(self.settings.spec.allowed_tools) & set(self._pins) - self._quarantined
        return [self._pins[name] for name in sorted(shown)]

    def definition(self, tool: str) -> ToolDefinition:
        """Raises DeniedError: not allow-listed, or quarantined."""
        if tool not in self.settings.spec.allowed_tools or tool not in self._pins:
            raise DeniedError(errors.NOT_ALLOWED, server=self.settings.name)
        if tool in self._quarantined:
            raise DeniedError(errors.DEFINITION_CHANGED, server=self.settings.name, tool=tool)
        return self._pins[tool]

    async def call(self, call: ToolCall, *, idempotency_key: str) -> ToolResult:
        """Make the call, waiting for a restart where one is under way; both within the spec's time-out.

        Raises: DeadlineError, UnavailableError, DeniedError (quarantined after the restart that it waited for).
        """
        if self._calls >= MAX_CALLS:
            raise UnavailableError(errors.SERVER_BUSY, server=self.settings.name, limit=MAX_CALLS)
        self._calls += 1
        try:
            return await self._call(call, idempotency_key)
        finally:
            self._calls -= 1

    async def _call(self, call: ToolCall, idempotency_key: str) -> ToolResult:
        deadline_s = asyncio.get_running_loop().time() + self.settings.call_timeout_s
        life = await self._running_life(deadline_s)
        self.definition(call.tool)
        watchdog = asyncio.get_running_loop().call_at(deadline_s, life.fail, Fault.HUNG)
        try:
            return await life.call(call.tool, call.arguments, idempotency_key=idempotency_key)
        except ConnectionLostError as error:
            raise self._lost(life, deadline_s) from error
        finally:
            watchdog.cancel()

    def _lost(self, life: McpConnection, deadline_s: float) -> RetryError:
        """A call whose own time was up names the hang; the others that died with the server name the death."""
        name = self.settings.name
        if life.fault is Fault.HUNG and asyncio.get_running_loop().time() >= deadline_s:
            return DeadlineError(errors.SERVER_HUNG, server=name, timeout_s=self.settings.call_timeout_s)
        return UnavailableError(LOST.get(life.fault or Fault.DIED, errors.SERVER_DIED), server=name)

    async def _running_life(self, deadline_s: float) -> McpConnection:
        try:
            async with asyncio.timeout_at(deadline_s):
                await self._up.wait()
        except TimeoutError as error:
            raise UnavailableError(errors.SERVER_RESTARTING, server=self.settings.name) from error
        assert self._life
        return self._life

    async def _one_life(self) -> Fault:
        settings = self.settings
        carrier = StdioCarrier(settings.name, settings.launch, result_bytes=settings.result_bytes)
        self._life = McpConnection(
            settings.name, carrier, result_bytes=settings.result_bytes, on_over=self._up.clear
        )
        try:
            return await self._life.live(self._on_ready, start_timeout_s=settings.start_timeout_s)
        except Exception:
            log.exception("tool_server.defect", extra={names.TOOL_SERVER: settings.name})
            return Fault.DIED
        finally:
            self._first.set()

    def _on_ready(self) -> None:
        assert self._life
        if not self._came_up:
            self._pins = dict(self._life.definitions)
        changed = {name for name, pin in self._pins.items() if not self._still(pin)}
        for tool in changed - self._quarantined:
            log.error("tool.definition_changed", extra={names.TOOL_SERVER: self.settings.name, names.TOOL: tool})
        self._quarantined |= changed
        self._came_up = True
        self._up.set()
        self._first.set()
        log.info("tool_server.ready", extra={names.TOOL_SERVER: self.settings.name, names.PID: self._life.pid})

    def _still(self, pin: ToolDefinition) -> bool:
        assert self._life
        now = self._life.definitions.get(pin.name)
        return now is not None and now.sha256 == pin.sha256

    async def _pause(self, fault: Fault, attempt: int) -> None:
        duration_s = pause_s(attempt - 1 if attempt else 0, self._jitter())
        fields = {names.TOOL_SERVER: self.settings.name, names.ERROR: fault.value}
        log.warning("tool_server.restarting", extra={**fields, names.DURATION_MS: round(duration_s * 1000)})
        async with asyncio.TaskGroup() as group:
            sleep = group.create_task(self._clock.sleep(duration_s))
            stopping = group.create_task(self._stopping.wait())
            await asyncio.wait([sleep, stopping], return_when=asyncio.FIRST_COMPLETED)
            sleep.cancel()
            stopping.cancel()

    def _start_error(self, code: ErrorCode, cause: StartCause, **fields: object) -> ToolServerError:
        spec = self.settings.spec
        return ToolServerError(code, cause, server=self.settings.name, program=spec.program, **fields)
