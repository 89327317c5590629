"""All running tool servers of a node, and the order in which a call is checked: allow-list, policy, arguments, call.

Nothing that a model says reaches a server but through `ToolServers.call`.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

from data_plane.ceiling.models import Ceiling, Endpoint
from data_plane.egress.doors import MCP_HTTP
from data_plane.tools import errors, lives, sandbox
from data_plane.tools.errors import StartCause, ToolServerError
from data_plane.tools.interfaces import ToolCall, ToolDefinition, ToolResult, ToolState
from data_plane.tools.lives import MakeLife
from data_plane.tools.pins import Pins, VolatilePins
from data_plane.tools.policy import Effect, Verdict, judge
from data_plane.tools.supervised import FREE_WITHIN_S, START_TIMEOUT_S, ServerSettings, SupervisedServer
from faos.resource.v1.resource_pb2 import Policy, ToolServer
from faos_core.clock import Clock, SystemClock
from faos_core.errors import DeniedError, InvalidError, NotFoundError, SetupError, UnavailableError
from faos_core.json_schema import BadSchemaError, first_violation

if TYPE_CHECKING:
    from data_plane.egress.http_door import HttpDoor

OpenDoor = Callable[[str, Endpoint], "HttpDoor"]


class ToolServers:
    """Implements ToolBroker. `async with`, then `reconcile` with each revision; leaving stops all within 7 s.

    One `reconcile` at a time; calls may overlap with it.
    """

    def __init__(
        self,
        ceiling: Ceiling,
        *,
        clock: Clock | None = None,
        jitter: Callable[[], float] = random.random,
        start_timeout_s: float = START_TIMEOUT_S,
        isolations: Sequence[sandbox.Isolation] = tuple(sandbox.Isolation),
        pins: Pins | None = None,
        open_door: OpenDoor | None = None,
        free_within_s: float = FREE_WITHIN_S,
    ) -> None:
        """start_timeout_s: from spawn to listed tools. isolations: acceptable ones, the best first. pins: None keeps
        them for as long as this lives. open_door: the way to an endpoint; None where nothing may leave.
        free_within_s: for a program whose call was abandoned, to answer something else."""
        self._ceiling = ceiling
        self._clock = clock or SystemClock()
        self._jitter = jitter
        self._start_timeout_s = start_timeout_s
        self._servers: dict[str, SupervisedServer] = {}
        self._isolations = isolations
        self._isolation: sandbox.Isolation | None = None
        self._pins = pins or VolatilePins()
        self._open_door = open_door
        self._free_within_s = free_within_s
        self._accepting = asyncio.Lock()  # what is read of the pins stands until it is written
        self._tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        if self._ceiling.programs:
            self._tasks.create_task(asyncio.to_thread(lives.preload), name="tool_servers.preload")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        stop_all(self._servers.values())
        self._servers = {}
        await self._tasks.__aexit__(None, None, None)

    async def reconcile(self, specs: Mapping[str, ToolServer]) -> None:
        """Run exactly these servers: start what is new or differs, then stop what is gone or replaced.

        On failure what ran before still runs.
        Raises: ToolServerError, naming the server and the cause. Cancel-safe: cancelling leaves what ran.
        """
        async with self.begun(specs) as change:
            await change.commit()

    @asynccontextmanager
    async def begun(self, specs: Mapping[str, ToolServer]) -> AsyncIterator["Change"]:
        """What is new or differs is starting, beside what runs, while the context is open: do meanwhile what else has
        to be known, then `commit`. What was not committed is stopped on leaving.

        Raises: ToolServerError (not in the ceiling, no sandbox), before anything starts.
        """
        kept = {name: it for name, it in self._servers.items() if it.settings.spec == specs.get(name)}
        fresh = {name: await self._made(name, spec) for name, spec in specs.items() if name not in kept}
        for name, server in fresh.items():
            self._tasks.create_task(server.run(), name=f"tool_server.{name}")
        change = Change(kept, fresh, self._switch)
        try:
            yield change
        finally:
            if not change.is_committed:
                stop_all(fresh.values())

    async def _switch(self, change: "Change") -> None:
        """Pins first, durably: after a crash in between, what was seen is what was accepted. What a person accepted
        while the servers started stays accepted."""
        async with self._accepting:
            for server in change.fresh.values():
                stored, pins = await self._pins.of(server.settings.source), server.pins()
                server.accept({it: stored[it] for it in pins.keys() & stored.keys() if pins[it] != stored[it]})
                await self._pins.put(server.settings.source, {tool: pins[tool] for tool in pins.keys() - stored.keys()})
        replaced = [it for name, it in self._servers.items() if name not in change.kept]
        self._servers = {**change.kept, **change.fresh}
        stop_all(replaced)

    def ended_lives(self, server: str) -> int:
        """How often it went away by itself since it was started for its configuration. Raises NotFoundError."""
        return self._server(server).ended_lives

    def definitions(self, servers: Sequence[str]) -> list[ToolDefinition]:
        return [definition for name in servers for definition in self._server(name).definitions()]

    async def call(self, call: ToolCall, *, policies: Mapping[str, Policy], idempotency_key: str) -> ToolResult:
        server = self._server(call.server)
        definition = server.definition(call.tool)
        require_allowed(call, judge(call, policies))
        require_valid(call, definition)
        return await server.call(call, idempotency_key=idempotency_key)

    def states(self) -> list[ToolState]:
        """Every allowed tool of every running server, by server and tool."""
        return [state for _, server in sorted(self._servers.items()) for state in states_of(server)]

    async def repin(self, server: str, tool: str = "") -> list[str]:
        """Accept what the server says now of this quarantined tool, or of all of its quarantined ones: durable, then
        offered to agents. Returns the tools.

        Raises: NotFoundError (no such server, or the tool is not quarantined), UnavailableError (the server is down).
        """
        async with self._accepting:
            found = self._server(server)
            wanted = found.quarantined & {tool} if tool else found.quarantined
            if tool and not wanted:
                raise NotFoundError(errors.NOT_QUARANTINED, server=server, tool=tool[:128])
            offered = {each: digest for each, digest in found.offers().items() if each in wanted}
            if wanted - offered.keys():
                raise UnavailableError(errors.SERVER_RESTARTING, server=server)
            await self._pins.put(found.settings.source, offered)
            found.accept(offered)  # by digest: what it says by now may be something else again
            return sorted(offered)

    def alarms(self) -> tuple[str, ...]:
        """Codes of the registry that need somebody's attention."""
        changed = any(server.quarantined for server in self._servers.values())
        return (errors.DEFINITION_CHANGED.code,) if changed else ()

    def _server(self, name: str) -> SupervisedServer:
        if name not in self._servers:
            raise NotFoundError(errors.SERVER_UNKNOWN, server=name)
        return self._servers[name]

    async def _made(self, name: str, spec: ToolServer) -> SupervisedServer:
        make_life = self._to_endpoint(name, spec) if spec.endpoint else await self._to_program(name, spec)
        limits, timeout_s = self._ceiling.limits, self._start_timeout_s
        settings = ServerSettings(name, spec, make_life, limits, timeout_s, self._free_within_s)
        pins = await self._pins.of(settings.source)
        return SupervisedServer(settings, pins, clock=self._clock, jitter=self._jitter)

    async def _to_program(self, name: str, spec: ToolServer) -> MakeLife:
        program = self._ceiling.programs.get(spec.program)
        if program is None:
            cause = StartCause.NOT_IN_CEILING
            raise ToolServerError(errors.PROGRAM_UNKNOWN, cause, server=name, program=spec.program)
        launch = sandbox.launch(program, await self._available_isolation(name))
        return lives.of_program(name, launch, result_bytes=self._ceiling.limits.tool_result_bytes)

    def _to_endpoint(self, name: str, spec: ToolServer) -> MakeLife:
        endpoint = self._ceiling.endpoints.get(spec.endpoint)
        if endpoint is None or self._open_door is None:
            cause = StartCause.NOT_IN_CEILING
            raise ToolServerError(errors.ENDPOINT_UNKNOWN, cause, server=name, endpoint=spec.endpoint)
        open_door = partial(self._open_door, MCP_HTTP.name, endpoint)
        return lives.of_endpoint(name, open_door, result_bytes=self._ceiling.limits.tool_result_bytes)

    async def _available_isolation(self, server: str) -> sandbox.Isolation:
        """Found out once, when the first server needs it: a node without tools needs no sandbox."""
        if self._isolation is None:
            try:
                self._isolation = await asyncio.to_thread(sandbox.available, self._isolations)
            except SetupError as error:
                cause = StartCause.SANDBOX_UNAVAILABLE
                raise ToolServerError(errors.SERVER_SANDBOX_UNAVAILABLE, cause, server=server) from error
        return self._isolation


