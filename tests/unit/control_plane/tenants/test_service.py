"""Tenants and sites: made once, with their keys and their record, or not at all."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from control_plane.audit.service import AuditService
from control_plane.db.models import tenants
from control_plane.db.schema import migrate_schema
from control_plane.tenants.errors import SITE_UNKNOWN
from control_plane.tenants.service import TenantService, require_site
from faos_core.clock import SystemClock
from faos_core.errors import ConflictError, InvalidError, NotFoundError
from faos_core.store import Store
from tests.servers.statements import refuse_inserts


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    migrate_schema(database_url)
    async with Store(database_url) as store:
        yield store


class Keys:
    """Stands for the key folder: remembers who asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, tenant: str, publisher_key_pem: str) -> bytes:
        self.asked.append(tenant)
        return f"root of {tenant}".encode()


@pytest.fixture
def keys() -> Keys:
    return Keys()


@pytest.fixture
def service(store: Store, keys: Keys) -> TenantService:
    return TenantService(store, SystemClock(), keys)


async def test_create_tenant_keeps_its_root(service: TenantService, store: Store) -> None:
    """Join strings pin this root; another one would lock the tenant's nodes out."""
    tenant = await service.create_tenant("acme", actor="me")

    row = await store.read(lambda connection: connection.execute(sa.select(tenants)).one())
    assert (row.name, row.created_at, row.tuf_root) == ("acme", tenant.created_at, b"root of acme")


async def test_create_tenant_twice_conflicts_and_asks_for_no_keys(service: TenantService, keys: Keys) -> None:
    """The second answer must not touch the first tenant's keys."""
    await service.create_tenant("acme", actor="me")

    with pytest.raises(ConflictError):
        await service.create_tenant("acme", actor="me")

    assert keys.asked == ["acme"]


async def test_create_tenant_at_once_makes_one(service: TenantService, store: Store, keys: Keys) -> None:
    """Two operators, one name: one of them hears that it is taken, and the keys are made once."""
    outcomes = await asyncio.gather(
        *(service.create_tenant("acme", actor="me") for _ in range(8)), return_exceptions=True
    )

    assert sum(isinstance(outcome, ConflictError) for outcome in outcomes) == 7
    assert await AuditService(store).verify() == 1
    assert keys.asked == ["acme"]


@pytest.mark.parametrize("name", ["", "../etc", "A", "a" * 64, "-a", "a/b", "ü"])
async def test_malformed_names_never_reach_the_key_folder(service: TenantService, keys: Keys, name: str) -> None:
    """The name becomes a folder's name there."""
    with pytest.raises(InvalidError):
        await service.create_tenant(name, actor="me")

    assert keys.asked == []


async def test_no_audit_no_tenant(service: TenantService, store: Store) -> None:
    """The invariant of every mutation, on the first of them."""
    await store.write(lambda connection: refuse_inserts(connection, "audit_records", "no audit"))

    with pytest.raises(DBAPIError):
        await service.create_tenant("acme", actor="me")

    assert await service.list_tenants(page_size=0, page_token="") == ([], "")


async def test_every_mutation_has_one_record(service: TenantService, store: Store) -> None:
    """Who did what to whom, in order."""
    await service.create_tenant("acme", actor="me")
    await service.create_site("acme", "ward-3", labels={}, actor="you")

    records, _ = await AuditService(store).list("acme", page_size=0, page_token="")
    assert [(each.actor, each.action, each.tenant, each.target, each.outcome) for each in reversed(records)] == [
        ("me", "faos.admin.v1.TenantService/CreateTenant", "acme", "acme", "OK"),
        ("you", "faos.admin.v1.TenantService/CreateSite", "acme", "ward-3", "OK"),
    ]


async def test_create_site_wants_its_tenant(service: TenantService) -> None:
    """A site of nobody could be joined by nobody."""
    with pytest.raises(NotFoundError):
        await service.create_site("nobody", "s", labels={}, actor="me")


async def test_create_site_twice_conflicts(service: TenantService) -> None:
    """Labels of the first must not be replaced in passing."""
    await service.create_tenant("acme", actor="me")
    await service.create_site("acme", "s", labels={"a": "b"}, actor="me")

    with pytest.raises(ConflictError):
        await service.create_site("acme", "s", labels={}, actor="me")

    sites, _ = await service.list_sites("acme", page_size=0, page_token="")
    assert [dict(site.labels) for site in sites] == [{"a": "b"}]


async def test_lists_are_paged_and_by_tenant(service: TenantService) -> None:
    """No cross-tenant read, on the smallest list there is."""
    for tenant in ("acme", "other"):
        await service.create_tenant(tenant, actor="me")
        for site in ("s1", "s2", "s3"):
            await service.create_site(tenant, site, labels={}, actor="me")

    first, token = await service.list_sites("acme", page_size=2, page_token="")
    second, end = await service.list_sites("acme", page_size=2, page_token=token)
    tenants_listed, _ = await service.list_tenants(page_size=0, page_token="")

    assert [(site.tenant, site.name) for site in first + second] == [("acme", "s1"), ("acme", "s2"), ("acme", "s3")]
    assert end == ""
    assert [tenant.name for tenant in tenants_listed] == ["acme", "other"]
    with pytest.raises(InvalidError):
        await service.list_sites("other", page_size=2, page_token=token)
    with pytest.raises(NotFoundError):
        await service.list_sites("nobody", page_size=0, page_token="")


async def test_require_site_names_what_is_missing(service: TenantService, store: Store) -> None:
    """Join tokens ask this; the answer decides what the operator types next."""
    await service.create_tenant("acme", actor="me")

    with pytest.raises(NotFoundError) as caught:
        await store.read(lambda connection: require_site(connection, "acme", "s"))

    assert caught.value.code is SITE_UNKNOWN
