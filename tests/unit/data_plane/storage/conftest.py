from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from data_plane.storage import erasure
from data_plane.storage.keys import KeyRing, load_site_key
from data_plane.storage.sealer import Sealer
from data_plane.storage.service import SITE_KEY_FILE, Storage, open_storage
from faos_core.ids import TenantName
from faos_core.store import Store
from tests.unit.data_plane.storage.letters import Letters, letters


@pytest.fixture
def letters_erasable(monkeypatch: pytest.MonkeyPatch) -> None:
    """`letters` as the only registered store."""
    monkeypatch.setattr(erasure, "ERASABLES", {})
    erasure.register(erasure.SubjectRows("letters", (letters,)))


@pytest.fixture
async def storage(tmp_path: Path, database_url: str) -> AsyncIterator[Storage]:
    async with open_storage(tmp_path / "node", tenant=TenantName("acme"), database_url=database_url) as storage:
        await storage.store.write(letters.create)
        yield storage


@pytest.fixture
def box(storage: Storage) -> Letters:
    return Letters(storage)


Beside = Callable[[str], AbstractAsyncContextManager[Storage]]


@pytest.fixture
def beside(tmp_path: Path, database_url: str) -> Beside:
    """Opens the same database again for a tenant, with the same site key and an empty memory."""

    @asynccontextmanager
    async def opened(tenant: str) -> AsyncIterator[Storage]:
        async with Store(database_url) as store:
            keys = KeyRing(load_site_key(tmp_path / "node" / SITE_KEY_FILE, may_create=False), TenantName(tenant))
            sealer = await store.write(lambda connection: Sealer(keys, connection))
            yield Storage(store, sealer, keys)

    return opened
