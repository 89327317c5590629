"""How many messages a second can leave through the gate, and how long does one wait for its fsync?

    python benchmarks/bench_ledger.py [--seconds 5] [--entries 1000000] [--folder DIR]

Real heartbeats through the real gate onto the real disk, from 1, 16, 128 and 256 tasks at once (they share one fsync):
what a message waits before it may be sent. "per CPU s" is what one core does where the disk is free. Then a ledger of
a million entries is opened, as at a node's start, summed up, and verified by the offline verifier.
Prints a table and writes benchmarks/results/bench_ledger.json.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.report import Headline, keep
from data_plane.ceiling.models import Ceiling
from data_plane.egress import ledger_verifier
from data_plane.egress.ledger import Entry
from data_plane.egress.reader import summarise
from data_plane.egress.service import Egress, ledger_folder, open_egress
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core.lifecycle import settle_memory

TASKS = (1, 16, 128, 256)
DECIDES = 128  # as many at once as the promises are about
AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class Measure:
    tasks: int
    messages: int
    messages_per_s: float
    messages_per_cpu_s: float  # what one core could do if the disk were free
    median_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Reading:
    messages: int
    open_s: float  # full check at start
    show_s: float
    verify_s: float
    size_mib: float


async def send(egress: Egress, until_s: float, waits_ms: list[float]) -> None:
    sequence = 0
    while (start_s := time.perf_counter()) < until_s:
        sequence += 1
        head = egress.gate.head()
        beat = tunnel.NodeHeartbeat(
            sequence=sequence, ledger_head=tunnel.LedgerHead(size=head.size, root_sha256=head.root_sha256)
        )
        beat.sent_at.GetCurrentTime()
        await egress.gate.seal(
            tunnel.NodeFrame(heartbeat=beat),
            door="tunnel",
            destination="cp.example:443",
            method="/faos.tunnel.v1.Tunnel/Session",
        )
        waits_ms.append((time.perf_counter() - start_s) * 1000)


async def measure(egress: Egress, tasks: int, duration_s: float) -> Measure:
    waits_ms: list[float] = []
    start_s, cpu_s = time.perf_counter(), time.process_time()
    await asyncio.gather(*(send(egress, start_s + duration_s, waits_ms) for _ in range(tasks)))
    took_s, cpu_s = time.perf_counter() - start_s, time.process_time() - cpu_s
    p99_ms = statistics.quantiles(waits_ms, n=100)[98]
    count = len(waits_ms)
    return Measure(tasks, count, count / took_s, count / cpu_s, statistics.median(waits_ms), p99_ms)


async def run(folder: Path, duration_s: float, entries: int) -> tuple[list[Measure], Reading]:
    async with open_egress(folder / "writing", Ceiling()) as egress:
        settle_memory()  # as a node does once it is up
        measures = [await measure(egress, tasks, duration_s) for tasks in TASKS]
    await fill(folder / "reading", entries)
    return measures, await read(folder / "reading")


async def fill(folder: Path, count: int) -> None:
    """A ledger of so many heartbeats, past the gate."""
    body = tunnel.NodeFrame(heartbeat=tunnel.NodeHeartbeat(sequence=1, active_runs=2)).SerializeToString()
    async with open_egress(folder, Ceiling()) as egress:
        entry = Entry(
            at=egress.clock.now(),
            door="tunnel",
            destination="cp.example:443",
            method="/faos.tunnel.v1.Tunnel/Session",
            message="faos.tunnel.v1.NodeFrame",
            fields_by_class={"OPERATIONAL": 2},
            body=body,
        )
        for first in range(0, count, AT_ONCE):
            await asyncio.gather(*(egress.ledger.append(entry) for _ in range(min(AT_ONCE, count - first))))


async def read(folder: Path) -> Reading:
    times_s = [time.perf_counter()]
    async with open_egress(folder, Ceiling()):
        times_s.append(time.perf_counter())
    started_s = time.perf_counter()
    messages = summarise(ledger_folder(folder)).total.messages
    shown_s = time.perf_counter()
    report = ledger_verifier.verify(ledger_folder(folder))
    assert report.ok, report.problem
    verified_s = time.perf_counter()
    size_mib = sum(file.stat().st_size for file in ledger_folder(folder).iterdir()) / (1 << 20)
    return Reading(messages, times_s[1] - times_s[0], shown_s - started_s, verified_s - shown_s, round(size_mib))


def report(measures: list[Measure], reading: Reading) -> None:
    print(f"{'tasks':>6} {'messages/s':>12} {'per CPU s':>12} {'median ms':>10} {'p99 ms':>8}")
    for row in measures:
        print(
            f"{row.tasks:>6} {row.messages_per_s:>12,.0f} {row.messages_per_cpu_s:>12,.0f}"
            f" {row.median_ms:>10.2f} {row.p99_ms:>8.2f}"
        )
    print(f"a ledger of {reading.messages:,} messages, {reading.size_mib:.0f} MiB:", end=" ")
    print(f"open {reading.open_s:.2f} s, show {reading.show_s:.2f} s, verify {reading.verify_s:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="per number of tasks")
    parser.add_argument("--folder", type=Path, help="on the disk to measure; a temporary one when not given")
    parser.add_argument("--entries", type=int, default=1_000_000, help="of the ledger that is read")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        measures, reading = asyncio.run(run(Path(folder), options.seconds, options.entries))
    report(measures, reading)
    keep("bench_ledger", headlines(measures, reading), writing=[asdict(it) for it in measures], reading=asdict(reading))


def headlines(measures: list[Measure], reading: Reading) -> list[Headline]:
    alone, decides = measures[0], next(row for row in measures if row.tasks == DECIDES)
    at, of = f"{DECIDES} at once", f"{reading.messages:,} entries"
    return [
        Headline(f"messages/s, {at}", round(decides.messages_per_s), "1/s", 10_000, 20_000, more_is_better=True),
        Headline(f"messages per CPU second, {at}", round(decides.messages_per_cpu_s), "1/s", more_is_better=True),
        Headline(f"wait p50, {at}", round(decides.median_ms, 2), "ms"),
        Headline(f"wait p99, {at}", round(decides.p99_ms, 2), "ms", must=20),
        Headline("wait p50, alone", round(alone.median_ms, 2), "ms"),
        Headline("wait p99, alone", round(alone.p99_ms, 2), "ms", must=20),
        Headline(f"opened at start, {of}", round(reading.open_s, 2), "s"),
        Headline(f"verified, {of}", round(reading.verify_s, 1), "s"),
    ]


if __name__ == "__main__":
    main()
