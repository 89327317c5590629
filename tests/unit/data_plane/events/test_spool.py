"""What happened here waits durably, within bounds, and goes up once."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import sqlalchemy as sa

from data_plane.events.limits import SpoolLimits
from data_plane.events.models import spooled_events
from data_plane.events.spool import EventSpool
from data_plane.storage.service import Storage, open_storage
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core.clock import SystemClock
from faos_core.ids import TenantName
from tests.patience import PATIENCE_S
from tunnel.events import BEGIN, Key, key_of

NODE = "spiffe://faos.internal/tenant/acme/site/main/node/n1"
SMALL = SpoolLimits(events=16)


@pytest.fixture
async def storage(tmp_path: Path, database_url: str) -> AsyncIterator[Storage]:
    async with open_storage(tmp_path / "node", tenant=TenantName("acme"), database_url=database_url) as storage:
        yield storage


async def opened(
    storage: Storage,
    *,
    node: str = NODE,
    epoch: int = 1,
    limits: SpoolLimits | None = None,
    allowed: list[str | bytes] | None = None,
) -> EventSpool:
    def allow(*values: str | bytes) -> None:
        if allowed is not None:
            allowed.extend(values)

    return await EventSpool.open(storage.store, SystemClock(), node=node, epoch=epoch, allow=allow, limits=limits)


def ended(number: int) -> tunnel.Event:
    return tunnel.Event(run_ended=tunnel.RunEnded(run_id=f"run-{number}", agent="helper"))


async def fill(spool: EventSpool, count: int) -> None:
    for number in range(1, count + 1):
        await spool.record(ended(number))


def keys(events: Sequence[tunnel.Event]) -> list[tuple[int, int]]:
    return [tuple(key_of(each)) for each in events]  # type: ignore[misc]  # a pair each


async def test_events_come_out_in_order_with_what_they_may_say(storage: Storage) -> None:
    """The gate lets nothing pass that it was not told of."""
    allowed: list[str | bytes] = []
    spool = await opened(storage, allowed=allowed)
    await fill(spool, 3)

    events = await spool.after(Key(1, 1), 10)

    assert keys(events) == [(1, 2), (1, 3)]
    assert events[0].run_ended.run_id == "run-2"
    assert events[0].at.seconds > 0
    assert allowed == ["run-2", "helper", "run-3", "helper"]
    assert keys(await spool.after(BEGIN, 2)) == [(1, 1), (1, 2)]


async def test_an_event_that_the_disk_damaged_keeps_none_back_and_is_told_of_as_dropped(storage: Storage) -> None:
    """One bad sector must not end the link of a site for good, nor may the loss go unsaid."""
    spool = await opened(storage)
    await fill(spool, 3)
    damaged = sa.update(spooled_events).where(spooled_events.c.sequence == 2).values(body=b"\xff\xff")
    await storage.store.write(lambda connection: connection.execute(damaged).rowcount)

    events = await spool.after(BEGIN, 10)

    assert keys(events) == [(1, 1), (1, 2), (1, 3)]
    assert [each.run_ended.run_id for each in events] == ["run-1", "", "run-3"]
    assert events[1].events_dropped.count == 1
    assert events[1].at.seconds > 0


async def test_an_event_is_durable_with_what_it_tells_of_or_not_at_all(storage: Storage) -> None:
    """A run that is recorded as ended and an event that is not would be an event lost; the reverse, one made up."""
    spool = await opened(storage)

    def fails(connection: object) -> None:
        spool.add(connection, ended(1))  # type: ignore[arg-type]  # a connection
        raise RuntimeError("undone")

    with pytest.raises(RuntimeError):
        await storage.store.write(fails)
    await spool.record(ended(2))

    assert keys(await spool.after(BEGIN, 10)) == [(1, 1)], "without a hole in the numbers"


async def test_what_arrived_is_forgotten_and_the_rest_outlives_a_start(storage: Storage) -> None:
    """Cumulative: all up to a key, and nothing after it."""
    first = await opened(storage)
    await fill(first, 3)
    await first.forget(Key(1, 2))
    await first.forget(Key(1, 2))

    second = await opened(storage, epoch=2)
    await second.record(ended(9))

    assert keys(await second.after(BEGIN, 10)) == [(1, 3), (2, 1)]
    assert await second.waiting() == 2


async def test_an_epoch_is_never_used_twice(storage: Storage) -> None:
    """Where the identity's counter was restored from a backup and the database was not."""
    await fill(await opened(storage, epoch=7), 1)

    again = await opened(storage, epoch=3)
    await again.record(ended(2))

    assert again.epoch == 8
    assert keys(await again.after(BEGIN, 10)) == [(7, 1), (8, 1)]


