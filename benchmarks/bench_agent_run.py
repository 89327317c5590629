"""What does an agent's run cost, apart from the model?

    python benchmarks/bench_agent_run.py [--runs 1600] [--concurrent-runs 3000] [--without-peers]

One run is two model turns and one tool call. Everything is the product's: the runs with their journal (SQLite,
fsynced, sealed) and the event of each one's end, the policy, the argument schema, the Ollama client, the HTTP door,
the ledger (an fsync before each request), on the disk under --folder. The model is the stub server of the peers, which
answers at once over loopback and is a process of its own. It calls tools natively, and our agents by JSON under a
schema, so `StubServer` below translates; its cost is in our figures. The tool is a Python function; in a row of its
own, an MCP server over stdio in its sandbox. LangGraph with its SQLite checkpoints, against the same stub, beside it.

Runs one at a time are made in eight parts with pauses between them, and the figures are of all of them together: a
machine that others share is faster in one second than in the next, and a second is what two hundred runs take.

Prints tables and writes benchmarks/results/bench_agent_run.json.
"""

import argparse
import asyncio
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks import peers
from benchmarks.report import Headline, keep
from data_plane.agents.journal import Journal, NewRun
from data_plane.agents.perform import Ports
from data_plane.agents.service import Runs
from data_plane.agents.steps import Ending, RecordedStep, RunState, StepKind, StepOutcome, StepRequest
from data_plane.ceiling.models import Ceiling, DoorCeiling, Endpoint, Limits, Program
from data_plane.egress.http_door import HttpRequest
from data_plane.egress.service import Egress, open_egress
from data_plane.events.makers import RunEndings
from data_plane.events.spool import EventSpool
from data_plane.link.interfaces import Configuration
from data_plane.models.interfaces import Message, Role, Sampling, TurnEnd
from data_plane.models.ollama import OllamaRuntime, OllamaServer
from data_plane.storage.service import open_storage
from data_plane.tools.broker import ToolServers
from data_plane.tools.interfaces import ToolBroker, ToolResult
from faos.resource.v1 import resource_pb2 as resource
from faos_core import event_loop
from faos_core.clock import SystemClock
from faos_core.ids import TenantName
from faos_core.lifecycle import running, settle_memory
from tests.fakes.agents import InProcessTools, WordEmbedder, definition

HERE = Path(__file__).resolve().parent
QUESTION = "What is 2+3? Use the tool."
ANSWER = "The answer is 5."
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
    "additionalProperties": False,
}
HELD = 500
HELD_MODEL = "stub-d60000"  # the stub answers after 60 s
CONCURRENT = 100
PARTS = 8  # of the runs one at a time
PAUSE_S = 3.0  # between two of them


