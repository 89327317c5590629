"""Events between whole planes over real TLS: each one once, whatever happens on the way, and in nobody's way."""

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import grpc
import pytest

from control_plane.config.revisions import Body
from control_plane.fleet.events import EventLog
from control_plane.fleet.frame_record import read_frames
from control_plane.fleet.service import FleetService
from data_plane.egress.reader import read_leaves
from data_plane.egress.service import ledger_folder
from data_plane.events.limits import SpoolLimits
from data_plane.identity.store import IdentityStore, Membership
from faos.admin.v1 import admin_pb2 as admin
from faos.resource.v1.resource_pb2 import Resource
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core.clock import SystemClock
from faos_core.errors import UnavailableError
from tests.patience import PATIENCE_S
from tests.system.counting_proxy import Wire, counting_proxy
from tests.system.event_nodes import EventNode, batches_beyond_ledger, event_node, events_of, run_ids
from tests.system.harness import TENANT, RunningControlPlane, running_control_plane
from tests.system.test_enrolment import session_status
from tests.system.test_sessions import ending, eventually, policy
from tunnel.client import GET_BLOB, open_channel
from tunnel.error_mapping import DETAIL_KEY
from tunnel.errors import SESSION_SUPERSEDED
from tunnel.event_push import PUSH_EVENTS
from tunnel.events import CREDIT_EVENTS
from tunnel.server import BLOBS_AT_ONCE, CHUNK_BYTES

ROOT = Path(__file__).resolve().parents[2]


async def has_come(plane: RunningControlPlane, expected: list[str]) -> None:
    """Return when exactly these are there, in this order. Fails when they are not in time."""

    async def all_there() -> bool:
        return len(await run_ids(plane)) >= len(expected)

    await eventually(all_there)
    found = await run_ids(plane)
    assert sorted(set(expected) - set(found)) == [], "lost"
    assert len(found) == len(set(found)), "doubled"
    assert found == expected, "in the order in which they were made"


async def test_five_renewals_in_a_minute_lose_and_double_no_event(tmp_path: Path) -> None:
    """Every half-life the connection is another one; what is under way on the old one must not fall between them."""
    made: list[str] = []
    seen: set[bytes] = set()
    began_s = time.monotonic()
    async with running_control_plane(tmp_path / "cp", node_certificate_lifetime_s=8.0, heartbeat_s=4.0) as plane:
        await plane.create_tenant()
        await plane.join(tmp_path / "node")
        async with event_node(plane.tunnel_address, tmp_path / "node") as node:
            while len(seen) < 6 and time.monotonic() - began_s < PATIENCE_S:
                made.append(await node.make())
                await asyncio.sleep(0.02)
                seen.add(IdentityStore(tmp_path / "node").load().credentials.chain_pem)
            took_s = time.monotonic() - began_s
            await has_come(plane, made)
            assert node.side.losses == 0, "never without a session"

            async def forgotten() -> bool:
                return await node.spool.waiting() == 0

            await eventually(forgotten)
    print(f"\n{len(seen) - 1} renewals in {took_s:.1f} s, {len(made)} events")  # noqa: T201  # a figure for the report

    assert min(len(seen), node.side.welcomes) >= 6
    assert not batches_beyond_ledger(list(read_frames(tmp_path / "cp" / "received-frames.bin")), tmp_path / "node")


@asynccontextmanager
async def behind_a_wire(tmp_path: Path, **options: Any) -> AsyncIterator[tuple[RunningControlPlane, EventNode, Wire]]:
    async with AsyncExitStack() as stack:
        plane = await stack.enter_async_context(running_control_plane(tmp_path / "cp", heartbeat_s=4.0))
        wire = await stack.enter_async_context(counting_proxy(plane.endpoints.tunnel_port))
        await plane.create_tenant()
        await plane.join(tmp_path / "node")
        address = f"127.0.0.1:{wire.port}"
        node = await stack.enter_async_context(event_node(address, tmp_path / "node", **options))
        await eventually(lambda: node.side.is_connected)
        yield plane, node, wire