class Change:
    """Servers on their way to be the running ones; made by `ToolServers.begun`."""

    def __init__(
        self,
        kept: Mapping[str, SupervisedServer],
        fresh: Mapping[str, SupervisedServer],
        switch: Callable[["Change"], Awaitable[None]],
    ) -> None:
        self.kept = kept
        self.fresh = fresh
        self.is_committed = False
        self._switch = switch

    async def ready(self) -> None:
        """Return when all of them are up and offer their tools. Raises ToolServerError for the first that does not."""
        for server in self.fresh.values():
            await server.started()

    async def commit(self) -> None:
        """Make them the running ones, when all are ready; what they replace is stopped. Raises as `ready`, and as the
        store of the pins: then nothing has changed."""
        await self.ready()
        await self._switch(self)
        self.is_committed = True


def stop_all(servers: Iterable[SupervisedServer]) -> None:
    for server in servers:
        server.stop()


def states_of(server: SupervisedServer) -> list[ToolState]:
    pins, offers, name = server.pins(), server.offers(), server.settings.name
    return [
        ToolState(name, tool, pins.get(tool, ""), offers.get(tool, ""), tool in server.quarantined)
        for tool in sorted(server.settings.spec.allowed_tools)
    ]


def require_allowed(call: ToolCall, verdict: Verdict) -> None:
    """Raises DeniedError unless policy allows the call."""
    if verdict.effect is Effect.ALLOW:
        return
    code = errors.APPROVAL_UNAVAILABLE if verdict.effect is Effect.ASK else errors.POLICY_DENIED
    raise DeniedError(code, server=call.server, tool=call.tool, policy=verdict.policy, rule=verdict.rule)


def require_valid(call: ToolCall, definition: ToolDefinition) -> None:
    """Raises InvalidError for arguments that the tool's own schema does not accept."""
    try:
        schema_path = first_violation(definition.input_schema, dict(call.arguments))
    except BadSchemaError:
        schema_path = "#"
    if schema_path is not None:
        raise InvalidError(errors.ARGUMENTS_INVALID, server=call.server, tool=call.tool, schema_path=schema_path)
