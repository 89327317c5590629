import asyncio
import base64
import os

import pytest
import sqlalchemy as sa

from data_plane.storage.models import data_keys
from data_plane.storage.service import Storage
from faos_core.errors import IntegrityError
from tests.servers.databases import OnDisk
from tests.unit.data_plane.storage.conftest import Beside
from tests.unit.data_plane.storage.letters import Letters


async def key_count(storage: Storage) -> int:
    query = sa.select(sa.func.count()).select_from(data_keys)
    return await storage.store.read(lambda connection: connection.execute(query).scalar_one())


async def test_a_sealed_value_comes_back_as_it_was(box: Letters) -> None:
    """Journal steps and documents are JSON; nothing may be lost or bent on the way."""
    value = {"text": "Grüße, 病院", "numbers": [1, 2.5, None, True]}

    await box.put("own", value)
    await box.put("hers", value, subject="Ada Example")

    assert await box.get("own") == value
    assert await box.get("hers") == value


async def test_each_subject_has_one_key_of_its_own(storage: Storage, box: Letters) -> None:
    """One key for two people could not be destroyed for one of them."""
    await asyncio.gather(*(box.put(f"{who}-{n}", n, subject=who) for n in range(5) for who in ("Ada", "Bob")))

    assert await key_count(storage) == 3  # and the tenant's own


async def test_a_value_moved_to_another_row_is_refused(storage: Storage, box: Letters) -> None:
    """The file's owner is not the judge of what belongs to whom."""
    await box.put("a", "for a")
    await box.put("b", "for b")
    table = box.table
    swap = table.update().where(table.c.id == "b")
    body_of_a = sa.select(table.c.body).where(table.c.id == "a").scalar_subquery()

    await storage.store.write(lambda connection: connection.execute(swap.values(body=body_of_a)).rowcount)

    assert await box.get("a") == "for a"
    with pytest.raises(IntegrityError):
        await box.get("b")


async def test_a_key_whose_transaction_failed_seals_nothing_later(
    beside: Beside, box: Letters, storage: Storage
) -> None:
    """A remembered key that was never stored would make every later value unreadable after a restart."""

    def fails(connection: sa.Connection) -> None:
        box.insert(connection, "lost", "lost", subject="Ada")
        raise ValueError

    with pytest.raises(ValueError):
        await storage.store.write(fails)
    await box.put("kept", "kept", subject="Ada")

    async with beside("acme") as again:
        assert await type(box)(again).get("kept") == "kept"


async def test_another_tenant_cannot_open(beside: Beside, box: Letters) -> None:
    """No cross-tenant read, even over one file."""
    await box.put("a", "for acme", subject="Ada")

    async with beside("other") as other:
        with pytest.raises(Exception, match="storage") as caught:
            await type(box)(other).get("a")

    assert "acme" not in str(caught.value)


@pytest.mark.parametrize("column", ["wrapped_key", "tenant"])
async def test_a_wrapped_key_that_was_moved_is_refused(
    beside: Beside, storage: Storage, box: Letters, column: str
) -> None:
    """Who can write the file must not give one subject's key to another, or to another tenant."""
    await box.put("ada", "hers", subject="Ada")
    ada = data_keys.c.subject_index == storage.keys.subject_index("Ada")
    own = sa.select(data_keys.c.wrapped_key).where(~ada).scalar_subquery()
    value = own if column == "wrapped_key" else "other"

    await storage.store.write(
        lambda connection: connection.execute(data_keys.update().where(ada).values({column: value})).rowcount
    )

    tenant = "acme" if column == "wrapped_key" else "other"
    async with beside(tenant) as again:
        with pytest.raises(IntegrityError):
            await Letters(again).get("ada")


def test_blind_indexes_find_equal_values_of_one_column_only(storage: Storage, box: Letters) -> None:
    """Look-ups need equality; equality across columns would tell more than asked for."""
    index = storage.sealer.blind_index(box.table.c.sender_index, "ada@example.org")

    assert index == storage.sealer.blind_index(box.table.c.sender_index, "ada@example.org")
    assert index != storage.sealer.blind_index(box.table.c.sender_index, "bob@example.org")
    assert index != storage.sealer.blind_index(box.table.c.body, "ada@example.org")
    assert len(index) == 32


async def test_nothing_stands_on_disk_in_the_clear(storage: Storage, box: Letters, on_disk: OnDisk) -> None:
    """At rest, sealed columns are the only wall: values, subjects' names and keys must not show in any file."""
    canaries = [f"canary-{os.urandom(8).hex()}" for _ in range(50)]
    for n, canary in enumerate(canaries):
        await box.put(f"row-{n}", {"text": canary}, subject=f"Subject {canary}")
    forms = [form for canary in canaries for form in (canary.encode(), base64.b64encode(canary.encode()))]

    assert found(on_disk(log=True), [b"row-49"])  # the search itself works, and sees the WAL
    assert not found(on_disk(log=True), forms)
    await storage.store.purge()
    assert found(on_disk(log=True), [b"row-49"])
    assert not found(on_disk(log=True), forms)


def found(content: bytes, forms: list[bytes]) -> list[bytes]:
    return [form for form in forms if form in content]
