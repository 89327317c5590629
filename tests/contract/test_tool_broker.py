"""What every ToolBroker owes the agent loop, over real MCP servers in a real sandbox."""

import asyncio
import fcntl
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from data_plane.ceiling.models import Ceiling, DoorCeiling, Endpoint, Limits, Program
from data_plane.egress.service import Egress, open_egress
from data_plane.tools.broker import ToolServers
from data_plane.tools.errors import StartCause, ToolServerError
from data_plane.tools.interfaces import ToolBroker, ToolCall, ToolResult
from data_plane.tools.sandbox import Isolation
from faos.resource.v1.resource_pb2 import POLICY_EFFECT_ALLOW, POLICY_EFFECT_ASK, Policy, PolicyRule, ToolServer
from faos_core.clock import SystemClock
from faos_core.errors import DeadlineError, DeniedError, FaosError, InvalidError, NotFoundError, UnavailableError
from tests.parts import ROOT
from tests.patience import PATIENCE_S
from tests.servers.captured_http import captured_http
from tests.servers.mcp_over_http import everything, fixture_server
from tests.servers.rogue_mcp import rogue_mcp, silent_http

FIXTURES = ROOT / "tests" / "fixtures" / "mcp"
RESULT_BYTES = 1000
LIMITS = Limits(tool_result_bytes=RESULT_BYTES)
ALLOW = {"all": Policy(rules=[PolicyRule(name="all", effect=POLICY_EFFECT_ALLOW)])}
ROGUE_TOOLS = ["fine", "dies", "hangs", "garbage", "floods", "breaks"]


class ImpatientClock(SystemClock):
    """Restarts come without their pauses; everything else takes its time."""

    async def sleep(self, duration_s: float) -> None:
        await asyncio.sleep(0)


HTTP = "http"
ISOLATIONS = [
    pytest.param(Isolation.BUBBLEWRAP, marks=pytest.mark.needs("bwrap")),
    pytest.param(Isolation.NETWORK_NAMESPACE, marks=pytest.mark.needs("namespaces")),
]


@pytest.fixture(params=ISOLATIONS)
def isolation(request: pytest.FixtureRequest) -> Isolation:
    return Isolation(request.param)


@dataclass
class Way:
    """How servers are reached: in a sandbox of one kind, or over HTTP. The same names either way."""

    broker: Callable[..., ToolServers]
    hangs: Callable[[], bool]  # whether a rogue server has a call that it will not answer
    is_http: bool = False

    @asynccontextmanager
    async def __call__(self, **specs: ToolServer) -> AsyncIterator[ToolServers]:
        """A broker with these servers running."""
        async with self.broker(clock=ImpatientClock(), free_within_s=0.5) as broker:
            await broker.reconcile(specs)
            yield broker

    def spec(self, source: str, tools: Sequence[str] = (), *, timeout_s: int = 20) -> ToolServer:
        named = {"endpoint": source} if self.is_http else {"program": source}
        return ToolServer(allowed_tools=tools, call_timeout_seconds=timeout_s, **named)

    def echo(self, *tools: str) -> ToolServer:
        return self.spec("echo", tools)

    def rogue(self, timeout_s: int = 20, source: str = "rogue") -> ToolServer:
        return self.spec(source, ROGUE_TOOLS, timeout_s=timeout_s)


def program(script: str, *arguments: str, writable: tuple[Path, ...] = ()) -> Program:
    command = (sys.executable, str(FIXTURES / f"{script}.py"), *arguments)
    return Program(script, command, readable=(FIXTURES,), writable=writable)


def programs(folder: Path, isolation: Isolation) -> Way:
    counted = program("rogue", str(folder), writable=(folder,))
    changing = replace(counted, command=(*counted.command, "changes"))
    missing = Program("missing", ("/nowhere/at-all",))
    broken = Program("broken", ("false",))
    plain = {"echo": program("echo"), "silent": program("silent"), "missing": missing, "broken": broken}
    ceiling = Ceiling(programs=plain | {"rogue": counted, "changing": changing}, limits=LIMITS)
    return Way(partial(ToolServers, ceiling, isolations=[isolation]), (folder / "hangs").exists)