class StubServer(OllamaServer):
    """The product's client of an Ollama server; the stub's native tool calls become the JSON that was asked for, and
    the turn after the tool says so in the way that the stub understands."""

    async def lines(self, request: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
        if "format" not in request:
            request = {**request, "messages": [*request["messages"], {"role": "assistant", "content": ""}]}
        async with aclosing(super().lines(request)) as lines:
            async for line in lines:
                yield with_calls_as_text(line) if b"tool_calls" in line else line


def with_calls_as_text(line: bytes) -> bytes:
    fields = json.loads(line)
    [call] = fields["message"]["tool_calls"]
    fields["message"]["content"] = json.dumps(call["function"]["arguments"])
    return json.dumps(fields).encode()


@dataclass(frozen=True, slots=True)
class Parts:
    """A node's insides, as far as runs need them."""

    runs: Runs
    journal: Journal
    egress: Egress
    endpoint: Endpoint
    model: OllamaRuntime


@dataclass(frozen=True, slots=True)
class Loaded:
    """The only model there is. Implements LoadedModels."""

    model: OllamaRuntime

    def runtime(self, name: str) -> OllamaRuntime:
        return self.model


@dataclass(frozen=True, slots=True)
class Fixed:
    """Implements RunningConfiguration."""

    configuration: Configuration

    def running(self) -> Configuration:
        return self.configuration


@dataclass(frozen=True, slots=True)
class Measure:
    what: str
    at_once: int
    runs: int
    runs_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_ms_per_run: float  # of this process: neither the stub nor a tool server
    cpu_ms_per_run_by_part: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Layer:
    """What part of a run costs alone."""

    what: str
    wall_ms: float
    cpu_ms: float


def configuration() -> Configuration:
    rule = resource.PolicyRule(name="sums", tools=["add"], effect=resource.POLICY_EFFECT_ALLOW)
    agent = resource.Agent(
        model="stub",
        instructions="Answer in one short sentence.",
        tools=["sums"],
        tool_choice=resource.TOOL_CHOICE_REQUIRED,
        policies=["allow"],
    )
    return Configuration(
        revision=1,
        agents={"bench": agent},
        models={"stub": resource.Model(runtime=resource.MODEL_RUNTIME_OLLAMA)},
        tool_servers={"sums": resource.ToolServer(program="sums", allowed_tools=["add"], call_timeout_seconds=30)},
        policies={"allow": resource.Policy(rules=[rule])},
    )


async def add(arguments: Mapping[str, Any], idempotency_key: str) -> ToolResult:
    return ToolResult(str(arguments["a"] + arguments["b"]))


def in_process_tools() -> InProcessTools:
    tools = InProcessTools()
    tools.add(definition("add", "Add two integers.", server="sums", schema=SCHEMA), add)
    return tools


@asynccontextmanager
async def stdio_tools(config: Configuration) -> AsyncIterator[ToolServers]:
    program = Program("sums", (sys.executable, str(HERE / "adding_tool.py")), readable=(HERE,))
    async with ToolServers(Ceiling(programs={"sums": program})) as tools:
        await tools.reconcile(config.tool_servers)
        yield tools


@asynccontextmanager
async def parts(folder: Path, url: str, tools: ToolBroker, *, model: str = "stub") -> AsyncIterator[Parts]:
    """folder: of the node's data; there may be some already."""
    clock, config = SystemClock(), configuration()
    endpoint = Endpoint("stub", url, DoorCeiling.CUSTOMER)
    ceiling = Ceiling(endpoints={"stub": endpoint}, limits=Limits(concurrent_runs=10_000))
    async with (
        open_egress(folder, ceiling) as egress,
        open_storage(folder, tenant=TenantName("bench")) as storage,
        egress.http_door("remote-model", endpoint) as door,
    ):
        runtime = OllamaRuntime(StubServer(door), model, context_tokens=4096)
        allow = egress.identifiers.allow
        spool = await EventSpool.open(storage.store, clock, node="spiffe://bench/node", epoch=1, allow=allow)
        journal = Journal(storage.store, storage.sealer, clock, ended=RunEndings(spool))
        ports = Ports(Fixed(config), Loaded(runtime), WordEmbedder(), tools, None)  # type: ignore[arg-type]  # no documents
        runs = Runs(journal, ports, ceiling.limits, clock)
        async with running([runs]):
            yield Parts(runs, journal, egress, endpoint, runtime)
        await runtime.aclose()


async def one_run(runs: Runs) -> float:
    """From the request to the finished event; milliseconds."""
    began_s = time.perf_counter()
    run_id = await runs.start("bench", QUESTION)
    async for event in runs.watch(run_id):
        if event.HasField("finished"):
            assert event.finished.output == ANSWER, event
    return (time.perf_counter() - began_s) * 1000


async def measure(what: str, runs: Runs, *, count: int, at_once: int) -> Measure:
    """One at a time: in parts, with pauses between them that do not count."""
    for _ in range(20):
        await one_run(runs)
    settle_memory()  # as a node does once it is up
    sizes = [count] if at_once > 1 else [count // PARTS] * PARTS
    took_ms: list[float] = []
    wall_s, cpu_s = [], []
    for place, size in enumerate(sizes):
        if place:
            await asyncio.sleep(PAUSE_S)
        began_s, cpu_began_s = time.perf_counter(), time.process_time()
        took_ms += await timed_runs(runs, count=size, at_once=at_once)
        wall_s.append(time.perf_counter() - began_s)
        cpu_s.append(time.process_time() - cpu_began_s)
    p99_ms = statistics.quantiles(took_ms, n=100)[98]
    p50_ms, cpu_ms = statistics.median(took_ms), sum(cpu_s) * 1000 / len(took_ms)
    by_part = rounded(*(part_s * 1000 / size for part_s, size in zip(cpu_s, sizes, strict=True)))
    per_s = round(len(took_ms) / sum(wall_s), 1)
    return Measure(what, at_once, len(took_ms), per_s, round(p50_ms, 2), round(p99_ms, 2), round(cpu_ms, 2), by_part)


async def timed_runs(runs: Runs, *, count: int, at_once: int) -> list[float]:
    """Milliseconds that each took."""
    left = iter(range(count))
    took_ms: list[float] = []

    async def work() -> None:
        for _ in left:
            took_ms.append(await one_run(runs))  # noqa: PERF401  # shared with the others

    await asyncio.gather(*(work() for _ in range(at_once)))
    return took_ms


def rounded(*values: float) -> tuple[float, ...]:
    return tuple(round(value, 2) for value in values)


async def timed(what: str, count: int, work: Callable[[], Awaitable[None]]) -> Layer:
    for _ in range(10):
        await work()
    began_s, cpu_s = time.perf_counter(), time.process_time()
    for _ in range(count):
        await work()
    wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
    return Layer(what, *rounded(wall_s * 1000 / count, cpu_s * 1000 / count))


async def layers(node: Parts, count: int) -> list[Layer]:
    """Each for as much as one run needs of it: two requests, or four transactions. Each holds the one above it."""
    body = json.dumps({"model": "stub", "messages": [{"role": "user", "content": QUESTION}]}).encode()
    url = f"{node.endpoint.url}/api/chat"
    messages = [Message(Role.USER, QUESTION)]
    results = []
    async with aiohttp.ClientSession() as session:

        async def bare() -> None:
            for _ in range(2):
                async with session.post(url, data=body) as answer:
                    await answer.read()

        results.append(await timed("stub, asked over one kept connection", count, bare))
    async with node.egress.http_door("remote-model", node.endpoint) as door:

        async def through_door() -> None:
            for _ in range(2):
                request = HttpRequest("POST", url, {"content-type": "application/json"}, body, DoorCeiling.CUSTOMER)
                async with door.send(request) as answer:
                    async for _ in answer.pieces:
                        pass

        results.append(await timed("+ door and ledger", count, through_door))

    async def turns() -> None:
        for _ in range(2):
            async for item in node.model.chat(messages, sampling=Sampling()):
                assert isinstance(item, TurnEnd) or item.text

    results.append(await timed("+ Ollama client", count, turns))
    results.append(await timed("journal: four transactions", count, lambda: journalled(node.journal)))
    return results


async def journalled(journal: Journal) -> None:
    request = StepRequest(StepKind.MODEL, "stub", {"messages": [QUESTION] * 2})
    open_run, step = await journal.create_run(NewRun("bench", 1, QUESTION), then=request)
    for following in (request, request, Ending(RunState.SUCCEEDED, ANSWER)):
        assert isinstance(step, RecordedStep)
        done = replace(step, outcome=StepOutcome({"text": ANSWER}), finished_at=step.started_at)
        step = await journal.record_step(open_run, done, then=following)


async def held_kib(folder: Path, url: str) -> float:
    """Resident memory per run that waits for its model."""
    async with parts(folder, url, in_process_tools(), model=HELD_MODEL) as node:
        warm = [await node.runs.start("bench", QUESTION) for _ in range(20)]
        await asyncio.sleep(0.5)
        gc.collect()
        before_kib = rss_kib()
        for _ in range(HELD):
            await node.runs.start("bench", QUESTION)
        await asyncio.sleep(1.0)
        gc.collect()
        assert node.runs.counts().active == HELD + len(warm)
        return round((rss_kib() - before_kib) / HELD, 1)


def rss_kib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024


async def ours(folder: Path, url: str, options: argparse.Namespace) -> dict[str, Any]:
    held = await held_kib(folder / "held", url)
    async with parts(folder / "node", url, in_process_tools()) as node:
        measures = [
            await measure("function", node.runs, count=options.runs, at_once=1),
            await measure("function", node.runs, count=options.concurrent_runs, at_once=CONCURRENT),
        ]
        costs = await layers(node, min(options.runs, 200))
    async with stdio_tools(configuration()) as tools, parts(folder / "stdio", url, tools) as node:
        measures.append(await measure("MCP over stdio", node.runs, count=options.runs, at_once=1))
        measures.append(await measure("MCP over stdio", node.runs, count=options.concurrent_runs // 4, at_once=50))
    return {"measures": measures, "layers": costs, "held_kib_per_run": held}


def langgraph(url: str, missing: list[str]) -> list[dict[str, Any]]:
    """Alone and 100 at once; none where it cannot be had."""
    try:
        alone = peers.langgraph(url, "--mode", "seq", "-n", "100")
        many = peers.langgraph(url, "--mode", "conc", "-c", str(CONCURRENT), "-n", "300")
    except peers.MissingPeerError as error:
        missing.append(str(error))
        return []
    return [alone, many]


def report(figures: dict[str, Any], beside: list[dict[str, Any]]) -> None:
    print(f"{'tool':<20}{'at once':>8}{'runs/s':>9}{'p50 ms':>9}{'p99 ms':>9}{'CPU ms/run':>12}")
    for row in figures["measures"]:
        print(
            f"{row.what:<20}{row.at_once:>8}{row.runs_per_s:>9.1f}{row.p50_ms:>9.2f}{row.p99_ms:>9.2f}"
            f"{row.cpu_ms_per_run:>12.2f}"
        )
    for row in beside:
        print(
            f"{row['peer']:<20}{row['c']:>8}{row['runs_s']:>9.1f}{row['p50_ms']:>9.2f}{row['p99_ms']:>9.2f}"
            f"{row['cpu_ms_run']:>12.2f}"
        )
    alone = figures["measures"][0].cpu_ms_per_run_by_part
    print(f"CPU ms/run of the {len(alone)} parts of the first row: {min(alone):.2f} to {max(alone):.2f}")
    print(f"\n{'what one run needs of each':<40}{'wall ms':>9}{'CPU ms':>9}")
    for layer in figures["layers"]:
        print(f"{layer.what:<40}{layer.wall_ms:>9.2f}{layer.cpu_ms:>9.2f}")
    print(f"\nmemory of a run that waits for its model: {figures['held_kib_per_run']:.1f} KiB ({HELD} at once)")


def headlines(figures: dict[str, Any], beside: list[dict[str, Any]]) -> list[Headline]:
    alone, many, stdio, _ = figures["measures"]
    lone, crowd = beside or ({}, {})
    return [
        Headline("one at a time, p50", alone.p50_ms, "ms", must=6, aim=4, peer=lone.get("p50_ms")),
        Headline("one at a time, p99", alone.p99_ms, "ms", must=15, aim=10, peer=lone.get("p99_ms")),
        Headline("CPU per run", alone.cpu_ms_per_run, "ms", must=4, peer=lone.get("cpu_ms_run")),
        Headline("100 at once", many.runs_per_s, "1/s", 300, 400, crowd.get("runs_s"), more_is_better=True),
        Headline("100 at once, p99", many.p99_ms, "ms", peer=crowd.get("p99_ms")),
        Headline("MCP over stdio, p50", stdio.p50_ms, "ms"),
        Headline("MCP over stdio, p99", stdio.p99_ms, "ms"),
        Headline("memory per waiting run", figures["held_kib_per_run"], "KiB", aim=25),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1600, help=f"one after the other, in {PARTS} parts")
    parser.add_argument("--concurrent-runs", type=int, default=3000, help=f"{CONCURRENT} at once")
    parser.add_argument("--folder", type=Path, help="on the disk to measure; a temporary one when not given")
    parser.add_argument("--without-peers", action="store_true")
    options = parser.parse_args()
    missing: list[str] = []
    try:
        with peers.stub_model_server() as url, tempfile.TemporaryDirectory(dir=options.folder) as folder:
            figures = event_loop.run(ours(Path(folder), url, options))
            beside = [] if options.without_peers else langgraph(url, missing)
    except peers.MissingPeerError as error:
        reason = f"{error}; the stub model server is one of them"
        print(f"not measured: {reason}")
        keep("bench_agent_run", [], missing=[reason])
        return 0
    report(figures, beside)
    plain = {key: [asdict(it) for it in value] if isinstance(value, list) else value for key, value in figures.items()}
    keep("bench_agent_run", headlines(figures, beside), missing=missing, langgraph=beside, **plain)
    return 0


if __name__ == "__main__":
    sys.exit(main())
