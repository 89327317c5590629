"""All running tool servers of a node, and the order in which a call is checked: allow-list, policy, arguments, call.

Nothing that a model says reaches a server but through `ToolServers.call`.
"""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from data_plane.ceiling.models import Ceiling
from data_plane.tools import errors, sandbox
from data_plane.tools.errors import StartCause, ToolServerError
from data_plane.tools.interfaces import ToolCall, ToolDefinition, ToolResult
from data_plane.tools.policy import Effect, Verdict, judge
from data_plane.tools.supervised import START_TIMEOUT_S, ServerSettings, SupervisedServer
from faos.resource.v1.resource_pb2 import Policy, ToolServer
from faos_core.clock import Clock, SystemClock
from faos_core.errors import DeniedError, InvalidError, NotFoundError, SetupError
from faos_core.json_schema import BadSchemaError, first_violation


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
    ) -> None:
        """start_timeout_s: from spawn to listed tools. isolations: acceptable ones, the best first."""
        self._ceiling = ceiling
        self._clock = clock or SystemClock()
        self._jitter = jitter
        self._start_timeout_s = start_timeout_s
        self._servers: dict[str, SupervisedServer] = {}
        self._isolations = isolations
        self._isolation: sandbox.Isolation | None = None
        self._tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for server in self._servers.values():
            server.stop()
        self._servers = {}
        await self._tasks.__aexit__(None, None, None)

    async def reconcile(self, specs: Mapping[str, ToolServer]) -> None:
        """Run exactly these servers: start what is new or differs, then stop what is gone or replaced.

        A server with a quarantined tool is started anew: activating a revision accepts what its tools say now.
        On failure what ran before still runs.
        Raises: ToolServerError, naming the server and the cause. Cancel-safe: cancelling leaves what ran.
        """
        kept = {
            name: it for name, it in self._servers.items() if it.settings.spec == specs.get(name) and not it.quarantined
        }
        fresh = await self._start({name: spec for name, spec in specs.items() if name not in kept})
        for name, server in self._servers.items():
            if name not in kept:
                server.stop()
        self._servers = kept | fresh

    def definitions(self, servers: Sequence[str]) -> list[ToolDefinition]:
        return [definition for name in servers for definition in self._server(name).definitions()]

    async def call(self, call: ToolCall, *, policies: Mapping[str, Policy], idempotency_key: str) -> ToolResult:
        server = self._server(call.server)
        definition = server.definition(call.tool)
        require_allowed(call, judge(call, policies))
        require_valid(call, definition)
        return await server.call(call, idempotency_key=idempotency_key)

    def _server(self, name: str) -> SupervisedServer:
        if name not in self._servers:
            raise NotFoundError(errors.SERVER_UNKNOWN, server=name)
        return self._servers[name]

    async def _start(self, specs: Mapping[str, ToolServer]) -> dict[str, SupervisedServer]:
        """All of them up, or none."""
        settings = [await self._settings(name, spec) for name, spec in specs.items()]
        fresh = {it.name: SupervisedServer(it, clock=self._clock, jitter=self._jitter) for it in settings}
        try:
            for name, server in fresh.items():
                self._tasks.create_task(server.run(), name=f"tool_server.{name}")
            for server in fresh.values():
                await server.started()
        except BaseException:
            for server in fresh.values():
                server.stop()
            raise
        return fresh

    async def _settings(self, name: str, spec: ToolServer) -> ServerSettings:
        program = self._ceiling.programs.get(spec.program)
        if program is None:
            cause = StartCause.NOT_IN_CEILING
            raise ToolServerError(errors.PROGRAM_UNKNOWN, cause, server=name, program=spec.program)
        launch = sandbox.launch(program, await self._available_isolation(name))
        result_bytes = self._ceiling.limits.tool_result_bytes
        return ServerSettings(name, spec, launch, result_bytes, self._start_timeout_s)

    async def _available_isolation(self, server: str) -> sandbox.Isolation:
        """Found out once, when the first server needs it: a node without tools needs no sandbox."""
        if self._isolation is None:
            try:
                self._isolation = await asyncio.to_thread(sandbox.available, self._isolations)
            except SetupError as error:
                cause = StartCause.SANDBOX_UNAVAILABLE
                raise ToolServerError(errors.SERVER_SANDBOX_UNAVAILABLE, cause, server=server) from error
        return self._isolation


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
