"""What does a change cost that goes to many nodes at once?

    python benchmarks/bench_push.py [--nodes 1 100 1000 5000] [--pushes 10] [--without-peers]

The control plane is the product: `faos control-plane run` over SQLite, each status durable before the next frame of
its node is read. Each node is a connection of its own with a certificate of its own over mutual TLS 1.3
(benchmarks/light_nodes.py), certificates made beforehand. There are ten resources of 1 KiB, and each push changes one:

* push → ACK: each node answers an offer with one status, HEALTHY, as an xDS client answers with one ACK;
* apply → HEALTHY: with the six that a real node reports on the way there.

With a thousand nodes an operator calls the admin API meanwhile (benchmarks/admin_probe.py): small calls (a node, the
tenants), and a large one, the revision with the status of every node.

Times run from the call of ApplyResources to the moment at which a node has sent its last status; "recorded" is when
the database shows all of them. CPU is the server process's, until then. The nodes are Python and share the machine:
with two cores they take more of it than the server does, which shows in the times and not in the CPU. Beside it,
go-control-plane with as many nodes, whose clients are Go.

Prints a table and writes benchmarks/results/bench_push.json.
"""

import argparse
import asyncio
import json
import os
import resource as limits
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from cryptography.hazmat.primitives import serialization

from benchmarks import peers
from benchmarks.report import Headline, keep
from control_plane.db.models import nodes
from control_plane.identity.authority import Authority
from control_plane.identity.enrolment import key_digest
from control_plane.settings import DATABASE_FILE
from faos.admin.v1 import admin_pb2 as admin
from faos.resource.v1 import resource_pb2 as resource
from faos.tunnel.v1.tunnel_pb2 import ApplyState
from faos_cli.admin_client import AdminClient, connect, create_site, create_tenant
from faos_cli.context import read_context
from faos_core.clock import SystemClock
from faos_core.ids import NodeIdentity, NodeName, SiteName, TenantName
from tunnel.identity import certificate_request, key_pem, new_key

ROOT = Path(__file__).resolve().parents[1]
TENANT, SITE = TenantName("bench"), SiteName("main")
RESOURCES, RESOURCE_BYTES = 10, 1024
ACK = [ApplyState.APPLY_STATE_HEALTHY]
REPORTED = [
    ApplyState.APPLY_STATE_RECEIVED,
    ApplyState.APPLY_STATE_VERIFIED,
    ApplyState.APPLY_STATE_STAGED,
    ApplyState.APPLY_STATE_APPLYING,
    ApplyState.APPLY_STATE_SOAKING,
    ApplyState.APPLY_STATE_HEALTHY,
]
WARM_UP = 2
IDLE_S = 3.0
START_S = 60.0
PROBE_NODES = 1000
OUR_PUSHES, PEER_PUSHES = 10, 20


@dataclass(frozen=True, slots=True)
class Process:
    """What the kernel says of one."""

    pid: int

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_kib(self) -> float:
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1024


@dataclass(slots=True)
class Pushes:
    """What several pushes came to, in milliseconds from the call."""

    waits_ms: list[float] = field(default_factory=list)  # of each node in each push
    all_ms: list[float] = field(default_factory=list)
    recorded_ms: list[float] = field(default_factory=list)
    call_ms: list[float] = field(default_factory=list)
    cpu_s: float = 0.0
    blobs: int = 0
    oddities: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Measure:
    """Of one number of nodes."""

    nodes: int
    herd_s: float  # from the first dial until all are welcomed
    herd_cpu_us_per_node: float
    rss_kib_per_node: float
    idle_cpu_percent: float  # of one core, with everybody connected and silent but for heartbeats
    ack: dict[str, float]
    healthy: dict[str, float]
    admin: dict[str, float]  # of an operator's calls meanwhile; empty: not measured


@contextmanager
def control_plane(folder: Path) -> Iterator[Process]:
    """The product's own process, on free ports."""
    tunnel, admin_port = peers.free_port(), peers.free_port()
    where = ["--tunnel-listen", f"127.0.0.1:{tunnel}", "--admin-listen", f"127.0.0.1:{admin_port}"]
    command = [sys.executable, "-m", "faos_cli", "control-plane", "run", "--data", str(folder), *where]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([*command, "--public-address", f"127.0.0.1:{tunnel}"], stdout=log, stderr=log)
        try:
            until_s = time.monotonic() + START_S
            while not (folder / "context.json").exists():
                if process.poll() is not None or time.monotonic() > until_s:
                    raise RuntimeError((folder / "log").read_text())
                time.sleep(0.05)
            yield Process(process.pid)
        finally:
            process.terminate()
            process.wait()


