"""The audit log: complete, in order, and broken visibly."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from control_plane.audit.errors import CHAIN_BROKEN
from control_plane.audit.service import GENESIS, AuditService, leaf_of, record, verify
from control_plane.db.models import audit_records, tenants
from control_plane.db.schema import migrate_schema
from faos_core.clock import SystemClock
from faos_core.errors import IntegrityError
from faos_core.store import Store
from tests.servers.statements import refuse_inserts


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    migrate_schema(database_url)
    async with Store(database_url) as store:
        yield store


async def write_records(store: Store, count: int, tenant: str = "acme") -> None:
    for number in range(count):
        await store.write(
            lambda connection, number=number: record(
                connection, actor="a", action="x/Y", tenant=tenant, target=f"t{number}", outcome="OK"
            )
        )


async def test_record_chains_each_leaf_to_the_one_before(store: Store) -> None:
    """The chain is what an offline verifier recomputes, so its rule must not drift."""
    first = await store.write(
        lambda connection: record(connection, actor="a", action="x/Y", tenant="t", target="u", outcome="OK")
    )
    second = await store.write(
        lambda connection: record(connection, actor="b", action="x/Z", tenant="t", target="u", outcome="NOT_FOUND")
    )

    leaves = await store.read(
        lambda connection: (
            connection.execute(sa.select(audit_records.c.leaf_sha256).order_by(audit_records.c.sequence))
            .scalars()
            .all()
        )
    )

    assert [first.sequence, second.sequence] == [1, 2]
    assert leaves == [leaf_of(first, GENESIS), leaf_of(second, leaf_of(first, GENESIS))]
    assert await store.read(verify) == 2


async def test_verify_accepts_an_empty_log(store: Store) -> None:
    """A fresh control plane is not a damaged one."""
    assert await AuditService(store).verify() == 0


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE audit_records SET actor = 'someone' WHERE sequence = 2",
        "UPDATE audit_records SET action = 'x/Z' WHERE sequence = 2",
        "UPDATE audit_records SET tenant = 'other' WHERE sequence = 2",
        "UPDATE audit_records SET target = 'other' WHERE sequence = 2",
        "UPDATE audit_records SET outcome = 'NOT_FOUND' WHERE sequence = 2",
        "UPDATE audit_records SET at = '2020-01-01 00:00:00.000000' WHERE sequence = 2",
        "UPDATE audit_records SET leaf_sha256 = substr(leaf_sha256, 2) WHERE sequence = 2",
        "DELETE FROM audit_records WHERE sequence = 2",
        "UPDATE audit_records SET sequence = 9 WHERE sequence = 2",
    ],
)
async def test_verify_finds_the_record_that_was_touched(store: Store, tampering: str) -> None:
    """Whoever can write the database must not be able to rewrite what happened."""
    await write_records(store, 4)
    await store.write(lambda connection: connection.exec_driver_sql(tampering))

    with pytest.raises(IntegrityError) as caught:
        await AuditService(store).verify()

    assert caught.value.code is CHAIN_BROKEN
    assert caught.value.fields["sequence"] == 2


async def test_verify_finds_records_in_swapped_places(store: Store) -> None:
    """Order is part of what happened."""
    await write_records(store, 3)

    def swap(connection: sa.Connection) -> None:
        for old, new in ((1, 9), (2, 1), (9, 2)):
            connection.exec_driver_sql(f"UPDATE audit_records SET sequence = {new} WHERE sequence = {old}")

    await store.write(swap)

    with pytest.raises(IntegrityError):
        await AuditService(store).verify()


async def test_record_goes_with_its_transaction(store: Store) -> None:
    """A mutation that fails after its record leaves no record of having been done."""

    def fail(connection: sa.Connection) -> None:
        record(connection, actor="a", action="x/Y", tenant="t", target="u", outcome="OK")
        raise ValueError("later")

    with pytest.raises(ValueError, match="later"):
        await store.write(fail)

    await write_records(store, 1)
    assert await AuditService(store).verify() == 1


async def test_mutation_fails_when_its_record_cannot_be_written(store: Store) -> None:
    """No audit, no action."""

    def break_audit(connection: sa.Connection) -> None:
        refuse_inserts(connection, "audit_records", "no audit")

    def mutate(connection: sa.Connection) -> None:
        connection.execute(tenants.insert().values(name="t", created_at=datetime.now(UTC), tuf_root=b""))
        record(connection, actor="a", action="x/Y", tenant="t", target="t", outcome="OK")

    await store.write(break_audit)

    with pytest.raises(DBAPIError, match="no audit"):
        await store.write(mutate)

    assert await store.read(lambda connection: connection.execute(sa.select(tenants)).all()) == []


async def test_long_names_are_cut_and_still_verify(store: Store) -> None:
    """A refused request may name anything; PostgreSQL would refuse the row, and with it the record."""
    audit = AuditService(store)

    await audit.record(actor="a" * 999, action="x/Y", tenant="t" * 999, target="ü" * 999, outcome="NOT_FOUND")

    records, _ = await audit.list("", page_size=0, page_token="")
    assert [len(text) for text in (records[0].actor, records[0].tenant, records[0].target)] == [255, 255, 255]
    assert await audit.verify() == 1


async def test_list_shows_one_tenant_newest_first(store: Store) -> None:
    """Tenants are told apart, and what happened last is what people look for."""
    await write_records(store, 3, "acme")
    await write_records(store, 2, "other")
    audit = AuditService(store)

    first, token = await audit.list("acme", page_size=2, page_token="")
    second, end = await audit.list("acme", page_size=2, page_token=token)
    everything, _ = await audit.list("", page_size=0, page_token="")

    assert [entry.sequence for entry in first + second] == [3, 2, 1]
    assert end == ""
    assert len(everything) == 5


async def test_refusals_are_stamped_by_the_control_planes_clock(store: Store) -> None:
    """All records of one control plane are of one time."""

    class Past(SystemClock):
        def now(self) -> datetime:
            return datetime(2020, 1, 2, tzinfo=UTC)

    audit = AuditService(store, Past())
    await audit.record(actor="a", action="x/Y", tenant="", target="", outcome="NOT_FOUND")

    records, _ = await audit.list("", page_size=0, page_token="")
    assert records[0].at == Past().now()
