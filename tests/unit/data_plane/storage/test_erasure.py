import asyncio
import threading

import pytest
import sqlalchemy as sa

from data_plane.storage import erasure
from data_plane.storage.models import data_keys
from data_plane.storage.service import Storage
from faos_core.errors import InternalError, InvalidError, NotFoundError
from tests.patience import PATIENCE_S
from tests.servers.databases import OnDisk
from tests.unit.data_plane.storage.letters import Letters

pytestmark = pytest.mark.usefixtures("letters_erasable")


def wrapped_keys(connection: sa.Connection) -> set[bytes]:
    return set(connection.execute(sa.select(data_keys.c.wrapped_key)).scalars())


async def test_erasing_removes_rows_and_key_of_this_subject_only(storage: Storage, box: Letters) -> None:
    """The right to be forgotten is one person's; the others' data stays."""
    await box.put("ada", "hers", subject="Ada")
    await box.put("bob", "his", subject="Bob")
    await box.put("own", "ours")

    await storage.erase_subject("Ada")

    assert await box.count() == 2
    assert await box.get("bob") == "his"
    assert await box.get("own") == "ours"


async def test_the_destroyed_key_is_in_no_file(storage: Storage, box: Letters, on_disk: OnDisk) -> None:
    """Crypto-shredding holds only when the wrapped key is gone from database and WAL, not merely unlinked."""
    before = await storage.store.read(wrapped_keys)
    await box.put("ada", "hers", subject="Ada")
    (key,) = await storage.store.read(wrapped_keys) - before

    await storage.erase_subject("Ada")

    content = on_disk()
    assert key not in content
    assert next(iter(before)) in content


async def test_a_copy_of_an_erased_value_does_not_open(storage: Storage, box: Letters) -> None:
    """A row restored from elsewhere, or held in memory meanwhile, must be as dead as the deleted one."""
    await box.put("ada", "hers", subject="Ada")
    copy = sa.select(box.table)
    rows = await storage.store.read(lambda connection: connection.execute(copy).mappings().all())

    await storage.erase_subject("Ada")
    await storage.store.write(lambda connection: connection.execute(box.table.insert(), [dict(rows[0])]).rowcount)

    with pytest.raises(NotFoundError, match=r"storage\.key_destroyed"):
        await box.get("ada")


async def test_an_older_snapshot_does_not_bring_the_key_back(storage: Storage, box: Letters) -> None:
    """A long read that began before the erasure may finish; what it unwrapped must not stay in memory."""
    await box.put("ada", "hers", subject="Ada")
    subject = erasure.Subject("Ada", storage.keys.subject_index("Ada"))
    begun, erased = threading.Event(), threading.Event()

    def read_late(connection: sa.Connection) -> tuple[dict[str, object], object]:
        row = dict(connection.execute(sa.select(box.table)).mappings().one())
        begun.set()
        assert erased.wait(PATIENCE_S)
        return row, box.select(connection, "ada")

    reading = asyncio.create_task(storage.store.read(read_late))
    assert await asyncio.to_thread(begun.wait, PATIENCE_S)
    await storage.store.write(lambda connection: erasure.erase_in(connection, storage.keys, subject))
    erased.set()
    copy, late = await reading
    await storage.store.write(lambda connection: connection.execute(box.table.insert(), [copy]).rowcount)

    assert late == "hers"
    with pytest.raises(NotFoundError):
        await box.get("ada")


async def test_a_subject_may_come_back(storage: Storage, box: Letters) -> None:
    """Erasing is not banning: new data gets a new key."""
    await box.put("first", 1, subject="Ada")
    await storage.erase_subject("Ada")
    await box.put("second", 2, subject="Ada")

    assert await box.get("second") == 2


async def test_erasing_is_idempotent(storage: Storage, box: Letters) -> None:
    """It is repeated after a crash, and asked for people who never were."""
    await box.put("ada", 1, subject="Ada")

    for _ in range(2):
        await storage.erase_subject("Ada")
    await storage.erase_subject("Nobody")

    assert await box.count() == 0


async def test_the_tenants_own_data_cannot_be_erased_by_accident(storage: Storage, box: Letters) -> None:
    """An empty name out of a form must not destroy the tenant's own key."""
    await box.put("own", "ours")

    with pytest.raises(InvalidError):
        await storage.erase_subject("")

    assert await box.get("own") == "ours"


async def test_a_store_that_fails_keeps_the_key(storage: Storage, box: Letters) -> None:
    """Half an erasure would leave rows that nobody can open and nobody can find."""

    class Broken:
        name = "broken"
        tables: tuple[sa.Table, ...] = ()

        def erase(self, connection: sa.Connection, subject: erasure.Subject) -> None:
            raise RuntimeError

    erasure.register(Broken())
    await box.put("ada", "hers", subject="Ada")

    with pytest.raises(RuntimeError):
        await storage.erase_subject("Ada")

    assert await box.get("ada") == "hers"


def test_registering_a_name_twice_is_a_defect(box: Letters) -> None:
    """The second would silently replace the first, which then erases nothing."""
    with pytest.raises(InternalError):
        erasure.register(erasure.SubjectRows("letters", (box.table,)))