async def test_connections_cut_at_random_moments_cost_nothing(tmp_path: Path) -> None:
    """Between a write and its ack, in the middle of a batch, before the first ack: each event arrives once."""
    random, made = Random(4), []
    async with behind_a_wire(tmp_path) as (plane, node, wire):
        cuts = 0
        while cuts < 12 or wire.connections <= 6:  # a busy machine is back later than the next cut
            made += [await node.make() for _ in range(random.randrange(1, 40))]
            await asyncio.sleep(random.uniform(0.0, 0.4))
            wire.cut()
            wire.heal()
            cuts += 1

        await has_come(plane, made)

    assert not batches_beyond_ledger(list(read_frames(tmp_path / "cp" / "received-frames.bin")), tmp_path / "node")


async def test_a_control_plane_that_comes_back_hears_what_happened_meanwhile(tmp_path: Path) -> None:
    """The cloud was gone for long: what the spool could hold arrives, and how many it could not."""
    async with running_control_plane(tmp_path / "cp") as plane:
        await plane.create_tenant()
        await plane.join(tmp_path / "node")
        address = plane.tunnel_address
    async with event_node(address, tmp_path / "node", limits=SpoolLimits(events=16)) as node:
        made = [await node.make() for _ in range(50)]

        async with running_control_plane(tmp_path / "cp", tunnel_listen=address) as plane:
            last = made[-1]
            await eventually(partial(is_last, plane, last))
            dropped, *rest = await events_of(plane)
            (seen,) = (await plane.nodes.ListNodes(admin.ListNodesRequest(), metadata=plane.metadata)).nodes

    assert [each.run_ended.run_id for each in rest] == made[-len(rest) :]
    assert dropped.events_dropped.count == 50 - len(rest) == seen.lost_event_count
    assert seen.event_count == len(rest) + 1


async def is_last(plane: RunningControlPlane, run_id: str) -> bool:
    return (await run_ids(plane))[-1:] == [run_id]


async def test_a_node_killed_at_any_moment_loses_nothing_that_it_said_was_durable(tmp_path: Path) -> None:
    """kill -9 between the making of an event, its sending and its ack; over several starts, each event once."""
    random, told = Random(9), []
    async with running_control_plane(tmp_path / "cp", heartbeat_s=1.0) as plane:
        await plane.create_tenant()
        await plane.join(tmp_path / "node")
        for _ in range(3):
            told += await asyncio.to_thread(life_of_a_child, plane.tunnel_address, tmp_path / "node", random)
        async with event_node(plane.tunnel_address, tmp_path / "node") as node:
            last = await node.make()
            await eventually(partial(is_last, plane, last))
        found = await run_ids(plane)

    assert len(told) > 60
    assert sorted(set(told) - set(found)) == [], "lost"
    assert len(found) == len(set(found)), "doubled"
    assert len(set(found) - set(told)) <= 3 + 1, "but for one in each life that was durable, and had not been told"


def life_of_a_child(address: str, data_dir: Path, random: Random) -> list[str]:
    """Until it is killed: ids of the events that it said are durable."""
    command = [sys.executable, "-m", "tests.system.events_child", address, str(data_dir)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "proto", ROOT / "installer")))}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT) as child:
        assert child.stdout
        told = [child.stdout.readline().strip() for _ in range(random.randrange(20, 80))]
        child.send_signal(signal.SIGKILL)
        told += [line.strip() for line in child.stdout if line.endswith("\n")]
    return told


