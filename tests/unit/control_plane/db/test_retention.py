"""What is kept for a time only: it goes, in small steps, and nothing else goes with it."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from control_plane.app import control_plane
from control_plane.db.models import (
    join_tokens,
    node_config_status,
    nodes,
    requests,
    revisions,
    sites,
    tenants,
    tuf_metadata,
)
from control_plane.db.retention import LOOK_S, ROWS_AT_ONCE, TIMESTAMPS_KEPT, TOKENS_KEPT, Retention
from control_plane.db.schema import migrate_schema
from control_plane.settings import ControlPlaneSettings
from faos_core.clock import SystemClock
from faos_core.store import Store
from tests.patience import PATIENCE_S

NOW = datetime(2026, 5, 4, tzinfo=UTC)
HOUR_S = 3600.0
STANDING = 5


class SteppedClock(SystemClock):
    """Stands still; a look comes when a test says so, and not after ten minutes."""

    def __init__(self) -> None:
        self.looks = asyncio.Semaphore(0)

    def now(self) -> datetime:
        return NOW

    async def sleep(self, duration_s: float) -> None:
        if duration_s == LOOK_S:
            await self.looks.acquire()
        else:
            await super().sleep(duration_s)


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    """Two tenants with a node each, which stand at revision 5."""
    migrate_schema(database_url)
    async with Store(database_url) as store:
        for tenant in ("acme", "other"):
            await insert(store, tenants, [{"name": tenant, "created_at": NOW, "tuf_root": b""}])
            await insert(store, sites, [{"tenant": tenant, "name": "main", "labels": {}, "created_at": NOW}])
            node: dict[str, Any] = {"tenant": tenant, "site": "main", "name": "n", "spiffe_id": tenant, "labels": {}}
            facts = {"certificate_serial": "1", "certificate_expires_at": NOW, "public_key_sha256": b""}
            await insert(store, nodes, [node | facts | {"enrolled_at": NOW}])
            made = {"tenant": tenant, "created_at": NOW, "author": "a", "manifest": b"", "manifest_sha256": b""}
            await insert(store, revisions, [made | {"number": n} for n in range(1, STANDING + 1)])
        yield store


async def insert(store: Store, table: sa.Table, rows: Iterable[dict[str, Any]]) -> None:
    await store.write(lambda connection: connection.execute(table.insert(), list(rows)).rowcount)


async def report(store: Store, tenant: str, numbers: Iterable[int]) -> None:
    rows = [{"tenant": tenant, "node": "n", "revision": number, "state": 1, "at": NOW} for number in numbers]
    await insert(store, node_config_status, rows)


async def answer(store: Store, tenant: str, ages_s: Iterable[float]) -> None:
    ages = enumerate(ages_s)
    rows = [(f"{age_s:g}-{n}", NOW - timedelta(seconds=age_s)) for n, age_s in ages]
    await insert(store, requests, [{"tenant": tenant, "request_id": i, "response": b"", "at": at} for i, at in rows])


async def column(store: Store, wanted: sa.Column[Any], tenant: str) -> list[Any]:
    query = sa.select(wanted).where(wanted.table.c.tenant == tenant).order_by(wanted)
    return list(await store.read(lambda connection: connection.execute(query).scalars().all()))


def retention(store: Store, clock: SystemClock | None = None, *, kept: int = 2) -> Retention:
    return Retention(store, clock or SteppedClock(), statuses_kept_per_node=kept, answers_kept_s=HOUR_S)


async def test_what_became_of_the_newest_revisions_stays(store: Store) -> None:
    """A row for each node and revision, for ever, is a table that only grows."""
    for tenant in ("acme", "other"):
        await report(store, tenant, range(1, STANDING + 1))

    await retention(store).purge()

    assert await column(store, node_config_status.c.revision, "acme") == [4, 5]
    assert await column(store, node_config_status.c.revision, "other") == [4, 5]


async def test_numbers_that_no_revision_has_do_not_stay(store: Store) -> None:
    """A node that is not ours any more chooses the numbers that it reports: they must not fill the database."""
    await report(store, "acme", [-1, 0, 4, STANDING, STANDING + 1, 2**63 - 1])

    await retention(store).purge()

    assert await column(store, node_config_status.c.revision, "acme") == [4, STANDING]


async def test_tenant_without_a_revision_is_no_trouble(store: Store) -> None:
    """It is the state that every tenant begins in."""
    await store.write(lambda connection: connection.execute(sa.delete(revisions)).rowcount)
    await report(store, "acme", [1])

    await retention(store).purge()

    assert await column(store, node_config_status.c.revision, "acme") == []


async def test_answers_stay_for_as_long_as_is_promised(store: Store) -> None:
    """Who was not heard asks again within the time, and must not have their change made twice."""
    await answer(store, "acme", [0, HOUR_S - 1, HOUR_S + 1, 100 * HOUR_S])

    await retention(store).purge()

    assert await column(store, requests.c.request_id, "acme") == ["0-0", "3599-1"]


async def test_newest_timestamps_stay_and_all_else_that_was_signed(store: Store) -> None:
    """One more is signed every day of every year; roots and revisions are what a node is shown to trust the newest."""
    last = TIMESTAMPS_KEPT + 3
    for tenant, role in (("acme", "timestamp"), ("acme", "root"), ("acme", "snapshot"), ("acme", "targets")):
        row = {"tenant": tenant, "role": role, "data": b""}
        await insert(store, tuf_metadata, [row | {"version": version} for version in range(1, last + 1)])
    await insert(store, tuf_metadata, [{"tenant": "other", "role": "timestamp", "version": 1, "data": b""}])

    await retention(store).purge()

    query = sa.select(tuf_metadata.c.role, tuf_metadata.c.version).where(tuf_metadata.c.tenant == "acme")
    kept = await store.read(lambda connection: [tuple(row) for row in connection.execute(query)])
    everything = range(1, last + 1)
    assert sorted(kept) == [
        *(("root", version) for version in everything),
        *(("snapshot", version) for version in everything),
        *(("targets", version) for version in everything),
        *(("timestamp", version) for version in everything[-TIMESTAMPS_KEPT:]),
    ]
    assert await column(store, tuf_metadata.c.version, "other") == [1]


async def test_join_tokens_stay_for_a_time_after_their_end(store: Store) -> None:
    """Whoever tries a used or expired one is told so, and not that there was none; after a month nobody tries."""
    second = timedelta(seconds=1)
    ends = {"good": NOW + second, "expired": NOW - TOKENS_KEPT + second, "old": NOW - TOKENS_KEPT - second}
    for used_at in (None, NOW - 2 * TOKENS_KEPT):
        row = {"tenant": "acme", "site": "main", "labels": {}, "secret_sha256": b"", "created_at": NOW}
        row |= {"used_at": used_at, "used_by_node": "n" if used_at else None}
        name = "used" if used_at else "unused"
        rows = [row | {"id": f"{end}-{name}", "expires_at": expires_at} for end, expires_at in ends.items()]
        await insert(store, join_tokens, rows)

    await retention(store).purge()

    kept = {f"{end}-{name}" for end in ("good", "expired") for name in ("used", "unused")}
    assert set(await column(store, join_tokens.c.id, "acme")) == kept


async def test_much_goes_in_small_steps_and_wholly(store: Store) -> None:
    """One transaction over months of rows would keep every write of the fleet waiting."""
    await answer(store, "acme", [2 * HOUR_S] * (2 * ROWS_AT_ONCE + 1))
    kept = store.write
    steps: list[int] = []

    async def counted(fn: Any, *, serial: bool = True) -> Any:
        steps.append(await kept(fn, serial=serial))
        return steps[-1]

    store.write = counted  # type: ignore[method-assign]  # its own, looked at
    await retention(store).purge()

    assert steps == [ROWS_AT_ONCE, ROWS_AT_ONCE, 1]
    assert await column(store, requests.c.request_id, "acme") == []


async def test_two_control_planes_purge_one_database(store: Store, database_url: str) -> None:
    """Each replica looks, and none may fail for what the other has removed."""
    await answer(store, "acme", [2 * HOUR_S] * (3 * ROWS_AT_ONCE))
    async with Store(database_url) as second:
        await asyncio.gather(retention(store).purge(), retention(second).purge())
    await retention(store).purge()

    assert await column(store, requests.c.request_id, "acme") == []


@asynccontextmanager
async def at_work(service: Retention) -> AsyncIterator[None]:
    running = asyncio.ensure_future(service.run())
    try:
        await service.ready.wait()
        yield
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def test_service_goes_on_after_the_database_was_away(
    store: Store, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It runs in the group that serves nodes: a purge that fails may end nothing."""
    clock = SteppedClock()
    await answer(store, "acme", [2 * HOUR_S])
    service = retention(Store(database_url), clock)  # that nobody opened
    async with at_work(service), asyncio.timeout(PATIENCE_S):
        clock.looks.release()
        while "retention.not_purged" not in caplog.text:
            await asyncio.sleep(0.01)
        service._store = store
        clock.looks.release()
        while await column(store, requests.c.request_id, "acme"):
            await asyncio.sleep(0.01)


async def test_control_plane_keeps_what_its_settings_say(tmp_path: Path) -> None:
    """The bounds hold only where the service is started."""
    clock = SteppedClock()
    url = f"sqlite:///{tmp_path / 'cp.db'}"
    settings = ControlPlaneSettings(
        data_dir=tmp_path,
        tunnel_listen="127.0.0.1:0",
        admin_listen="127.0.0.1:0",
        database_url=url,
        request_answers_kept_s=HOUR_S,
    )
    async with control_plane(settings, clock=clock), Store(url) as store, asyncio.timeout(PATIENCE_S):
        await insert(store, tenants, [{"name": "acme", "created_at": NOW, "tuf_root": b""}])
        await answer(store, "acme", [0, 2 * HOUR_S])
        clock.looks.release()
        while await column(store, requests.c.request_id, "acme") != ["0-0"]:
            await asyncio.sleep(0.01)
