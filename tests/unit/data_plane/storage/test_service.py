from pathlib import Path

import pytest

from data_plane.storage.errors import KEK_MISSING, KEK_OTHER
from data_plane.storage.service import DATABASE_FILE, SITE_KEY_FILE, open_storage
from faos_core.errors import IntegrityError, SetupError
from faos_core.ids import TenantName

ACME = TenantName("acme")


async def test_first_start_makes_all_and_the_second_finds_it(tmp_path: Path) -> None:
    """Nothing to configure, and nothing readable by others."""
    for _ in range(2):
        async with open_storage(tmp_path / "a b%c" / "node", tenant=ACME):
            pass

    folder = tmp_path / "a b%c" / "node"
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert modes == {DATABASE_FILE: 0o600, SITE_KEY_FILE: 0o600}
    assert folder.stat().st_mode & 0o777 == 0o700


async def test_a_lost_key_file_stops_the_start(tmp_path: Path) -> None:
    """A node that made itself a new key would run on beside data that it can no longer read."""
    async with open_storage(tmp_path, tenant=ACME):
        pass
    (tmp_path / SITE_KEY_FILE).unlink()

    with pytest.raises(SetupError) as caught:
        async with open_storage(tmp_path, tenant=ACME):
            pass

    assert caught.value.code is KEK_MISSING
    assert not (tmp_path / SITE_KEY_FILE).exists()


async def test_the_key_of_another_site_stops_the_start(tmp_path: Path) -> None:
    """Mixed-up backups must show at the start, not at the first patient."""
    for name in ("a", "b"):
        async with open_storage(tmp_path / name, tenant=ACME):
            pass
    (tmp_path / "b" / SITE_KEY_FILE).replace(tmp_path / "a" / SITE_KEY_FILE)

    with pytest.raises(IntegrityError) as caught:
        async with open_storage(tmp_path / "a", tenant=ACME):
            pass

    assert caught.value.code is KEK_OTHER