@asynccontextmanager
async def endpoints(folder: Path, echo_url: str) -> AsyncIterator[Way]:
    async with (
        rogue_mcp() as rogue,
        rogue_mcp(changes=True) as changing,
        silent_http() as silent,
        captured_http() as web,
    ):
        urls = {"echo": echo_url, "rogue": rogue.url, "changing": changing.url}
        urls |= {"silent": f"http://127.0.0.1:{silent}/mcp", "missing": "http://127.0.0.1:9/mcp"}
        urls |= {"broken": f"http://127.0.0.1:{web.port}/"}
        named = {name: Endpoint(name, url, DoorCeiling.CUSTOMER) for name, url in urls.items()}
        ceiling = Ceiling(endpoints=named, limits=LIMITS)
        async with open_egress(folder, ceiling) as egress:
            broker = partial(ToolServers, ceiling, isolations=[], open_door=egress.http_door)
            yield Way(broker, lambda: "tools/call" in rogue.methods, is_http=True)


@pytest.fixture(scope="module")
def echo_url() -> Iterator[str]:
    with fixture_server("echo") as url:
        yield url


@pytest.fixture(params=[*ISOLATIONS, HTTP])
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Way]:
    if request.param != HTTP:
        yield programs(tmp_path, Isolation(request.param))
        return
    async with endpoints(tmp_path, request.getfixturevalue("echo_url")) as way:
        yield way


def over(ceiling: Ceiling, egress: Egress) -> ToolServers:
    return ToolServers(ceiling, isolations=[], open_door=egress.http_door)


async def call(broker: ToolBroker, server: str, tool: str, policies: Any = None, **arguments: Any) -> ToolResult:
    chosen = ALLOW if policies is None else policies
    return await broker.call(ToolCall(server, tool, arguments), policies=chosen, idempotency_key="run-1/3")


async def failure(broker: ToolBroker, server: str, tool: str, **arguments: Any) -> tuple[type[FaosError], str]:
    with pytest.raises(FaosError) as caught:
        await call(broker, server, tool, **arguments)
    return type(caught.value), caught.value.code.code


async def test_call_returns_what_the_tool_said(opened: Way) -> None:
    """The whole way to a server made with the library's own class and back."""
    async with opened(echo=opened.echo("echo")) as broker:
        [definition] = broker.definitions(["echo"])
        result = await call(broker, "echo", "echo", text="grüß Gott")

    assert (definition.name, definition.description) == ("echo", "Say it again.")
    assert (result.text, result.is_error, result.truncated) == ("grüß Gott", False, False)
    assert result.structured == {"result": "grüß Gott"}


async def test_call_hands_the_idempotency_key_over(opened: Way) -> None:
    """A server can only leave out what it did already if it sees the key."""
    async with opened(echo=opened.echo("key")) as broker:
        assert (await call(broker, "echo", "key")).text == "run-1/3"


async def test_call_tells_a_failing_tool_from_a_failing_server(opened: Way) -> None:
    """What a tool reports goes to the model; it is no error of the node."""
    async with opened(echo=opened.echo("fails")) as broker:
        result = await call(broker, "echo", "fails")

    assert result.is_error
    assert "no such patient" in result.text


async def test_call_cuts_results_at_the_ceiling(opened: Way) -> None:
    """A server must not be able to fill the node's journal or the model's context."""
    async with opened(echo=opened.echo("big")) as broker:
        result = await call(broker, "echo", "big", characters=5000)

    assert result.text == "ä" * (RESULT_BYTES // 2)
    assert result.truncated
    assert result.structured is None


async def test_calls_run_in_parallel(opened: Way) -> None:
    """One slow call must not hold up the others: these two each answer only once the other is there."""
    async with opened(echo=opened.echo("meet")) as broker, asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
        first = group.create_task(call(broker, "echo", "meet", name="a"))
        second = group.create_task(call(broker, "echo", "meet", name="b"))

    assert (first.result().text, second.result().text) == ("a", "b")


async def test_cancelled_call_leaves_the_server_usable(opened: Way) -> None:
    """Stopping a run must not stop the tools of others."""
    async with opened(echo=opened.echo("meet", "echo")) as broker:
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
    opened: Way, tool: str, code: str
) -> None:
    """A broken tool server is the normal case: it costs one call, and nobody has to restart anything."""
    async with opened(rogue=opened.rogue()) as broker:
        assert await failure(broker, "rogue", tool) == (UnavailableError, code)
        assert (await call(broker, "rogue", "fine")).text == "fine, start 2"


