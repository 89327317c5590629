from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from data_plane.storage import erasure
from data_plane.storage.service import Storage, open_storage
from faos_core.ids import TenantName
from tests.unit.data_plane.storage.letters import Letters, letters


@pytest.fixture
def letters_erasable(monkeypatch: pytest.MonkeyPatch) -> None:
    """`letters` as the only registered store."""
    monkeypatch.setattr(erasure, "ERASABLES", {})
    erasure.register(erasure.SubjectRows("letters", (letters,)))


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[Storage]:
    async with open_storage(tmp_path / "node", tenant=TenantName("acme")) as storage:
        await storage.store.write(letters.create)
        yield storage


@pytest.fixture
def box(storage: Storage) -> Letters:
    return Letters(storage)
