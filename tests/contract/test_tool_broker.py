"""What every ToolBroker owes the agent loop, over real MCP servers in a real sandbox."""

import asyncio
import fcntl
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from data_plane.ceiling.models import Ceiling, Limits, Program
from data_plane.tools.broker import ToolServers
from data_plane.tools.errors import StartCause, ToolServerError
from data_plane.tools.interfaces import ToolBroker, ToolCall, ToolResult
from data_plane.tools.sandbox import Isolation
from faos.resource.v1.resource_pb2 import POLICY_EFFECT_ALLOW, POLICY_EFFECT_ASK, Policy, PolicyRule, ToolServer
from faos_core.clock import SystemClock
from faos_core.errors import DeadlineError, DeniedError, FaosError, InvalidError, NotFoundError, UnavailableError
from tests.parts import ROOT

FIXTURES = ROOT / "tests" / "fixtures" / "mcp"
RESULT_BYTES = 1000
ALLOW = {"all": Policy(rules=[PolicyRule(name="all", effect=POLICY_EFFECT_ALLOW)])}
ROGUE_TOOLS = ["fine", "dies", "hangs", "garbage", "floods", "breaks"]

Opened = Callable[..., AbstractAsyncContextManager[ToolServers]]


class ImpatientClock(SystemClock):
    """Restarts come without their pauses; everything else takes its time."""

    async def sleep(self, duration_s: float) -> None:
        await asyncio.sleep(0)


@pytest.fixture(
    params=[
        pytest.param(Isolation.BUBBLEWRAP, marks=pytest.mark.needs("bwrap")),
        pytest.param(Isolation.NETWORK_NAMESPACE, marks=pytest.mark.needs("namespaces")),
    ]
)
def isolation(request: pytest.FixtureRequest) -> Isolation:
    return Isolation(request.param)


def program(script: str, *arguments: str, writable: tuple[Path, ...] = ()) -> Program:
    command = (sys.executable, str(FIXTURES / f"{script}.py"), *arguments)
    return Program(script, command, readable=(FIXTURES,), writable=writable)


@pytest.fixture
def opened(isolation: Isolation, tmp_path: Path) -> Opened:
    """Opens a broker over the fixtures' programs with the given specs running."""
    counted = program("rogue", str(tmp_path), writable=(tmp_path,))
    changing = replace(counted, command=(*counted.command, "changes"))
    missing = Program("missing", ("/nowhere/at-all",))
    broken = Program("broken", ("false",))
    plain = {"echo": program("echo"), "silent": program("silent"), "missing": missing, "broken": broken}
    ceiling = Ceiling(
        programs=plain | {"rogue": counted, "changing": changing}, limits=Limits(tool_result_bytes=RESULT_BYTES)
    )

    @asynccontextmanager
    async def open_broker(*, start_timeout_s: float = 30, **specs: ToolServer) -> AsyncIterator[ToolServers]:
        broker = ToolServers(ceiling, clock=ImpatientClock(), isolations=[isolation], start_timeout_s=start_timeout_s)
        async with broker:
            await broker.reconcile(specs)
            yield broker

    return open_broker


def echo(*tools: str) -> ToolServer:
    return ToolServer(program="echo", allowed_tools=tools)


def rogue(timeout_s: int = 20, source: str = "rogue") -> ToolServer:
    return ToolServer(program=source, allowed_tools=ROGUE_TOOLS, call_timeout_seconds=timeout_s)


async def call(broker: ToolBroker, server: str, tool: str, policies: Any = None, **arguments: Any) -> ToolResult:
    chosen = ALLOW if policies is None else policies
    return await broker.call(ToolCall(server, tool, arguments), policies=chosen, idempotency_key="run-1/3")


async def failure(broker: ToolBroker, server: str, tool: str, **arguments: Any) -> tuple[type[FaosError], str]:
    with pytest.raises(FaosError) as caught:
        await call(broker, server, tool, **arguments)
    return type(caught.value), caught.value.code.code


