"""Tenants and their sites: what everything else belongs to."""

import asyncio
from collections.abc import Callable, Mapping

import sqlalchemy as sa

from control_plane.audit.service import record
from control_plane.db.models import sites, tenants
from control_plane.db.paging import fetch_page
from control_plane.tenants.errors import SITE_EXISTS, SITE_UNKNOWN, TENANT_EXISTS, TENANT_UNKNOWN
from control_plane.tenants.models import Site, Tenant
from faos_core.clock import Clock
from faos_core.errors import ConflictError, NotFoundError
from faos_core.ids import check_name
from faos_core.labels import check_labels
from faos_core.store import Store

CREATE_TENANT = "faos.admin.v1.TenantService/CreateTenant"
CREATE_SITE = "faos.admin.v1.TenantService/CreateSite"

CreateKeys = Callable[[str, str], bytes]
"""Makes a tenant's signing keys, but for those of a publisher elsewhere (its public key as PEM; empty: none is), and
returns its TUF root. Blocking; the same root when called again."""


class TenantService:
    """Creates and lists. Every mutation has its audit record in the same transaction."""

    def __init__(self, store: Store, clock: Clock, create_keys: CreateKeys) -> None:
        self._store = store
        self._clock = clock
        self._create_keys = create_keys
        self._creating = asyncio.Lock()  # one key folder is made by one call

    async def create_tenant(self, name: str, *, actor: str, publisher_key_pem: str = "") -> Tenant:
        """Make the tenant and its signing keys.

        publisher_key_pem: public key of a publisher elsewhere; empty: the control plane makes that key too.
        The keys come first: a crash in between leaves keys that the next attempt finds and uses.
        Raises: InvalidError (malformed name or key), ConflictError (there already).
        """
        tenant = Tenant(check_name(name), self._clock.now())
        async with self._creating:
            await self._store.read(lambda connection: _refuse_taken(connection, name))
            tuf_root = await asyncio.to_thread(self._create_keys, name, publisher_key_pem)
            await self._store.write(lambda connection: _insert_tenant(connection, tenant, tuf_root, actor))
        return tenant

    async def list_tenants(self, *, page_size: int, page_token: str) -> tuple[list[Tenant], str]:
        """A page of tenants by name, and the next page's token."""
        query = sa.select(tenants.c.name, tenants.c.created_at)
        rows, next_page_token = await self._store.read(
            lambda connection: fetch_page(
                connection,
                query,
                keys=[tenants.c.name],
                scope="tenants",
                page_size=page_size,
                page_token=page_token,
            )
        )
        return [Tenant(row.name, row.created_at) for row in rows], next_page_token

    async def create_site(self, tenant: str, name: str, *, labels: Mapping[str, str], actor: str) -> Site:
        """Raises: InvalidError (malformed name or labels), NotFoundError (tenant), ConflictError (there already)."""
        site = Site(tenant, check_name(name), check_labels(labels, owner=f"site {name!r}"), self._clock.now())
        await self._store.write(lambda connection: _insert_site(connection, site, actor))
        return site

    async def list_sites(self, tenant: str, *, page_size: int, page_token: str) -> tuple[list[Site], str]:
        """A page of a tenant's sites by name, and the next page's token. Raises NotFoundError (tenant)."""
        query = sa.select(sites).where(sites.c.tenant == tenant)

        def fetch(connection: sa.Connection) -> tuple[list[Site], str]:
            require_tenant(connection, tenant)
            rows, next_page_token = fetch_page(
                connection,
                query,
                keys=[sites.c.name],
                scope=f"sites/{tenant}",
                page_size=page_size,
                page_token=page_token,
            )
            return [Site(row.tenant, row.name, row.labels, row.created_at) for row in rows], next_page_token

        return await self._store.read(fetch)


def require_tenant(connection: sa.Connection, tenant: str) -> None:
    """Raises NotFoundError when there is no such tenant."""
    if not _tenant_exists(connection, tenant):
        raise NotFoundError(TENANT_UNKNOWN, tenant=tenant[:80])


def require_site(connection: sa.Connection, tenant: str, site: str) -> None:
    """Raises NotFoundError when the tenant, or the site in it, does not exist."""
    require_tenant(connection, tenant)
    if not _site_exists(connection, tenant, site):
        raise NotFoundError(SITE_UNKNOWN, tenant=tenant, site=site[:80])


def _tenant_exists(connection: sa.Connection, name: str) -> bool:
    return connection.execute(sa.select(tenants.c.name).where(tenants.c.name == name)).first() is not None


def _site_exists(connection: sa.Connection, tenant: str, name: str) -> bool:
    query = sa.select(sites.c.name).where(sites.c.tenant == tenant, sites.c.name == name)
    return connection.execute(query).first() is not None


def _refuse_taken(connection: sa.Connection, name: str) -> None:
    if _tenant_exists(connection, name):
        raise ConflictError(TENANT_EXISTS, tenant=name)


def _insert_tenant(connection: sa.Connection, tenant: Tenant, tuf_root: bytes, actor: str) -> None:
    _refuse_taken(connection, tenant.name)
    connection.execute(
        tenants.insert().values(name=tenant.name, created_at=tenant.created_at, tuf_root=tuf_root),
    )
    record(
        connection,
        actor=actor,
        action=CREATE_TENANT,
        tenant=tenant.name,
        target=tenant.name,
        at=tenant.created_at,
    )


def _insert_site(connection: sa.Connection, site: Site, actor: str) -> None:
    require_tenant(connection, site.tenant)
    if _site_exists(connection, site.tenant, site.name):
        raise ConflictError(SITE_EXISTS, tenant=site.tenant, site=site.name)
    connection.execute(
        sites.insert().values(tenant=site.tenant, name=site.name, labels=dict(site.labels), created_at=site.created_at)
    )
    record(
        connection,
        actor=actor,
        action=CREATE_SITE,
        tenant=site.tenant,
        target=site.name,
        at=site.created_at,
    )
