"""MCP over HTTP: what the ledger says, what is bounded, and what a server can do to us. The contract of all tool
servers is in tests/contract/test_tool_broker.py."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from data_plane.ceiling.models import Ceiling, DoorCeiling, Endpoint, Limits
from data_plane.egress.interfaces import Leaf
from data_plane.egress.reader import read_leaves
from data_plane.egress.service import ledger_folder, open_egress
from data_plane.tools.broker import ToolServers
from data_plane.tools.errors import ToolServerError
from data_plane.tools.interfaces import ToolCall, ToolResult
from data_plane.tools.mcp_http import AbandonedError, Exchanges
from faos.resource.v1.resource_pb2 import POLICY_EFFECT_ALLOW, Policy, PolicyRule, ToolServer
from faos_core.clock import SystemClock
from faos_core.errors import DeniedError, FaosError, UnavailableError
from tests.patience import PATIENCE_S
from tests.servers.captured_http import captured_http
from tests.servers.rogue_mcp import TOOLS, rogue_mcp

ALLOW = {"all": Policy(rules=[PolicyRule(name="all", effect=POLICY_EFFECT_ALLOW)])}


class ImpatientClock(SystemClock):
    async def sleep(self, duration_s: float) -> None:
        await asyncio.sleep(0)


def ceiling_of(url: str, data_class: DoorCeiling = DoorCeiling.CUSTOMER) -> Ceiling:
    return Ceiling(endpoints={"box": Endpoint("box", url, data_class)}, limits=Limits(tool_result_bytes=1000))


@asynccontextmanager
async def broker_over(folder: Path, ceiling: Ceiling, *, timeout_s: int = 20) -> AsyncIterator[ToolServers]:
    async with open_egress(folder, ceiling) as egress:
        servers = ToolServers(ceiling, clock=ImpatientClock(), isolations=[], open_door=egress.http_door)
        async with servers:
            spec = ToolServer(endpoint="box", allowed_tools=TOOLS, call_timeout_seconds=timeout_s)
            await servers.reconcile({"box": spec})
            yield servers


async def call(broker: ToolServers, tool: str, **arguments: str) -> ToolResult:
    return await broker.call(ToolCall("box", tool, arguments), policies=ALLOW, idempotency_key="run-1.3")


def leaves(folder: Path) -> list[Leaf]:
    return list(read_leaves(ledger_folder(folder)))


async def test_every_request_is_a_leaf_over_its_very_bytes(tmp_path: Path) -> None:
    """The site proves to an auditor what left it: nothing reached the server that is not in the ledger, byte for byte;
    of a call stay size, destination and digest, not what a customer said."""
    async with rogue_mcp() as rogue:
        async with broker_over(tmp_path, ceiling_of(rogue.url)) as broker:
            await call(broker, "fine", words="canary-words")
        seen, methods = rogue.requests, rogue.methods

    kept = leaves(tmp_path)
    assert [hashlib.sha256(request).digest() for request in seen] == [leaf.body_sha256 for leaf in kept]
    assert {leaf.door for leaf in kept} == {"mcp-http"}
    [of_call] = [leaf for leaf, method in zip(kept, methods, strict=True) if method == "tools/call"]
    assert (of_call.body, of_call.fields_by_class) == (None, {"CUSTOMER": 1})
    assert of_call.destination == f"127.0.0.1:{rogue.port}"
    unkept = [leaf is of_call or b"mcp-session-id: " in request for leaf, request in zip(kept, seen, strict=True)]
    assert [leaf.body is None for leaf in kept] == unkept, "no credential either"
    assert set(unkept) == {True, False}, "requests of both kinds were made"
    everything = b"".join(path.read_bytes() for path in ledger_folder(tmp_path).rglob("*") if path.is_file())
    assert b"canary-words" not in everything


async def test_sessions_are_kept_begun_anew_and_ended(tmp_path: Path) -> None:
    """A server that was restarted knows no session of before: its 404 costs one call, and the next has a new one."""
    async with rogue_mcp() as rogue:
        async with broker_over(tmp_path, ceiling_of(rogue.url)) as broker:
            first = await call(broker, "fine")
            rogue.forget_sessions()
            with pytest.raises(UnavailableError):
                await call(broker, "fine")
            again = await call(broker, "fine")
        last = rogue.methods[-1]

    assert (first.text, again.text) == ("fine, start 1", "fine, start 2")
    assert last == "DELETE"


async def test_server_that_goes_and_comes_back_is_asked_again(tmp_path: Path) -> None:
    """Nobody has to touch the node when a tool server is upgraded."""
    async with rogue_mcp() as rogue:
        port = rogue.port
        ceiling = ceiling_of(rogue.url)
        broker_context = broker_over(tmp_path, ceiling, timeout_s=5)
        broker = await broker_context.__aenter__()
    with pytest.raises(UnavailableError):
        await call(broker, "fine")
    async with rogue_mcp(port=port):
        after = await call(broker, "fine")
        await broker_context.__aexit__(None, None, None)

    assert after.text == "fine, start 1"


async def test_answer_that_breaks_is_resumed_where_the_server_can(tmp_path: Path) -> None:
    """A long call must not be lost to a proxy that cuts streams; and each resumption is a leaf too."""
    async with rogue_mcp(streams=True) as rogue:
        async with broker_over(tmp_path, ceiling_of(rogue.url)) as broker:
            result = await call(broker, "fine")
        gets = [request for request in rogue.requests if request.startswith(b"GET")]

    assert result.text == "fine, start resumed"
    assert len(gets) == 1
    resumed = [leaf for leaf in leaves(tmp_path) if leaf.method == "GET /mcp"]
    assert [leaf.body for leaf in resumed] == [None], "it says where by a word of the server's"


async def test_abandoned_call_hangs_up(tmp_path: Path) -> None:
    """The server learns that nobody waits: by the protocol's own word, and by the connection."""
    async with (
        rogue_mcp() as rogue,
        asyncio.timeout(PATIENCE_S),
        broker_over(tmp_path, ceiling_of(rogue.url), timeout_s=600) as broker,
    ):
        hanging = asyncio.ensure_future(call(broker, "hangs"))
        while "tools/call" not in rogue.methods:
            await asyncio.sleep(0.01)
        hanging.cancel()
        await asyncio.wait([hanging])
        await rogue.hung_up.wait()
        after = await call(broker, "fine")

    assert after.text == "fine, start 1"
    assert "notifications/cancelled" in rogue.methods