async def test_call_of_a_server_that_hangs_meets_its_deadline_and_the_next_one_works(opened: Way) -> None:
    """A server that never answers must not hold a run for ever."""
    async with opened(rogue=opened.rogue(timeout_s=5)) as broker:
        assert await failure(broker, "rogue", "hangs") == (DeadlineError, "tool.server_hung")
        after = await call(broker, "rogue", "fine")

    assert after.text == ("fine, start 1" if opened.is_http else "fine, start 2")  # ours are ended, others' are left


async def test_abandoned_call_of_a_server_that_does_not_listen_leaves_nothing_busy(opened: Way) -> None:
    """Who cancels a run wants the tool to stop: a program that goes on regardless is ended, long before its call's
    deadline; of an endpoint we hang up."""
    async with opened(rogue=opened.rogue(timeout_s=600)) as broker, asyncio.timeout(PATIENCE_S):
        hanging = asyncio.ensure_future(call(broker, "rogue", "hangs"))
        while not opened.hangs():
            await asyncio.sleep(0.01)
        hanging.cancel()
        await asyncio.wait([hanging])
        after = await call(broker, "rogue", "fine")

    assert hanging.cancelled()
    assert after.text == ("fine, start 1" if opened.is_http else "fine, start 2")


async def test_what_servers_say_in_passing_is_never_logged(opened: Way, caplog: pytest.LogCaptureFixture) -> None:
    """Servers print what customers typed; logs leave the site in support bundles."""
    with caplog.at_level(logging.DEBUG):
        async with opened(rogue=opened.rogue()) as broker:
            await failure(broker, "rogue", "dies")
            await failure(broker, "rogue", "garbage")

    logged = "\n".join(str(vars(record)) for record in caplog.records)
    assert "tool_server.restarting" in logged
    assert "what a customer typed" not in logged
    assert "this is no JSON-RPC" not in logged


async def test_changed_definition_is_quarantined_until_the_site_accepts_it(opened: Way) -> None:
    """A server must not be able to slip a model new instructions by describing its tool anew after a restart; nor may
    the cloud accept that by a new revision."""
    spec = opened.rogue(source="changing")
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


async def test_definition_accepted_while_a_revision_comes_up_stays_accepted(opened: Way) -> None:
    """A person's word must not be undone by a start that began before it was given."""
    spec, newer = opened.rogue(source="changing"), opened.rogue(source="changing", timeout_s=19)
    async with opened(rogue=spec) as broker:
        await failure(broker, "rogue", "dies")
        assert await failure(broker, "rogue", "fine") == (DeniedError, "tool.definition_changed")

        async with broker.begun({"rogue": newer}) as change:
            await change.ready()
            assert await broker.repin("rogue") == ["fine"]
            await change.commit()

        assert broker.alarms() == ()
        assert (await call(broker, "rogue", "fine")).text.startswith("fine, start ")
        await broker.reconcile({"rogue": spec})
        assert (await call(broker, "rogue", "fine")).text.startswith("fine, start ")


async def test_call_is_refused_for_a_tool_that_is_not_allow_listed(opened: Way) -> None:
    """A tool that the server has and the spec does not name does not exist, whatever policy says."""
    async with opened(rogue=opened.spec("rogue", ["fine"])) as broker:
        assert [it.name for it in broker.definitions(["rogue"])] == ["fine"]
        assert await failure(broker, "rogue", "dies") == (DeniedError, "tool.not_allowed")


async def test_call_is_refused_by_policy_before_anything_is_sent(opened: Way) -> None:
    """The call that policy denies would kill the server, so a server that still is at its first start proves it."""
    ask = {"p": Policy(rules=[PolicyRule(name="ask", effect=POLICY_EFFECT_ASK)])}
    async with opened(rogue=opened.rogue()) as broker:
        denied = await failure(broker, "rogue", "dies", policies={})
        asked = await failure(broker, "rogue", "dies", policies=ask)
        after = await call(broker, "rogue", "fine")

    assert denied == (DeniedError, "tool.policy_denied")
    assert asked == (DeniedError, "tool.approval_unavailable")
    assert after.text == "fine, start 1"