async def test_a_control_plane_that_acknowledges_nothing_delays_no_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events have their own stream, and their credit bounds what waits there: Session must not notice."""
    stalled, record = asyncio.Event(), EventLog.record

    async def wait_and_record(self: EventLog, *arguments: Any) -> Any:
        await stalled.wait()
        return await record(self, *arguments)

    monkeypatch.setattr(EventLog, "record", wait_and_record)
    async with behind_a_wire(tmp_path) as (plane, node, wire):
        before = wire.up_bytes
        made = await asyncio.gather(*[node.make() for _ in range(1500)])
        await eventually(lambda: wire.up_bytes > before + 20_000)
        took_s = []
        for revision in range(1, 6):
            began_s = time.monotonic()
            await plane.apply(policy(f"p{revision}"))
            await eventually(partial(node.side.is_at, revision))
            took_s.append(time.monotonic() - began_s)

        assert await run_ids(plane) == []
        assert pushed(tmp_path / "node") == made[:CREDIT_EVENTS], "what is under way is bounded"
        assert node.side.losses == 0
        stalled.set()
        await has_come(plane, made)
    print(f"\nfive revisions beside a stalled stream of events in {sum(took_s):.2f} s")  # noqa: T201  # for the report

    assert min(took_s) < 1.0, "a heartbeat is later; a busy machine only makes it slower, so the quickest counts"


def pushed(data_dir: Path) -> list[str]:
    """Ids of the runs whose ends are in the ledger."""
    batches = [leaf.body or b"" for leaf in read_leaves(ledger_folder(data_dir)) if leaf.method == PUSH_EVENTS]
    return [each.run_ended.run_id for body in batches for each in tunnel.EventBatch.FromString(body).events]


async def test_revoking_cuts_events_and_blobs_within_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stolen node that holds a stream open gets nothing more and is heard no more. A busy machine only makes it
    slower: the quickest of three counts, and no heartbeat comes to their help."""
    asked = asyncio.Event()

    async def never(*_: object) -> bytes:
        asked.set()
        return await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(FleetService, "blob", never)
    took_s = []
    async with running_control_plane(tmp_path / "cp", heartbeat_s=300.0) as plane:
        await plane.create_tenant()
        for number in range(3):
            asked.clear()
            member = await plane.join(tmp_path / f"node-{number}")
            took_s.append(await revoked_and_cut(plane, member, asked))

    assert min(took_s) < 1.0


async def test_a_node_fetches_a_few_blobs_at_once_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One hostile node that opens a hundred and reads none of them would hold a hundred answers in memory."""
    goes_on = asyncio.Event()

    async def slowly(*_: object) -> bytes:
        await goes_on.wait()
        return b"body"

    monkeypatch.setattr(FleetService, "blob", slowly)
    request = tunnel.GetBlobRequest(sha256=bytes(32)).SerializeToString()
    async with running_control_plane(tmp_path / "cp", heartbeat_s=300.0) as plane:
        await plane.create_tenant()
        mine, theirs = [(await plane.join(tmp_path / f"node-{number}")).credentials for number in range(2)]
        async with open_channel(plane.tunnel_address, mine) as channel:
            fetches = [asyncio.create_task(refusal(channel, request)) for _ in range(BLOBS_AT_ONCE + 3)]
            await eventually(lambda: sum(fetch.done() for fetch in fetches) == 3)
            refused = [fetch.result() for fetch in fetches if fetch.done()]
            async with open_channel(plane.tunnel_address, theirs) as another:
                other = asyncio.create_task(refusal(another, request))
                goes_on.set()
                assert await other == "", "what one node does is not another's"
            assert (await asyncio.gather(*fetches)).count("") == BLOBS_AT_ONCE
            assert await refusal(channel, request) == "", "there is room again"

    assert all(each.startswith("UNAVAILABLE") and "blob.busy" in each for each in refused), "so a node asks again"


async def refusal(channel: grpc.aio.Channel, request: bytes) -> str:
    """Why a blob was not given; empty when it was."""
    call = channel.unary_stream(GET_BLOB, response_deserializer=tunnel.BlobChunk.FromString)(request)
    try:
        async for chunk in call:
            assert chunk.data == b"body"
    except grpc.aio.AioRpcError as error:
        detail = bytes(dict(error.trailing_metadata() or ())[DETAIL_KEY]).decode()  # type: ignore[arg-type]  # a -bin key
        return f"{error.code().name} {detail}"
    return ""


async def revoked_and_cut(plane: RunningControlPlane, member: Membership, asked: asyncio.Event) -> float:
    """Seconds from the operator's request to the end of the streams that the node has open.

    asked: set once its blob is under way.
    """
    async with open_channel(plane.tunnel_address, member.credentials) as channel:
        assert (await session_status(plane, member.credentials))[1] == "welcome"
        push = channel.stream_stream(PUSH_EVENTS, response_deserializer=tunnel.EventAck.FromString)()
        assert await push.read() == tunnel.EventAck(credit_events=1024, credit_bytes=256 * 1024)
        blob = channel.unary_stream(GET_BLOB, response_deserializer=tunnel.BlobChunk.FromString)(
            tunnel.GetBlobRequest(sha256=bytes(32)).SerializeToString()
        )
        await asked.wait()

        began_s = time.monotonic()
        request = admin.RevokeNodeRequest(tenant=TENANT, name=member.identity.node)
        await plane.nodes.RevokeNode(request, metadata=plane.metadata)
        _, detail = await ending(push)  # type: ignore[arg-type]  # reads to the end as of a session
        _, of_blob = await ending(blob)
        took_s = time.monotonic() - began_s
        again = channel.stream_stream(PUSH_EVENTS, response_deserializer=tunnel.EventAck.FromString)()
        _, refused = await ending(again)  # type: ignore[arg-type]
    assert all("node.revoked" in each for each in (detail, of_blob, refused))
    return took_s


async def test_a_blob_that_stops_half_way_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """A slow line that breaks every few minutes must get there in the end, and not start again each time."""
    large = large_policy()
    digest = Body.of(large).digest
    async with behind_a_wire(tmp_path) as (plane, node, wire):
        await plane.apply(large)
        await eventually(partial(node.side.is_at, 1))
        node.side.egress.identifiers.allow(digest)
        wire.hold_after(3 * CHUNK_BYTES)
        fetching = asyncio.create_task(node.blobs.get(digest))
        await eventually(lambda: len(node.blobs.arrived) >= CHUNK_BYTES)
        wire.cut()
        with pytest.raises(UnavailableError):
            await fetching
        wire.heal()

        body = await got_in_the_end(node, digest)

    assert hashlib.sha256(body).digest() == digest
    leaves = [leaf.body or b"" for leaf in read_leaves(ledger_folder(tmp_path / "node")) if leaf.method == GET_BLOB]
    first, *later = [tunnel.GetBlobRequest.FromString(leaf).offset_bytes for leaf in leaves]
    assert first == 0
    assert later
    assert set(later) <= {CHUNK_BYTES, 2 * CHUNK_BYTES, 3 * CHUNK_BYTES}, "from there on, not from the beginning"


async def got_in_the_end(node: EventNode, digest: bytes) -> bytes:
    """As whoever fetches does: while no session is up, it asks again."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                return await node.blobs.get(digest)
            except UnavailableError:
                await SystemClock().sleep(0.02)


