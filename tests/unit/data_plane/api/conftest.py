from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from data_plane.storage.service import Storage, open_storage
from faos_core.ids import TenantName


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[Storage]:
    async with open_storage(tmp_path / "node", tenant=TenantName("acme")) as storage:
        yield storage
