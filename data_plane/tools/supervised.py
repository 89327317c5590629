"""A tool server that is kept running: one life after another, with growing pauses, under pinned definitions."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from data_plane.ceiling.models import Limits
from data_plane.tools import errors
from data_plane.tools.errors import StartCause, ToolServerError
from data_plane.tools.interfaces import ToolCall, ToolDefinition, ToolResult
from data_plane.tools.lives import ConnectionLostError, Fault, Life, MakeLife
from faos.resource.v1.resource_pb2 import ToolServer
from faos_core import names
from faos_core.clock import Clock
from faos_core.errors import DeadlineError, DeniedError, ErrorCode, RetryError, UnavailableError

log = logging.getLogger(__name__)

DEFAULT_CALL_TIMEOUT_S = 30
START_TIMEOUT_S = 30.0
FREE_WITHIN_S = 5.0  # for a server whose call was abandoned, to answer something else
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
    make_life: MakeLife
    limits: Limits
    start_timeout_s: float = START_TIMEOUT_S
    free_within_s: float = FREE_WITHIN_S

    @property
    def call_timeout_s(self) -> int:
        return self.spec.call_timeout_seconds or DEFAULT_CALL_TIMEOUT_S

    @property
    def source(self) -> str:
        """What the site named: what the pins of its tools belong to."""
        return source_of(self.spec)


def source_of(spec: ToolServer) -> str:
    return f"endpoint/{spec.endpoint}" if spec.endpoint else f"program/{spec.program}"


class SupervisedServer:
    """`run` in a task of its own; then `started`; then `definitions` and `call`, until `stop`."""

    def __init__(
        self, settings: ServerSettings, pins: Mapping[str, str], *, clock: Clock, jitter: Callable[[], float]
    ) -> None:
        """pins: tool → digest of the definition that was accepted; what is not among them is accepted as it comes."""
        self.settings = settings
        self._clock = clock
        self._jitter = jitter
        self._life: Life | None = None  # the one that is starting or running
        self._up = asyncio.Event()
        self._first = asyncio.Event()  # the first life is up, or over
        self._came_up = False
        self._stopping = asyncio.Event()
        self._pins = dict(pins)
        self._accepted: dict[str, ToolDefinition] = {}  # what models are shown
        self._quarantined: frozenset[str] = frozenset()
        self._calls = 0
        self.ended_lives = 0  # how often the server went away by itself

    async def run(self) -> None:
        """Live, and live again after each fault, until `stop`; a first life that never comes up is the last."""
        attempt = 0
        while not self._stopping.is_set():
            born_s = self._clock.monotonic_s()
            fault = await self._one_life()
            if self._stopping.is_set() or not self._came_up:
                return
            self.ended_lives += 1
            attempt = 0 if self._clock.monotonic_s() - born_s >= STABLE_S else attempt + 1
            await self._pause(fault, attempt)

    async def started(self) -> None:
        """Return when the first life is up and offers every allowed tool. Raises ToolServerError."""
        await self._first.wait()
        if not self._came_up:
            fault = (self._life.fault if self._life else None) or Fault.NOT_STARTED
            code = errors.ENDPOINT_FAILED if self.settings.spec.endpoint else errors.START_FAILED
            raise self._start_error(code, StartCause.START_FAILED, fault=fault)
        for tool in self.settings.spec.allowed_tools:
            if tool not in self._offered():
                raise self._start_error(errors.TOOL_NOT_OFFERED, StartCause.TOOL_NOT_OFFERED, tool=tool)

    def stop(self) -> None:
        """Ask `run` to return; it does within 7 s. Idempotent."""
        self._stopping.set()
        if self._life:
            self._life.stop()

    @property
    def quarantined(self) -> frozenset[str]:
        """Allowed tools whose definition was not the accepted one after some start, until `accept`."""
        return self._quarantined

    def pins(self) -> dict[str, str]:
        """Allowed tool → digest of the accepted definition, the newly accepted among them."""
        return {tool: self._pins[tool] for tool in self.settings.spec.allowed_tools if tool in self._pins}

    def offers(self) -> dict[str, str]:
        """Allowed tool → digest of what the server says of it now; empty while it is down."""
        return {tool: definition.sha256 for tool, definition in self._offered().items()}

    def accept(self, pins: Mapping[str, str]) -> None:
        """Tool → digest that the site has accepted since this was made: they count, and no earlier ones."""
        for tool, sha256 in pins.items():
            self._pins[tool] = sha256
            self._accepted.pop(tool, None)
            self._quarantined -= {tool}
            offered = self._offered().get(tool)
            if offered and offered.sha256 == sha256:
                self._accepted[tool] = offered
            elif self._life:
                self._quarantined |= {tool}

    def definitions(self) -> list[ToolDefinition]:
        """Allow-listed tools that are not quarantined, by name."""
        shown = set(self.settings.spec.allowed_tools) & set(self._accepted) - self._quarantined
        return [self._accepted[name] for name in sorted(shown)]

    def definition(self, tool: str) -> ToolDefinition:
        """Raises DeniedError: not allow-listed, or quarantined."""
        name = self.settings.name
        if tool not in self.settings.spec.allowed_tools:
            raise DeniedError(errors.NOT_ALLOWED, server=name)
        if tool in self._quarantined or tool not in self._accepted:
            raise DeniedError(errors.DEFINITION_CHANGED, server=name, tool=tool)
        return self._accepted[tool]

    async def call(self, call: ToolCall, *, idempotency_key: str) -> ToolResult:
        """Make the call, waiting for a restart where one is under way; both within the spec's time-out.

        Raises: DeadlineError, UnavailableError, DeniedError (quarantined after the restart that it waited for).
        """
        limit = self.settings.limits.concurrent_tool_calls
        if self._calls >= limit:
            raise UnavailableError(errors.SERVER_BUSY, server=self.settings.name, limit=limit)
        self._calls += 1
        try:
            return await self._call(call, idempotency_key)
        finally:
            self._calls -= 1

    async def _call(self, call: ToolCall, idempotency_key: str) -> ToolResult:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self.settings.call_timeout_s
        life = await self._running_life(deadline_s)
        self.definition(call.tool)
        # A process of ours that hangs is ended with all that it does; of another server, only this call is given up.
        watchdog = loop.call_at(deadline_s, life.fail, Fault.HUNG) if life.is_ours else None
        try:
            async with asyncio.timeout_at(None if life.is_ours else deadline_s):
                return await life.call(call.tool, call.arguments, idempotency_key=idempotency_key)
        except ConnectionLostError as error:
            raise self._lost(life, deadline_s) from error
        except TimeoutError as error:
            raise self._late() from error
        except asyncio.CancelledError:
            self._abandoned(life, deadline_s)
            raise
        finally:
            if watchdog:
                watchdog.cancel()

    def _abandoned(self, life: Life, deadline_s: float) -> None:
        """The server was told. Whether it stopped, its next answer shows; while others use it, it has until the call's
        own deadline for that."""
        left_s = deadline_s - asyncio.get_running_loop().time()
        others = self._calls > 1
        life.prove_free(max(self.settings.free_within_s, left_s) if others else self.settings.free_within_s)

    def _late(self) -> DeadlineError:
        timeout_s = self.settings.call_timeout_s
        return DeadlineError(errors.SERVER_HUNG, server=self.settings.name, timeout_s=timeout_s)

    def _lost(self, life: Life, deadline_s: float) -> RetryError:
        """A call whose own time was up names the hang; the others that died with the server name the death."""
        name = self.settings.name
        if life.fault is Fault.HUNG and asyncio.get_running_loop().time() >= deadline_s:
            return self._late()
        return UnavailableError(LOST.get(life.fault or Fault.DIED, errors.SERVER_DIED), server=name)

    async def _running_life(self, deadline_s: float) -> Life:
        try:
            async with asyncio.timeout_at(deadline_s):
                return await self._free_life()
        except TimeoutError as error:
            raise UnavailableError(errors.SERVER_RESTARTING, server=self.settings.name) from error

    async def _free_life(self) -> Life:
        while True:
            await self._up.wait()
            assert self._life
            life = self._life
            await life.free()
            if life is self._life and self._up.is_set():
                return life

    async def _one_life(self) -> Fault:
        settings = self.settings
        try:
            self._life = await settings.make_life(self._up.clear)
            if self._stopping.is_set():
                return Fault.STOPPED
            return await self._life.live(self._on_ready, start_timeout_s=settings.start_timeout_s)
        except Exception:  # the supervisor of this server; the log names types and places, not what was said
            log.exception("tool_server.defect", extra={names.TOOL_SERVER: settings.name})
            return Fault.DIED
        finally:
            self._first.set()

    def _on_ready(self) -> None:
        assert self._life
        offered = self._offered()
        self._pins = {tool: it.sha256 for tool, it in offered.items()} | self._pins
        self._accepted |= {tool: it for tool, it in offered.items() if it.sha256 == self._pins[tool]}
        changed = {tool for tool in self.settings.spec.allowed_tools if tool in self._pins and not self._still(tool)}
        for tool in changed - self._quarantined:
            log.error("tool.definition_changed", extra={names.TOOL_SERVER: self.settings.name, names.TOOL: tool})
        self._quarantined |= changed
        self._came_up = True
        self._up.set()
        self._first.set()
        log.info("tool_server.ready", extra={names.TOOL_SERVER: self.settings.name, names.PID: self._life.pid})

    def _offered(self) -> dict[str, ToolDefinition]:
        """What the server says now of the allowed tools."""
        definitions = self._life.definitions if self._life else {}
        return {tool: definitions[tool] for tool in self.settings.spec.allowed_tools if tool in definitions}

    def _still(self, tool: str) -> bool:
        offered = self._offered().get(tool)
        return offered is not None and offered.sha256 == self._pins[tool]

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
        named = {"program": spec.program, "endpoint": spec.endpoint}
        return ToolServerError(code, cause, server=self.settings.name, **named, **fields)