async def test_call_is_refused_for_arguments_that_break_the_schema(opened: Way) -> None:
    """Small models fill arguments badly; the error names the place in the schema and never the value."""
    async with opened(echo=opened.echo("echo")) as broker:
        with pytest.raises(InvalidError) as caught:
            await call(broker, "echo", "echo", text=["secret"])

    assert caught.value.code.code == "tool.arguments_invalid"
    assert "secret" not in f"{caught.value.what} {caught.value.why} {caught.value.fields}"


@pytest.mark.parametrize(
    ("source", "tools", "cause"),
    [
        ("stranger", [], StartCause.NOT_IN_CEILING),
        ("missing", [], StartCause.START_FAILED),
        ("broken", [], StartCause.START_FAILED),
        ("silent", [], StartCause.START_FAILED),
        ("rogue", ["fine", "absent"], StartCause.TOOL_NOT_OFFERED),
    ],
)
async def test_reconcile_names_server_and_cause_and_leaves_what_ran(
    opened: Way, source: str, tools: list[str], cause: StartCause
) -> None:
    """A bad revision becomes a NACK that says what is wrong with it, and the good one goes on."""
    async with opened(rogue=opened.rogue()) as broker:
        if source == "silent":
            broker._start_timeout_s = 0.5  # it never answers; the others may take their time
        with pytest.raises(ToolServerError) as caught:
            await broker.reconcile({"rogue": opened.rogue(), "new": opened.spec(source, tools)})

        assert (caught.value.server, caught.value.cause) == ("new", cause)
        assert caught.value.what
        assert caught.value.next_step
        assert (await call(broker, "rogue", "fine")).text == "fine, start 1"
        assert await failure(broker, "new", "fine") == (NotFoundError, "tool.server_unknown")


async def test_reconcile_without_sandbox_refuses() -> None:
    """No isolation, no tool: there is no way to run one with the node's own network."""
    async with ToolServers(Ceiling(programs={"echo": program("echo")}), isolations=[]) as broker:
        with pytest.raises(ToolServerError) as caught:
            await broker.reconcile({"echo": ToolServer(program="echo", allowed_tools=["echo"])})

    assert caught.value.cause is StartCause.SANDBOX_UNAVAILABLE


async def test_reconcile_keeps_stops_and_starts(opened: Way) -> None:
    """A revision that does not touch a server does not restart it; one that drops it ends it."""
    async with opened(rogue=opened.rogue()) as broker:
        await broker.reconcile({"rogue": opened.rogue(), "other": opened.rogue(timeout_s=30)})
        assert (await call(broker, "rogue", "fine")).text == "fine, start 1"

        await broker.reconcile({"other": opened.rogue(timeout_s=30)})
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


async def test_leaving_ends_servers_that_do_not_want_to_end(isolation: Isolation, tmp_path: Path) -> None:
    """A stopped node leaves nothing behind, the children of its tool servers included."""
    ceiling, specs = holder(tmp_path / "lock")

    async with ToolServers(ceiling, isolations=[isolation]) as broker:
        await broker.reconcile(specs)
        assert locked(tmp_path / "lock", wait=False)

    assert not await asyncio.to_thread(locked, tmp_path / "lock", wait=True)


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


@pytest.mark.needs("mcp-server-everything")
async def test_foreign_server_works_over_http(tmp_path: Path) -> None:
    """What others wrote, in another language and with sessions of its own, works as it comes."""
    with everything() as url:
        ceiling = Ceiling(endpoints={"everything": Endpoint("everything", url, DoorCeiling.CUSTOMER)})
        spec = ToolServer(endpoint="everything", allowed_tools=["echo", "get-sum"])
        async with open_egress(tmp_path, ceiling) as egress, over(ceiling, egress) as broker:
            await broker.reconcile({"all": spec})
            said = await call(broker, "all", "echo", message="grüß Gott")
            added = await call(broker, "all", "get-sum", a=2, b=40)

    assert "grüß Gott" in said.text
    assert "42" in added.text
