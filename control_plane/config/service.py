"""What tenants declare: validated, numbered, signed, and ready to be offered."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa

from control_plane.audit.service import record
from control_plane.config import trust
from control_plane.config.answers import answered, remember
from control_plane.config.errors import (
    RESOURCE_UNKNOWN,
    REVISION_UNKNOWN,
    ResourcesInvalidError,
)
from control_plane.config.models import Applied, Change, Revision, StoredResource
from control_plane.config.revisions import (
    Body,
    Key,
    changes_of,
    last_metadata,
    last_root,
    manifest_of,
    metadata_of,
    signed_manifest,
    sites_selected,
    standing_bodies,
    standing_number,
    store_metadata,
    store_revision,
)
from control_plane.db.models import blobs, resources, revisions
from control_plane.db.paging import fetch_page
from control_plane.fleet.interfaces import OfferMaterial
from control_plane.tenants.service import require_tenant
from faos.admin.v1.admin_pb2 import ChangeType
from faos.resource.v1.resource_pb2 import KIND_UNSPECIFIED, Kind, Manifest, Resource
from faos_core import names
from faos_core.clock import Clock
from faos_core.errors import FaosError, NotFoundError, SetupError
from faos_core.kinds import kind_name
from faos_core.lifecycle import undivided
from faos_core.resource_validation import validate
from faos_core.store import Store

log = logging.getLogger(__name__)

ITSELF = "control-plane"
RENEW = "config.renew"
APPLY = "faos.admin.v1.ResourceService/ApplyResources"
TIMESTAMP_REFRESH = timedelta(days=1)  # age at which a timestamp is signed again; it lives for seven
RENEW_BEFORE = timedelta(days=60)  # of the end of what lives a year
RETRY_REFRESH = timedelta(minutes=10)
TELL_TIMEOUT_S = 10.0

T = TypeVar("T")
OnChange = Callable[[str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Plan:
    """What an apply comes to, before anything is written."""

    number: int  # of the revision that stands
    changes: tuple[Change, ...]
    changed: tuple[Body, ...]
    standing: dict[Key, Body]
    affected_sites: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cached:
    material: OfferMaterial
    refresh_at: datetime


class ConfigService:
    """Safe for concurrent use on one event loop, and by several control planes over one database and one key folder:
    applies are serial writes of the store, so each sees the one before whole."""

    def __init__(self, store: Store, keys_dir: Path, clock: Clock) -> None:
        """keys_dir: holds one folder of signing keys per tenant."""
        self._store = store
        self._keys_dir = keys_dir
        self._clock = clock
        self._listeners: list[OnChange] = []
        self._materials: dict[str, Cached] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    def on_change(self, listener: OnChange) -> None:
        """Have `listener(tenant)` awaited after each new revision, when `offer_material` gives it already."""
        self._listeners.append(listener)

    def create_tenant_keys(self, tenant: str) -> bytes:
        """Make the tenant's signing keys, or find those that are there; its TUF root, version 1. Blocking."""
        return trust.create_tenant_keys(self._keys_dir / tenant, now=self._clock.now())

    async def apply(
        self, tenant: str, resources: Sequence[Resource], *, author: str, request_id: str, validate_only: bool
    ) -> Applied:
        """Make these resources stand, besides those that do already, as one new revision; none if nothing changes.

        request_id: the same one gives the same answer again; empty means no such guarantee.
        validate_only: say what would happen, and store nothing.
        A cancelled apply is finished or not begun, never half done.
        Raises: ResourcesInvalidError, NotFoundError (tenant), ConflictError (request_id of another request),
            SetupError (the tenant's keys cannot be used), and what the store raises. Nothing was stored then.
        """
        bodies = [Body.of(resource) for resource in resources]
        if validate_only:
            plan = await self._store.read(lambda connection: _plan(connection, tenant, bodies))
            return Applied(plan.number, plan.changes, plan.affected_sites)
        return await undivided(self._apply(tenant, bodies, author, request_id))

    async def _apply(self, tenant: str, bodies: Sequence[Body], author: str, request_id: str) -> Applied:
        now = self._clock.now()

        def write(connection: sa.Connection) -> tuple[Applied, bool]:
            require_tenant(connection, tenant)
            before = answered(connection, tenant, request_id, bodies) if request_id else None
            if before:
                return before, False
            plan = _plan(connection, tenant, bodies)
            number = self._publish(connection, tenant, plan, author, now) if plan.changed else plan.number
            applied = Applied(number, plan.changes, plan.affected_sites)
            if request_id:
                remember(connection, tenant, request_id, bodies, applied, now)
            target = f"revision {number}" + ("" if plan.changed else " (unchanged)")
            record(connection, actor=author, action=APPLY, tenant=tenant, target=target, at=now)
            return applied, bool(plan.changed)

        applied, is_new = await self._store.write(write)
        if is_new:
            log.info("config.revision", extra={names.TENANT: tenant, names.REVISION: applied.revision})
            await self._tell(tenant)
        return applied

    def _publish(self, connection: sa.Connection, tenant: str, plan: Plan, author: str, now: datetime) -> int:
        """Sign and store the revision after the one that stands. In the writer thread; opens key files (about 1 ms)."""
        number = plan.number + 1
        merged = plan.standing | {body.key: body for body in plan.changed}
        manifest = manifest_of(tenant, number, merged.values())
        timestamp_version = last_metadata(connection, tenant, "timestamp")[0] + 1
        signed = trust.sign_revision(
            trust.load_tenant_keys(self._keys_dir / tenant),
            manifest=manifest,
            revision=number,
            timestamp_version=timestamp_version,
            now=now,
        )
        changes = [change for change in plan.changes if change.change != ChangeType.CHANGE_TYPE_UNCHANGED]
        revision = Revision(tenant, number, now, author, sha256(manifest).digest(), changes)
        store_revision(
            connection, revision, manifest, signed, timestamp_version=timestamp_version, changed=plan.changed
        )
        return number

    async def _tell(self, tenant: str) -> None:
        """The revision is durable: whoever cannot be told now sees it when they next ask."""
        async with self._lock(tenant):
            self._materials.pop(tenant, None)
        for listener in self._listeners:
            try:
                async with asyncio.timeout(TELL_TIMEOUT_S):
                    await listener(tenant)
            except (TimeoutError, FaosError):
                log.warning("config.listener_failed", extra={names.TENANT: tenant}, exc_info=True)

    def _lock(self, tenant: str) -> asyncio.Lock:
        return self._locks.setdefault(tenant, asyncio.Lock())

    async def offer_material(self, tenant: str) -> OfferMaterial | None:
        """The standing revision with metadata that nodes take today; None before the first apply.

        Built once per revision, and again when its timestamp is a day old; all nodes of the tenant share it. Content
        that nobody changed for ten months comes back as the next revision, freshly signed.
        """
        cached = self._materials.get(tenant)
        if cached and self._clock.now() < cached.refresh_at:
            return cached.material
        async with self._lock(tenant):
            cached = self._materials.get(tenant)
            if cached is None or self._clock.now() >= cached.refresh_at:
                cached = await self._build(tenant)
            return cached.material if cached else None

    async def _build(self, tenant: str) -> Cached | None:
        now = self._clock.now()
        refresh_at = now + await self._refresh(tenant, now)
        material = await self._store.read(lambda connection: _material(connection, tenant))
        if material is None:
            return None
        self._materials[tenant] = Cached(material, refresh_at)
        return self._materials[tenant]

    async def _refresh(self, tenant: str, now: datetime) -> timedelta:
        """Sign again what ages, once a day; how long until to look again.

        A key that cannot be used is a person's matter; until then what is signed serves as long as it lives.
        """
        _, timestamp = await self._store.read(lambda connection: last_metadata(connection, tenant, "timestamp"))
        if not timestamp:
            return TIMESTAMP_REFRESH
        age = _age(timestamp, now)
        if age < TIMESTAMP_REFRESH:
            return TIMESTAMP_REFRESH - age
        try:
            await self._store.write(lambda connection: self._sign_again(connection, tenant, now))
        except FaosError as error:
            log.error("config.not_signed_again", extra={names.TENANT: tenant, names.CODE: error.code.code})
            return RETRY_REFRESH
        return TIMESTAMP_REFRESH

    def _sign_again(self, connection: sa.Connection, tenant: str, now: datetime) -> None:
        """Root and revision when their year nears its end, and the timestamp in any case.

        The root's and the publisher's key may be elsewhere: that must not keep the timestamp from being fresh.
        """
        for renew in (self._renew_root, self._renew_revision):
            try:
                renew(connection, tenant, now)
            except SetupError as error:
                log.error("config.not_renewed", extra={names.TENANT: tenant, names.CODE: error.code.code})
        version, timestamp = last_metadata(connection, tenant, "timestamp")
        if _age(timestamp, now) < TIMESTAMP_REFRESH:
            return  # another process was first, or the renewal above signed it
        keys = trust.load_tenant_keys(self._keys_dir / tenant)
        fresh = trust.resign_timestamp(keys, timestamp, timestamp_version=version + 1, now=now)
        store_metadata(connection, tenant, "timestamp", version + 1, fresh)

    def _renew_root(self, connection: sa.Connection, tenant: str, now: datetime) -> None:
        root = last_root(connection, tenant)
        if trust.expires_at(root) - now >= RENEW_BEFORE:
            return
        renewed = trust.renew_root(trust.load_tenant_keys(self._keys_dir / tenant), root, now=now)
        store_metadata(connection, tenant, "root", trust.version_of(renewed), renewed)
        record(connection, actor=ITSELF, action=RENEW, tenant=tenant, target="TUF root", at=now)

    def _renew_revision(self, connection: sa.Connection, tenant: str, now: datetime) -> None:
        """Publish the standing content as the next revision."""
        number, targets = last_metadata(connection, tenant, "targets")
        if trust.expires_at(targets) - now >= RENEW_BEFORE:
            return
        plan = Plan(number, (), (), standing_bodies(connection, tenant), ())
        number = self._publish(connection, tenant, plan, ITSELF, now)
        record(connection, actor=ITSELF, action=RENEW, tenant=tenant, target=f"revision {number}", at=now)

    async def get_resource(self, tenant: str, kind: Kind.ValueType, name: str) -> StoredResource:
        """Raises NotFoundError (tenant, resource)."""
        query = _stored(tenant).where(resources.c.kind == int(kind), resources.c.name == name)

        def fetch(connection: sa.Connection) -> StoredResource:
            require_tenant(connection, tenant)
            row = connection.execute(query).one_or_none()
            if row is None:
                raise NotFoundError(RESOURCE_UNKNOWN, tenant=tenant, kind=kind_name(kind), name=name[:80])
            return StoredResource(Resource.FromString(row.data), row.revision)

        return await self._store.read(fetch)

    async def list_resources(
        self, tenant: str, kind: Kind.ValueType, *, page_size: int, page_token: str
    ) -> tuple[list[StoredResource], str]:
        """By kind and name. kind: KIND_UNSPECIFIED means every kind. Raises NotFoundError (tenant), InvalidError."""
        query = _stored(tenant)
        if kind != KIND_UNSPECIFIED:
            query = query.where(resources.c.kind == int(kind))

        def fetch(connection: sa.Connection) -> tuple[list[StoredResource], str]:
            require_tenant(connection, tenant)
            rows, next_page_token = fetch_page(
                connection,
                query,
                keys=[resources.c.kind, resources.c.name],
                scope=f"resources/{tenant}/{int(kind)}",
                page_size=page_size,
                page_token=page_token,
            )
            return [StoredResource(Resource.FromString(row.data), row.revision) for row in rows], next_page_token

        return await self._store.read(fetch)

    async def list_revisions(self, tenant: str, *, page_size: int, page_token: str) -> tuple[list[Revision], str]:
        """Newest first. Raises NotFoundError (tenant), InvalidError (page token)."""

        def fetch(connection: sa.Connection) -> tuple[list[Revision], str]:
            require_tenant(connection, tenant)
            rows, next_page_token = fetch_page(
                connection,
                _revisions(tenant),
                keys=[revisions.c.number],
                scope=f"revisions/{tenant}",
                page_size=page_size,
                page_token=page_token,
                newest_first=True,
            )
            return _with_changes(connection, tenant, rows), next_page_token

        return await self._store.read(fetch)

    async def get_revision(self, tenant: str, number: int) -> Revision:
        """Raises NotFoundError (tenant, revision)."""

        def fetch(connection: sa.Connection) -> Revision:
            require_tenant(connection, tenant)
            known = 0 < number <= standing_number(connection, tenant)
            rows = list(connection.execute(_revisions(tenant).where(revisions.c.number == number))) if known else []
            if not rows:
                raise NotFoundError(REVISION_UNKNOWN, tenant=tenant, number=number)
            return _with_changes(connection, tenant, rows)[0]

        return await self._store.read(fetch)