def tunnel_address(folder: Path) -> str:
    return f"127.0.0.1:{json.loads((folder / 'endpoints.json').read_text())['tunnel_port']}"


def enrolled(folder: Path, count: int) -> Path:
    """Certificates of so many nodes and their rows, as enrolment makes them; the file for the light nodes."""
    authority, now = Authority.open(folder / "ca", SystemClock()), SystemClock().now()
    rows, issued = [], []
    for number in range(count):
        identity, key = NodeIdentity(TENANT, SITE, NodeName(f"node-{number}")), new_key()
        certificate = authority.node_certificate(certificate_request(key), identity)
        rows.append(
            {
                "tenant": TENANT,
                "name": identity.node,
                "site": SITE,
                "spiffe_id": identity.spiffe_id,
                "labels": {"site": SITE},
                "enrolled_at": now,
                "public_key_sha256": key_digest(certificate),
                "certificate_serial": f"{certificate.serial_number:x}",
                "certificate_expires_at": certificate.not_valid_after_utc,
            }
        )
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        issued.append((identity.node, pem.decode(), key_pem(key).decode()))
    engine = sa.create_engine(f"sqlite:///{folder / DATABASE_FILE}")
    with engine.begin() as connection:
        connection.execute(sa.insert(nodes), rows)
    engine.dispose()
    file = folder / "nodes.json"
    file.write_text(json.dumps({"ca_pem": authority.pem.decode(), "nodes": issued}))
    return file