async def test_one_slow_call_does_not_end_the_calls_of_others(tmp_path: Path) -> None:
    """Of a server that many use, only the call that is late is given up."""
    async with rogue_mcp() as rogue, broker_over(tmp_path, ceiling_of(rogue.url), timeout_s=5) as broker:
        async with asyncio.TaskGroup() as group:
            slow = group.create_task(failure(broker, "hangs"))
            for _ in range(20):
                await call(broker, "fine")
        after = await call(broker, "fine")

    assert slow.result().code.code == "tool.server_hung"
    assert after.text == "fine, start 1"


async def failure(broker: ToolServers, tool: str) -> FaosError:
    with pytest.raises(FaosError) as caught:
        await call(broker, tool)
    return caught.value


async def test_redirect_is_not_followed(tmp_path: Path) -> None:
    """Only the site says where anything goes; a server that is taken over would send the next call elsewhere."""
    async with captured_http() as elsewhere:
        moved = f"HTTP/1.1 307 X\r\nLocation: http://127.0.0.1:{elsewhere.port}/mcp\r\nContent-Length: 0\r\n\r\n"
        async with captured_http(moved.encode()) as here:
            with pytest.raises(ToolServerError) as caught:
                async with broker_over(tmp_path, ceiling_of(f"http://127.0.0.1:{here.port}/mcp")):
                    pass

    assert elsewhere.requests == []
    assert "[endpoints.box]" in caught.value.next_step


async def test_compressed_answer_is_not_undone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """None was asked for; undone, a thousand bytes could become a gigabyte behind every limit."""
    bomb = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n{}\n"
    )
    async with captured_http(bomb) as server:
        with pytest.raises(ToolServerError):
            async with broker_over(tmp_path, ceiling_of(f"http://127.0.0.1:{server.port}/mcp")):
                pass

    assert "tool_server.defect" not in caplog.text  # nobody tried to undo it


async def test_endpoint_below_customer_is_never_sent_a_call(tmp_path: Path) -> None:
    """Admission refuses such a tool server; should one run all the same, the door does."""
    async with rogue_mcp() as rogue, broker_over(tmp_path, ceiling_of(rogue.url, DoorCeiling.IDENTIFIER)) as broker:
        error = await failure(broker, "fine")

    assert isinstance(error, UnavailableError | DeniedError)
    assert "tools/call" not in rogue.methods


async def test_session_can_be_cut_while_an_abandoned_call_wakes() -> None:
    """Both come together when a run is cancelled as its server dies; a cut that fails half-way leaves calls hanging."""
    faults: list[object] = []
    exchanges = Exchanges(httpx2.MockTransport(lambda _: httpx2.Response(200)), lambda *fault: faults.append(fault))

    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(until_abandoned(exchanges))
        await asyncio.sleep(0)
        exchanges._abandon(1)
        await asyncio.sleep(0)  # its time-out has gone off, and it has not run yet
        exchanges.cut()

    assert waiting.done()


async def test_abandoned_requests_are_not_remembered_for_ever() -> None:
    """A session may last for months, and lose a call each minute."""
    inner = httpx2.MockTransport(lambda _: httpx2.Response(202))
    exchanges = Exchanges(inner, lambda _fault, _error: None)
    for number in range(5000):
        word = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": number}}
        await exchanges.handle_async_request(httpx2.Request("POST", "http://box/mcp", json=word))

    assert len(exchanges._abandoned) == 4096
    with pytest.raises(AbandonedError):
        await exchanges.unless_abandoned(4999, asyncio.Event().wait)


async def until_abandoned(exchanges: Exchanges) -> None:
    with pytest.raises(AbandonedError):
        await exchanges.unless_abandoned(1, asyncio.Event().wait)