async def test_call_returns_what_the_tool_said(opened: Opened) -> None:
    """The whole way to a server made with the library's own class and back."""
    async with opened(echo=echo("echo")) as broker:
        [definition] = broker.definitions(["echo"])
        result = await call(broker, "echo", "echo", text="grüß Gott")

    assert (definition.name, definition.description) == ("echo", "Say it again.")
    assert (result.text, result.is_error, result.truncated) == ("grüß Gott", False, False)
    assert result.structured == {"result": "grüß Gott"}


async def test_call_hands_the_idempotency_key_over(opened: Opened) -> None:
    """A server can only leave out what it did already if it sees the key."""
    async with opened(echo=echo("key")) as broker:
        assert (await call(broker, "echo", "key")).text == "run-1/3"


async def test_call_tells_a_failing_tool_from_a_failing_server(opened: Opened) -> None:
    """What a tool reports goes to the model; it is no error of the node."""
    async with opened(echo=echo("fails")) as broker:
        result = await call(broker, "echo", "fails")

    assert result.is_error
    assert "no such patient" in result.text


async def test_call_cuts_results_at_the_ceiling(opened: Opened) -> None:
    """A server must not be able to fill the node's journal or the model's context."""
    async with opened(echo=echo("big")) as broker:
        result = await call(broker, "echo", "big", characters=5000)

    assert result.text == "ä" * (RESULT_BYTES // 2)
    assert result.truncated
    assert result.structured is None


async def test_calls_run_in_parallel(opened: Opened) -> None:
    """One slow call must not hold up the others: these two each answer only once the other is there."""
    async with opened(echo=echo("meet")) as broker, asyncio.timeout(20), asyncio.TaskGroup() as group:
        first = group.create_task(call(broker, "echo", "meet", name="a"))
        second = group.create_task(call(broker, "echo", "meet", name="b"))

    assert (first.result().text, second.result().text) == ("a", "b")


async def test_cancelled_call_leaves_the_server_usable(opened: Opened) -> None:
    """Stopping a run must not stop the tools of others."""
    async with opened(echo=echo("meet", "echo")) as broker:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await call(broker, "echo", "meet", name="alone")
        assert (await call(broker, "echo", "echo", text="still here")).text == "still here"


@pytest.mark.parametrize(
    ("tool", "code"),
    [
        ("dies", "tool.server_died"),
        ("garbage", "tool.server_garbage"),
        ("floods", "tool.server_garbage"),
        ("breaks", "tool.server_garbage"),
    ],
)
async def test_call_of_a_server_that_fails_is_unavailable_and_the_next_one_works(
    opened: Opened, tool: str, code: str
) -> None:
    """A broken tool server is the normal case: it costs one call, and nobody has to restart anything."""
    async with opened(rogue=rogue()) as broker:
        assert await failure(broker, "rogue", tool) == (UnavailableError, code)
        assert (await call(broker, "rogue", "fine")).text == "fine, start 2"


async def test_call_of_a_server_that_hangs_meets_its_deadline_and_the_next_one_works(opened: Opened) -> None:
    """A server that never answers must not hold a run for ever."""
    async with opened(rogue=rogue(timeout_s=1)) as broker:
        assert await failure(broker, "rogue", "hangs") == (DeadlineError, "tool.server_hung")
        assert (await call(broker, "rogue", "fine")).text == "fine, start 2"


async def test_stderr_of_servers_is_never_logged(opened: Opened, caplog: pytest.LogCaptureFixture) -> None:
    """Servers print what customers typed; logs leave the site in support bundles."""
    with caplog.at_level(logging.DEBUG):
        async with opened(rogue=rogue()) as broker:
            await failure(broker, "rogue", "dies")
            await failure(broker, "rogue", "garbage")

    logged = "\n".join(str(vars(record)) for record in caplog.records)
    assert "tool_server.restarting" in logged
    assert "what a customer typed" not in logged
    assert "this is no JSON-RPC" not in logged


async def test_changed_definition_is_quarantined_until_the_site_accepts_it(opened: Opened) -> None:
    """A server must not be able to slip a model new instructions by describing its tool anew after a restart; nor may
    the cloud accept that by a new revision."""
    spec = rogue(source="changing")
    async with opened(rogue=spec) as broker:
        pinned = broker.definitions(["rogue"])
        await failure(broker, "rogue", "dies")

        assert await failure(broker, "rogue", "fine") == (DeniedError, "tool.definition_changed")
        assert [it.name for it in broker.definitions(["rogue"])] == sorted(set(ROGUE_TOOLS) - {"fine"})

        assert broker.alarms() == ("tool.definition_changed",)
        [state] = [it for it in broker.states() if it.is_quarantined]
        assert (state.tool, state.accepted_sha256 != state.offered_sha256) == ("fine", True)

        await broker.reconcile({"rogue": spec, "other": spec})
        assert await failure(broker, "rogue", "fine") == (DeniedError, "tool.definition_changed")
        assert await failure(broker, "other", "fine") == (DeniedError, "tool.definition_changed")

        assert await broker.repin("rogue") == ["fine"]
        assert (await call(broker, "rogue", "fine")).text == "fine, start 2"
        assert {it.sha256 for it in pinned if it.name == "fine"}.isdisjoint(
            {it.sha256 for it in broker.definitions(["rogue"])}
        )


async def test_call_is_refused_for_a_tool_that_is_not_allow_listed(opened: Opened) -> None:
    """A tool that the server has and the spec does not name does not exist, whatever policy says."""
    async with opened(rogue=ToolServer(program="rogue", allowed_tools=["fine"])) as broker:
        assert [it.name for it in broker.definitions(["rogue"])] == ["fine"]
        assert await failure(broker, "rogue", "dies") == (DeniedError, "tool.not_allowed")


async def test_call_is_refused_by_policy_before_anything_is_sent(opened: Opened) -> None:
    """The call that policy denies would kill the server, so a server that still is at its first start proves it."""
    ask = {"p": Policy(rules=[PolicyRule(name="ask", effect=POLICY_EFFECT_ASK)])}
    async with opened(rogue=rogue()) as broker:
        denied = await failure(broker, "rogue", "dies", policies={})
        asked = await failure(broker, "rogue", "dies", policies=ask)
        after = await call(broker, "rogue", "fine")

    assert denied == (DeniedError, "tool.policy_denied")
    assert asked == (DeniedError, "tool.approval_unavailable")
    assert after.text == "fine, start 1"


async def test_call_is_refused_for_arguments_that_break_the_schema(opened: Opened) -> None:
    """Small models fill arguments badly; the error names the place in the schema and never the value."""
    async with opened(echo=echo("echo")) as broker:
        with pytest.raises(InvalidError) as caught:
            await call(broker, "echo", "echo", text=["secret"])

    assert caught.value.code.code == "tool.arguments_invalid"
    assert "secret" not in f"{caught.value.what} {caught.value.why} {caught.value.fields}"


@pytest.mark.parametrize(
    ("spec", "cause"),
    [
        (ToolServer(program="stranger"), StartCause.NOT_IN_CEILING),
        (ToolServer(program="missing"), StartCause.START_FAILED),
        (ToolServer(program="broken"), StartCause.START_FAILED),
        (ToolServer(program="silent"), StartCause.START_FAILED),
        (ToolServer(program="rogue", allowed_tools=["fine", "absent"]), StartCause.TOOL_NOT_OFFERED),
    ],
)
async def test_reconcile_names_server_and_cause_and_leaves_what_ran(
    opened: Opened, spec: ToolServer, cause: StartCause
) -> None:
    """A bad revision becomes a NACK that says what is wrong with it, and the good one goes on."""
    async with opened(start_timeout_s=3, rogue=rogue()) as broker:
        with pytest.raises(ToolServerError) as caught:
            await broker.reconcile({"rogue": rogue(), "new": spec})

        assert (caught.value.server, caught.value.cause) == ("new", cause)
        assert caught.value.what
        assert caught.value.next_step
        assert (await call(broker, "rogue", "fine")).text == "fine, start 1"
        assert await failure(broker, "new", "fine") == (NotFoundError, "tool.server_unknown")


async def test_reconcile_without_sandbox_refuses() -> None:
    """No isolation, no tool: there is no way to run one with the node's own network."""
    async with ToolServers(Ceiling(programs={"echo": program("echo")}), isolations=[]) as broker:
        with pytest.raises(ToolServerError) as caught:
            await broker.reconcile({"echo": echo("echo")})

    assert caught.value.cause is StartCause.SANDBOX_UNAVAILABLE


async def test_reconcile_keeps_stops_and_starts(opened: Opened) -> None:
    """A revision that does not touch a server does not restart it; one that drops it ends it."""
    async with opened(rogue=rogue()) as broker:
        await broker.reconcile({"rogue": rogue(), "other": rogue(timeout_s=5)})
        assert (await call(broker, "rogue", "fine")).text == "fine, start 1"

        await broker.reconcile({"other": rogue(timeout_s=5)})
        assert await failure(broker, "rogue", "fine") == (NotFoundError, "tool.server_unknown")
        assert (await call(broker, "other", "fine")).text == "fine, start 2"


def holder(lock: Path) -> tuple[Ceiling, dict[str, ToolServer]]:
    lock.touch()
    ceiling = Ceiling(programs={"holder": program("holder", str(lock), writable=(lock,))})
    return ceiling, {"holder": ToolServer(program="holder", allowed_tools=["hold"])}


def locked(path: Path, *, wait: bool) -> bool:
    """Whether the lock is held; with `wait`, return only once every holder is gone."""
    with path.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return True
    return False


@pytest.mark.timeout(30)
async def test_leaving_ends_servers_that_do_not_want_to_end(isolation: Isolation, tmp_path: Path) -> None:
    """A stopped node leaves nothing behind, the children of its tool servers included."""
    ceiling, specs = holder(tmp_path / "lock")

    async with ToolServers(ceiling, isolations=[isolation]) as broker:
        await broker.reconcile(specs)
        assert locked(tmp_path / "lock", wait=False)

    assert not await asyncio.to_thread(locked, tmp_path / "lock", wait=True)


@pytest.mark.timeout(30)
async def test_servers_die_with_a_killed_node(isolation: Isolation, tmp_path: Path) -> None:
    """After kill -9 nobody is left to clean up, and still no tool server may go on without its node."""
    holder(lock := tmp_path / "lock")
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}"}
    command = (sys.executable, str(FIXTURES / "node.py"), isolation.value, str(lock))
    node = await asyncio.create_subprocess_exec(*command, env=environment, stdout=asyncio.subprocess.PIPE)
    assert node.stdout
    assert await node.stdout.readline() == b"up\n"
    assert locked(lock, wait=False)

    node.send_signal(signal.SIGKILL)
    await node.wait()

    assert not await asyncio.to_thread(locked, lock, wait=True)


@pytest.mark.needs("mcp-server-time")
async def test_foreign_server_works(isolation: Isolation) -> None:
    """What others wrote, installed in an environment of its own, runs as it comes."""
    executable = next(ROOT.glob(".cache/tools/*/bin/mcp-server-time"))
    clock = Program("clock", (str(executable), "--local-timezone", "UTC"))
    spec = ToolServer(program="clock", allowed_tools=["get_current_time"])

    async with ToolServers(Ceiling(programs={"clock": clock}), isolations=[isolation]) as broker:
        await broker.reconcile({"clock": spec})
        result = await call(broker, "clock", "get_current_time", timezone="UTC")

    assert result.structured
    assert datetime.fromisoformat(result.structured["datetime"]).tzinfo