def _age(timestamp: bytes, now: datetime) -> timedelta:
    """Since it was signed."""
    return now - (trust.expires_at(timestamp) - trust.TIMESTAMP_LIFETIME)


def _plan(connection: sa.Connection, tenant: str, bodies: Sequence[Body]) -> Plan:
    """Raises ResourcesInvalidError, NotFoundError (tenant)."""
    require_tenant(connection, tenant)
    standing = standing_bodies(connection, tenant)
    others = [body.resource for body in standing.values()]
    if violations := validate([body.resource for body in bodies], others, complete=True):
        raise ResourcesInvalidError(violations)
    changed = tuple(body for body in bodies if _before(standing, body) != body.digest)
    changes = tuple(_change(standing, body) for body in bodies)
    selectors = [body.resource.metadata.sites for body in changed]
    selectors += [standing[body.key].resource.metadata.sites for body in changed if body.key in standing]
    affected = tuple(sites_selected(connection, tenant, selectors))
    return Plan(standing_number(connection, tenant), changes, changed, standing, affected)


def _before(standing: dict[Key, Body], body: Body) -> bytes | None:
    return standing[body.key].digest if body.key in standing else None


def _change(standing: dict[Key, Body], body: Body) -> Change:
    before = _before(standing, body)
    change = ChangeType.CHANGE_TYPE_UPDATED if before else ChangeType.CHANGE_TYPE_CREATED
    kind, name = body.key
    return Change(Kind.ValueType(kind), name, ChangeType.CHANGE_TYPE_UNCHANGED if before == body.digest else change)