async def test_what_another_node_made_on_this_machine_stays_here(storage: Storage) -> None:
    """A machine may join another tenant, whose control plane must not hear of the first one's agents."""
    former = await opened(storage, epoch=7)
    await fill(former, 2)
    await former.record_alarms(frozenset({"ledger.damaged"}))

    new = await opened(storage, node=NODE.replace("acme", "mercy"), epoch=1)

    assert await new.after(BEGIN, 10) == []
    assert await new.waiting() == 0
    await new.record_alarms(frozenset())
    assert await new.after(BEGIN, 10) == [], "nor do the alarms of then end now"


async def test_a_full_spool_drops_the_oldest_and_says_how_many(storage: Storage) -> None:
    """With the cloud gone for months the disk must not fill; what is lost is counted."""
    spool = await opened(storage, limits=SMALL)

    await fill(spool, 100)

    events = await spool.after(BEGIN, 100)
    marker, *rest = events
    assert marker.WhichOneof("event") == "events_dropped"
    assert keys(rest) == [(1, number) for number in range(marker.sequence + 1, 101)]
    assert marker.events_dropped.count == marker.sequence == 100 - len(rest)
    assert SMALL.events * 7 // 8 <= len(events) <= SMALL.events
    assert await spool.waiting() == len(events)


async def test_a_spool_is_bounded_in_bytes(storage: Storage) -> None:
    """Events differ in size."""
    limits = SpoolLimits(size_bytes=16 * 1024)
    spool = await opened(storage, limits=limits)

    for _ in range(100):
        await spool.record(tunnel.Event(run_ended=tunnel.RunEnded(agent="x" * 1000)))

    events = await spool.after(BEGIN, 100)
    assert sum(len(each.run_ended.agent) for each in events) <= limits.size_bytes
    assert events[0].events_dropped.count + len(events) - 1 == 100


async def test_dropping_over_epochs_counts_all(storage: Storage) -> None:
    """A node that restarts daily without its cloud."""
    for epoch in range(1, 5):
        spool = await opened(storage, epoch=epoch, limits=SMALL)
        await fill(spool, 10)

    marker, *rest = await spool.after(BEGIN, 100)

    assert marker.events_dropped.count + len(rest) == 40
    assert keys(rest)[-1] == (4, 10)


async def test_counts_come_down_to_nothing(storage: Storage) -> None:
    """Counts that drift would drop what need not be dropped."""
    spool = await opened(storage, limits=SMALL)
    await fill(spool, 40)
    await spool.forget(Key(1, 40))
    assert await spool.waiting() == 0

    await fill(spool, SMALL.events)

    assert len(await spool.after(BEGIN, 100)) == SMALL.events, "a whole spool fits again"


async def test_renumbering_moves_what_this_process_made(storage: Storage) -> None:
    """After a restore from a backup the control plane has other events under these keys."""
    await fill(await opened(storage, epoch=1), 1)
    spool = await opened(storage, epoch=2)
    await fill(spool, 2)

    await spool.renumber(9)
    await spool.record(ended(3))

    assert keys(await spool.after(BEGIN, 10)) == [(1, 1), (9, 1), (9, 2), (9, 3)]


async def test_whoever_waits_hears_of_each_event_once_it_is_there(storage: Storage) -> None:
    """The change is told before the commit; asking then must find what was told of."""
    spool = await opened(storage)
    seen: list[tuple[int, int]] = []

    async def watch() -> None:
        while len(seen) < 50:
            spool.changed.clear()
            last = Key(*seen[-1]) if seen else BEGIN
            if new := await spool.after(last, 100):
                seen.extend(keys(new))
                continue
            async with asyncio.timeout(PATIENCE_S):
                await spool.changed.wait()

    async with asyncio.TaskGroup() as group:
        group.create_task(watch())
        for number in range(50):
            group.create_task(spool.record(ended(number)))

    assert seen == [(1, number) for number in range(1, 51)]


async def test_alarms_begin_and_end_once_over_restarts(storage: Storage) -> None:
    """An operator of many sites must not hear of one alarm at every start, nor wait for its end in vain."""
    first = await opened(storage)
    await first.record_alarms(frozenset({"disk.full", "certificate.expiring"}))
    await first.record_alarms(frozenset({"disk.full", "certificate.expiring"}))

    second = await opened(storage, epoch=2)
    await second.record_alarms(frozenset({"disk.full"}))

    alarms = [(each.alarm_changed.code, each.alarm_changed.is_raised) for each in await second.after(BEGIN, 10)]
    assert alarms == [("certificate.expiring", True), ("disk.full", True), ("certificate.expiring", False)]


@pytest.mark.parametrize(("events", "size_bytes"), [(15, 10**6), (100, 1000), (-1, -1)])
def test_a_spool_too_small_to_be_one_is_refused(events: int, size_bytes: int) -> None:
    """It could not even say that it dropped something."""
    with pytest.raises(ValueError, match="16 events"):
        SpoolLimits(events, size_bytes)