class LightNodes:
    """The process of the nodes. One order at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def order(self, **order: Any) -> dict[str, Any]:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        await self._process.stdin.drain()
        return await self.answer()

    async def answer(self) -> dict[str, Any]:
        assert self._process.stdout
        async with asyncio.timeout(120):
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("the nodes' process ended")
        facts: dict[str, Any] = json.loads(line)
        return facts


@asynccontextmanager
async def light_nodes(address: str, file: Path) -> AsyncIterator[LightNodes]:
    program = str(Path(__file__).with_name("light_nodes.py"))
    process = await asyncio.create_subprocess_exec(
        sys.executable, program, address, str(file), stdin=-1, stdout=-1, limit=1 << 24
    )
    try:
        yield LightNodes(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


class Bench:
    """One control plane with its nodes."""

    def __init__(self, folder: Path, server: Process, client: AdminClient, fleet: LightNodes, count: int) -> None:
        self._database = folder / DATABASE_FILE
        self._server = server
        self._client = client
        self._fleet = fleet
        self._count = count
        self._revision = 0

    async def apply(self, resources: Sequence[resource.Resource]) -> int:
        request = admin.ApplyResourcesRequest(tenant=TENANT, resources=resources)
        return int((await self._client.call(self._client.resources.ApplyResources, request)).revision)

    async def first(self) -> None:
        model = resource.Model(runtime=resource.MODEL_RUNTIME_LLAMA_CPP, source="small")
        rest = resource.Resource(metadata=resource.Metadata(name="llm"), model=model)
        self._revision = 1
        await self._fleet.order(do="expect", revision=1, states=ACK)
        assert await self.apply([rest, *(an_agent(number, 0) for number in range(RESOURCES))]) == 1
        await self._fleet.answer()
        await self._recorded()

    async def push(self, states: Sequence[int], into: Pushes) -> None:
        """One changed resource, until the database shows that all have it."""
        self._revision += 1
        changed = an_agent(self._revision % RESOURCES, self._revision)
        await self._fleet.order(do="expect", revision=self._revision, states=list(states))
        cpu_s, began_s = self._server.cpu_s(), time.monotonic()
        assert await self.apply([changed]) == self._revision
        into.call_ms.append((time.monotonic() - began_s) * 1000)
        facts = await self._fleet.answer()
        await self._recorded()
        into.recorded_ms.append((time.monotonic() - began_s) * 1000)
        into.cpu_s += self._server.cpu_s() - cpu_s
        into.waits_ms += [(at_s - began_s) * 1000 for at_s in facts["acked_at_s"]]
        into.all_ms.append((max(facts["acked_at_s"]) - began_s) * 1000)
        into.blobs += facts["blobs"]
        into.oddities += facts["oddities"]

    async def pushes(self, states: Sequence[int], count: int) -> Pushes:
        for _ in range(WARM_UP):
            await self.push(states, Pushes())
        result = Pushes()
        for _ in range(count):
            await self.push(states, result)
        return result

    async def probed(self, count: int) -> dict[str, float]:
        """What admin calls take while so many pushes go on."""
        program, context = (
            str(Path(__file__).with_name("admin_probe.py")),
            str(self._database.with_name("context.json")),
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable, program, context, "node-0", stdin=-1, stdout=-1, limit=1 << 24
        )
        assert process.stdin
        assert process.stdout
        await process.stdout.readline()
        await self.pushes(ACK, count)
        process.stdin.write(b"\n")
        took_ms: dict[str, list[float]] = json.loads(await process.stdout.readline())
        await process.wait()
        figures = {f"{what}_calls": float(len(values)) for what, values in took_ms.items()}
        for what, values in took_ms.items():
            figures[f"{what}_p50_ms"] = round(quantile(values, 0.50), 1)
            figures[f"{what}_p99_ms"] = round(quantile(values, 0.99), 1)
        return figures

    async def _recorded(self) -> None:
        query = "SELECT count(*) FROM nodes WHERE healthy_revision = ?"
        with closing(sqlite3.connect(f"file:{self._database}?mode=ro", uri=True)) as database:
            while database.execute(query, (self._revision,)).fetchone()[0] < self._count:  # noqa: ASYNC110  # not ours
                await asyncio.sleep(0.005)


def an_agent(number: int, version: int) -> resource.Resource:
    text = f"{version} ".ljust(RESOURCE_BYTES, "x")
    return resource.Resource(
        metadata=resource.Metadata(name=f"agent-{number}"), agent=resource.Agent(model="llm", instructions=text)
    )


def quantile(values: Sequence[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def summary(pushes: Pushes, count: int) -> dict[str, float]:
    done = len(pushes.all_ms)
    return {
        "pushes": done,
        "p50_ms": round(quantile(pushes.waits_ms, 0.50), 1),
        "p99_ms": round(quantile(pushes.waits_ms, 0.99), 1),
        "all_ms": round(statistics.median(pushes.all_ms), 1),
        "recorded_ms": round(statistics.median(pushes.recorded_ms), 1),
        "call_ms": round(statistics.median(pushes.call_ms), 1),
        "cpu_us_per_node": round(pushes.cpu_s * 1e6 / (done * count), 1),
        "blobs_per_offer": round(pushes.blobs / (done * count), 2),
    }


async def measure(count: int, pushes: int) -> Measure:
    """A control plane of its own. Raises AssertionError when a node was told anything but each revision once."""
    with tempfile.TemporaryDirectory() as name, control_plane(Path(name)) as server:
        folder = Path(name)
        async with connect(read_context(folder / "context.json")) as client:
            await create_tenant(client, TENANT)
            await create_site(client, TENANT, SITE)
            file = enrolled(folder, count)
            async with light_nodes(tunnel_address(folder), file) as fleet:
                return await measured(Bench(folder, server, client, fleet, count), server, fleet, count, pushes)


async def measured(bench: Bench, server: Process, fleet: LightNodes, count: int, pushes: int) -> Measure:
    await asyncio.sleep(1.0)
    before_kib, cpu_s, began_s = server.rss_kib(), server.cpu_s(), time.monotonic()
    await fleet.order(do="connect")
    herd_s, herd_cpu_s = time.monotonic() - began_s, server.cpu_s() - cpu_s
    await bench.first()
    await asyncio.sleep(1.0)
    rss_kib, cpu_s = server.rss_kib(), server.cpu_s()
    await asyncio.sleep(IDLE_S)
    idle = (server.cpu_s() - cpu_s) / IDLE_S * 100
    ack = await bench.pushes(ACK, pushes)
    healthy = await bench.pushes(REPORTED, max(2, pushes // 3))
    assert not ack.oddities + healthy.oddities, (ack.oddities + healthy.oddities)[:5]
    admin_calls = await bench.probed(2 * pushes) if count == PROBE_NODES else {}
    return Measure(
        nodes=count,
        herd_s=round(herd_s, 2),
        herd_cpu_us_per_node=round(herd_cpu_s * 1e6 / count),
        rss_kib_per_node=round((rss_kib - before_kib) / count, 1),
        idle_cpu_percent=round(idle, 1),
        ack=summary(ack, count),
        healthy=summary(healthy, count),
        admin=admin_calls,
    )


def beside(count: int, missing: list[str]) -> dict[str, dict[str, Any]]:
    """go-control-plane with as many nodes, by mode; empty where it cannot be had."""
    try:
        return {
            mode: peers.pushbench("-mode", mode, "-n", str(count), "-pushes", str(PEER_PUSHES))
            for mode in ("own", "shared")
        }
    except peers.MissingPeerError as error:
        if str(error) not in missing:
            missing.append(str(error))
        return {}


def show_heading() -> None:
    columns = "".join(
        f"{title:>9}" for title in ("p50 ms", "p99 ms", "all ms", "recorded", "CPU µs", "RSS KiB", "herd s")
    )
    print(f"{'':<26}{'nodes':>6}{columns}")


def show(row: Measure, others: dict[str, dict[str, Any]]) -> None:
    for what, figures in (("push → ACK", row.ack), ("apply → HEALTHY", row.healthy)):
        times = [figures[key] for key in ("p50_ms", "p99_ms", "all_ms", "recorded_ms")]
        show_row(what, row.nodes, times, [figures["cpu_us_per_node"], row.rss_kib_per_node, row.herd_s])
    for mode, peer in others.items():
        times = [peer[key] for key in ("push_ack_p50_ms", "push_ack_p99_ms", "all_acked_median_ms")]
        costs = [peer[key] for key in ("cpu_us_per_push_node", "rss_kib_per_node", "full_state_all_s")]
        show_row(f"go-control-plane {mode}", row.nodes, [*times, float("nan")], costs)
    for what in ("small", "large") if row.admin else ():
        p50, p99, calls = (row.admin[f"{what}_{key}"] for key in ("p50_ms", "p99_ms", "calls"))
        print(f"    {what} admin calls meanwhile: p50 {p50:.1f} ms, p99 {p99:.1f} ms ({calls:.0f} calls)")
    print(
        f"    idle: {row.idle_cpu_percent:.0f} % of a core; bodies in an offer: {row.ack['blobs_per_offer']:.1f};"
        f" to connect: {row.herd_cpu_us_per_node:.0f} µs of CPU a node",
        flush=True,
    )


def show_row(what: str, count: int, times_ms: Sequence[float], costs: Sequence[float]) -> None:
    figures = "".join(f"{value:>9.1f}" if value == value else f"{'-':>9}" for value in (*times_ms, *costs))
    print(f"{what:<26}{count:>6}{figures}")


def headlines(rows: Sequence[tuple[Measure, dict[str, dict[str, Any]]]]) -> list[Headline]:
    found = []
    for row, others in rows:
        own, at = others.get("own", {}), f"{row.nodes:,} nodes"
        found.append(Headline(f"push → ACK p50, {at}", row.ack["p50_ms"], "ms", peer=own.get("push_ack_p50_ms")))
        found.append(Headline(f"push → ACK p99, {at}", row.ack["p99_ms"], "ms", peer=own.get("push_ack_p99_ms")))
        found.append(Headline(f"apply → HEALTHY p99, {at}", row.healthy["p99_ms"], "ms"))
        if row.nodes < PROBE_NODES:
            continue  # fixed costs, not those of a node
        theirs, cpu = own.get("cpu_us_per_push_node"), row.ack["cpu_us_per_node"]
        aim = 2 * theirs if theirs else None
        found.append(Headline(f"CPU per push and node, {at}", cpu, "µs", must=600, aim=aim, peer=theirs))
        memory = own.get("rss_kib_per_node")
        found.append(Headline(f"RSS per node, {at}", row.rss_kib_per_node, "KiB", must=140, aim=memory, peer=memory))
        found.append(Headline(f"herd connected, {at}", row.herd_s, "s", peer=own.get("full_state_all_s")))
        if row.admin:
            found.append(Headline(f"admin call p99 meanwhile, {at}", row.admin["small_p99_ms"], "ms", must=50))
            found.append(Headline(f"all statuses, p99 meanwhile, {at}", row.admin["large_p99_ms"], "ms"))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 100, 1000, 5000])
    parser.add_argument("--pushes", type=int, default=OUR_PUSHES, help="measured ones, after two to warm up")
    parser.add_argument("--without-peers", action="store_true")
    options = parser.parse_args()
    limits.setrlimit(limits.RLIMIT_NOFILE, (limits.getrlimit(limits.RLIMIT_NOFILE)[1],) * 2)
    missing: list[str] = []
    rows = []
    show_heading()
    for count in options.nodes:
        row = asyncio.run(measure(count, options.pushes))
        others = {} if options.without_peers else beside(count, missing)
        show(row, others)
        rows.append((row, others))
    figures = [asdict(row) | {"peers": others} for row, others in rows]
    keep("bench_push", headlines(rows), missing=missing, rows=figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