def _material(connection: sa.Connection, tenant: str) -> OfferMaterial | None:
    number = standing_number(connection, tenant)
    if number == 0:
        return None
    manifest = signed_manifest(connection, tenant, number)
    bodies = standing_bodies(connection, tenant)
    return OfferMaterial(
        revision=number,
        manifest_bytes=manifest,
        manifest_sha256=sha256(manifest).digest(),
        manifest=Manifest.FromString(manifest),
        metadata=metadata_of(connection, tenant, number),
        blobs={body.digest: body.data for body in bodies.values()},
    )


def _stored(tenant: str) -> sa.Select[Any]:
    joined = resources.join(blobs, sa.and_(blobs.c.tenant == resources.c.tenant, blobs.c.sha256 == resources.c.sha256))
    columns = (resources.c.kind, resources.c.name, resources.c.revision, blobs.c.data)
    return sa.select(*columns).select_from(joined).where(resources.c.tenant == tenant)


def _revisions(tenant: str) -> sa.Select[Any]:
    columns = (revisions.c.number, revisions.c.created_at, revisions.c.author, revisions.c.manifest_sha256)
    return sa.select(*columns).where(revisions.c.tenant == tenant)


def _with_changes(connection: sa.Connection, tenant: str, rows: Sequence[Any]) -> list[Revision]:
    changes = changes_of(connection, tenant, [row.number for row in rows])
    return [
        Revision(tenant, row.number, row.created_at, row.author, row.manifest_sha256, tuple(changes[row.number]))
        for row in rows
    ]
