"""A node's storage, opened: the store, and what seals its values."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from data_plane.storage.erasure import erase_subject
from data_plane.storage.keys import KeyRing, SiteKey, check_site_key, load_site_key
from data_plane.storage.models import data_keys
from data_plane.storage.sealer import Sealer
from faos_core.ids import TenantName
from faos_core.migrate import migrate
from faos_core.store import Store

MIGRATIONS = Path(__file__).parent / "migrations"
DATABASE_FILE = "node.db"
SITE_KEY_FILE = "site.key"


@dataclass(frozen=True, slots=True)
class Storage:
    """What a node stores its data with."""

    store: Store
    sealer: Sealer
    keys: KeyRing

    async def erase_subject(self, subject: str) -> None:
        """See data_plane.storage.erasure.erase_subject."""
        await erase_subject(self.store, self.keys, subject)


@asynccontextmanager
async def open_storage(
    data_dir: Path, *, tenant: TenantName, database_url: str | None = None
) -> AsyncIterator[Storage]:
    """Migrate and open the node's database, and load the site key of `data_dir`; both are made at first start.

    database_url: None means a file in `data_dir`. One on a PostgreSQL server belongs to this node alone while it is
    open, and the site key stays in `data_dir`: what the server holds, and its backups, open with that file only.
    Raises: SetupError (the key file, the disk, a newer schema, a database that another node uses), IntegrityError (the
        key of another database, a damaged file), UnavailableError (the database does not answer).
    """
    url = database_url or file_url(data_dir)
    await asyncio.to_thread(prepare, data_dir, url)
    async with Store(url, sole=True) as store:
        key_path = data_dir / SITE_KEY_FILE
        holds_data = await store.read(has_data_keys)
        site_key = await asyncio.to_thread(load_site_key, key_path, may_create=not holds_data)
        keys = KeyRing(site_key, tenant)
        sealer = await store.write(lambda connection: open_sealer(connection, site_key, keys))
        yield Storage(store, sealer, keys)


def prepare(data_dir: Path, url: str) -> None:
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    migrate(url, MIGRATIONS, sole=True)


def file_url(data_dir: Path) -> str:
    return sa.URL.create("sqlite", database=str(data_dir / DATABASE_FILE)).render_as_string()


def has_data_keys(connection: sa.Connection) -> bool:
    return connection.execute(sa.select(data_keys.c.id).limit(1)).first() is not None


def open_sealer(connection: sa.Connection, site_key: SiteKey, keys: KeyRing) -> Sealer:
    check_site_key(connection, site_key)
    return Sealer(keys, connection)