def large_policy(size: int = 250_000) -> Resource:
    resource = policy("large")
    resource.policy.rules[0].arguments.update({"description": "x" * size})
    return resource


async def test_a_newer_stream_of_events_ends_the_older(tmp_path: Path) -> None:
    """A half-dead connection must not hold its place for ever."""
    async with running_control_plane(tmp_path / "cp") as plane:
        await plane.create_tenant()
        member = await plane.join(tmp_path / "node")
        async with open_channel(plane.tunnel_address, member.credentials) as channel:
            first = channel.stream_stream(PUSH_EVENTS, response_deserializer=tunnel.EventAck.FromString)()
            await first.read()
            second = channel.stream_stream(PUSH_EVENTS, response_deserializer=tunnel.EventAck.FromString)()
            await second.read()

            assert SESSION_SUPERSEDED.code in (await ending(first))[1]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "body",
    [
        b"\xff\xff\xff",
        tunnel.EventBatch(events=[tunnel.Event(epoch=1, sequence=2), tunnel.Event(epoch=1)]).SerializeToString(),
    ],
)
async def test_garbage_ends_the_stream_and_writes_nothing(tmp_path: Path, body: bytes) -> None:
    """After a valid handshake too."""
    async with running_control_plane(tmp_path / "cp") as plane:
        await plane.create_tenant()
        member = await plane.join(tmp_path / "node")
        async with open_channel(plane.tunnel_address, member.credentials) as channel:
            call = channel.stream_stream(PUSH_EVENTS, response_deserializer=tunnel.EventAck.FromString)()
            await call.read()
            await call.write(body)
            frames, _ = await ending(call)  # type: ignore[arg-type]

        assert frames == []
        assert await events_of(plane) == []


async def test_each_batch_is_a_leaf(tmp_path: Path) -> None:
    """The site proves what left it; an event is no exception."""
    async with behind_a_wire(tmp_path) as (plane, node, _):
        made = [await node.make() for _ in range(3)]
        await has_come(plane, made)

    leaves = [leaf for leaf in read_leaves(ledger_folder(tmp_path / "node")) if leaf.method == PUSH_EVENTS]
    assert pushed(tmp_path / "node") == made
    assert all(leaf.message == "faos.tunnel.v1.EventBatch" and leaf.door == "tunnel" for leaf in leaves)
