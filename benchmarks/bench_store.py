"""How many durable writes a second does a node's store take?

    python benchmarks/bench_store.py [--seconds 5]

Every write is one row of 512 bytes, acknowledged after the commit reached the disk (WAL, synchronous=FULL). One writer
alone pays an fsync for each; many at once share them (group commit). Rows are stored in the clear, sealed with the
tenant's key, and sealed with a key per data subject (1,000 of them). "fsyncs/s" is what the same disk does for one
thread without any database.
"""

import argparse
import asyncio
import os
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Protocol

import sqlalchemy as sa

from benchmarks.report import Headline, keep
from data_plane.storage.sealed import Sealed
from data_plane.storage.service import Storage, open_storage
from faos_core.ids import TenantName
from tests.servers import postgres

ROW_BYTES = 512
SUBJECTS = 1_000

metadata = sa.MetaData()
plain = sa.Table("plain", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("body", sa.LargeBinary))
sealed = sa.Table("sealed", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("body", Sealed))


class Insert(Protocol):
    def __call__(self, connection: sa.Connection, row: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Result:
    what: str
    writers: int
    writes_per_s: float
    p50_ms: float
    p99_ms: float


def insert_plain(connection: sa.Connection, row: int) -> None:
    connection.execute(plain.insert(), {"id": row, "body": os.urandom(ROW_BYTES)})


def insert_sealed(storage: Storage, subjects: int) -> Insert:
    def insert(connection: sa.Connection, row: int) -> None:
        subject = f"subject {row % subjects}" if subjects else ""
        body = storage.sealer.seal(connection, sealed.c.body, str(row), os.urandom(ROW_BYTES), subject=subject)
        connection.execute(sealed.insert(), {"id": row, "body": body})

    return insert


async def measure(storage: Storage, what: str, insert: Insert, *, writers: int, seconds: float) -> Result:
    """`writers` loops of one write after another; latencies are what a caller waits."""
    latencies: list[float] = []
    end = time.perf_counter() + seconds

    async def write_until_end() -> None:
        while (begin := time.perf_counter()) < end:
            row = next(ROWS)
            await storage.store.write(partial(insert, row=row))
            latencies.append(time.perf_counter() - begin)

    begin = time.perf_counter()
    await asyncio.gather(*(write_until_end() for _ in range(writers)))
    rate = len(latencies) / (time.perf_counter() - begin)
    latencies.sort()
    p50, p99 = (1000 * latencies[int(len(latencies) * q)] for q in (0.50, 0.99))
    return Result(what, writers, round(rate, 1), round(p50, 2), round(p99, 2))


ROWS = count(1)


def fsyncs_per_s(folder: Path, seconds: float) -> float:
    """Pages overwritten in place, each with its fdatasync, as SQLite does with its WAL."""
    done, begin = 0, time.perf_counter()
    with (folder / "fsync").open("wb", buffering=0) as file:
        file.write(bytes(4096 * 1000))
        os.fsync(file.fileno())
        while time.perf_counter() - begin < seconds:
            os.pwrite(file.fileno(), os.urandom(4096), 4096 * (done % 1000))
            os.fdatasync(file.fileno())
            done += 1
    return round(done / (time.perf_counter() - begin), 1)


async def measure_all(
    folder: Path, seconds: float, *, engine: str = "", database_url: str | None = None
) -> list[Result]:
    """engine: stands before what is measured."""
    async with open_storage(folder, tenant=TenantName("bench"), database_url=database_url) as storage:
        await storage.store.write(metadata.create_all)
        cases = (
            ("plain", insert_plain),
            ("sealed", insert_sealed(storage, 0)),
            ("sealed by subject", insert_sealed(storage, SUBJECTS)),
        )
        return [
            await measure(storage, f"{engine}{what}", insert, writers=writers, seconds=seconds)
            for writers in (1, 100, 1_000)
            for what, insert in cases
        ]


def measure_postgres(folder: Path, seconds: float) -> list[Result]:
    """The same rows over a server of this machine; none where it has none."""
    if not postgres.is_here():
        print("without PostgreSQL: this machine has no server")
        return []
    server = postgres.PostgresServer.create()
    try:
        with server.database() as name:
            return asyncio.run(measure_all(folder, seconds, engine="postgres ", database_url=server.url(name)))
    finally:
        server.remove()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="per row of the table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        floor = fsyncs_per_s(Path(folder), min(1.0, options.seconds))
        results = asyncio.run(measure_all(Path(folder) / "node", options.seconds))
        results += measure_postgres(Path(folder) / "postgres", options.seconds)
    print(f"{'what':<28}{'writers':>8}{'writes/s':>10}{'p50 ms':>9}{'p99 ms':>9}")
    for r in results:
        print(f"{r.what:<28}{r.writers:>8}{r.writes_per_s:>10,.0f}{r.p50_ms:>9.2f}{r.p99_ms:>9.2f}")
    print(f"fsyncs/s of this disk, one thread: {floor:,.0f}")
    headlines = [
        Headline(f"{r.what}, {r.writers} at once", r.writes_per_s, "1/s", more_is_better=True) for r in results
    ]
    rows = [asdict(result) for result in results]
    keep("bench_store", headlines, row_bytes=ROW_BYTES, fsyncs_per_s=floor, results=rows)


if __name__ == "__main__":
    main()
