"""How many messages a second can leave through the gate, and how long does one wait for its fsync?

    python benchmarks/bench_ledger.py [--seconds 5] [--folder DIR]

Real heartbeats through the real gate onto the real disk, from 1, 16 and 256 tasks at once (they share one fsync).
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
from data_plane.egress.reader import summarise
from data_plane.egress.service import Egress, ledger_folder, open_egress
from faos.tunnel.v1 import tunnel_pb2 as tunnel

TASKS = (1, 16, 256)


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


async def run(folder: Path, duration_s: float) -> tuple[list[Measure], Reading]:
    async with open_egress(folder, Ceiling()) as egress:
        measures = [await measure(egress, tasks, duration_s) for tasks in TASKS]
    return measures, await read(folder)


async def read(folder: Path) -> Reading:
    times_s = [time.perf_counter()]
    async with open_egress(folder, Ceiling()):
        times_s.append(time.perf_counter())
    started_s = time.perf_counter()
    messages = summarise(ledger_folder(folder)).total.messages
    shown_s = time.perf_counter()
    report = ledger_verifier.verify(ledger_folder(folder))
    assert report.ok, report.problem
    return Reading(messages, times_s[1] - times_s[0], shown_s - started_s, time.perf_counter() - shown_s)


def report(measures: list[Measure], reading: Reading) -> None:
    print(f"{'tasks':>6} {'messages/s':>12} {'per CPU s':>12} {'median ms':>10} {'p99 ms':>8}")
    for row in measures:
        print(
            f"{row.tasks:>6} {row.messages_per_s:>12,.0f} {row.messages_per_cpu_s:>12,.0f}"
            f" {row.median_ms:>10.2f} {row.p99_ms:>8.2f}"
        )
    print(
        f"reading {reading.messages:,} messages: open {reading.open_s:.2f} s, show {reading.show_s:.2f} s,"
        f" verify {reading.verify_s:.2f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="per number of tasks")
    parser.add_argument("--folder", type=Path, help="on the disk to measure; a temporary one when not given")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        measures, reading = asyncio.run(run(Path(folder), options.seconds))
    report(measures, reading)
    headlines = [
        Headline(f"ledger writes/s, {row.tasks} tasks at once", round(row.messages_per_s), "1/s") for row in measures
    ]
    keep("bench_ledger", headlines, writing=[asdict(row) for row in measures], reading=asdict(reading))


if __name__ == "__main__":
    main()
