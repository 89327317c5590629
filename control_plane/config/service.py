"""What tenants declare: validated, numbered, signed, and ready to be offered."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa

from control_plane.audit.service import record
from control_plane.config import trust
from control_plane.config.answers import answered, remember, request_digest
from control_plane.config.apply_sets import assign
from control_plane.config.errors import (
    NAMES_MISSING,
    PRUNE_OF_ALL,
    PRUNE_UNNAMED,
    REASON_TOO_LONG,
    RESOURCE_UNKNOWN,
    REVISION_UNKNOWN,
)
from control_plane.config.material import material_of
from control_plane.config.models import Applied, Revision, StoredResource, Terms
from control_plane.config.plans import Plan, plan_apply, plan_delete, plan_renewal, plan_rollback
from control_plane.config.publishing import (
    RENEW_BEFORE,
    Author,
    Publication,
    prepared,
    refuse_stale,
    takes_revision,
    terms_digest,
)
from control_plane.config.revisions import (
    Body,
    changes_of,
    etag_of,
    last_metadata,
    last_root,
    signed_manifest,
    standing_bodies,
    standing_number,
    store_metadata,
)
from control_plane.db.models import apply_set_members, blobs, resources, revisions
from control_plane.db.paging import fetch_page
from control_plane.fleet.interfaces import OfferMaterial
from control_plane.tenants.service import require_tenant
from faos.resource.v1.resource_pb2 import KIND_UNSPECIFIED, Kind, Manifest, ManifestEntry, Resource
from faos_core import names, trace_context
from faos_core.clock import Clock
from faos_core.errors import FaosError, InvalidError, NotFoundError, SetupError
from faos_core.ids import check_name
from faos_core.kinds import kind_name
from faos_core.lifecycle import undivided
from faos_core.store import Store

log = logging.getLogger(__name__)

ITSELF = "control-plane"
RENEW = "config.renew"
APPLY = "faos.admin.v1.ResourceService/ApplyResources"
DELETE = "faos.admin.v1.ResourceService/DeleteResources"
ROLLBACK = "faos.admin.v1.ResourceService/RollbackRevision"
MAX_REASON = 1000  # characters of the column
MAX_DELETED = 10_000  # in one request
TIMESTAMP_REFRESH = timedelta(days=1)  # age at which a timestamp is signed again; it lives for seven
RETRY_REFRESH = timedelta(minutes=10)
TELL_TIMEOUT_S = 10.0

T = TypeVar("T")
WITHOUT_TERMS = Terms()
NOTHING_TOLD = (0, 0)
OnChange = Callable[[str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Request:
    """A change that somebody asks for."""

    action: str  # as the audit log names it
    plan: Callable[[sa.Connection], Plan]
    digest: str  # the same for the same request
    apply_set: str = ""  # that the plan's moved resources go into
    terms: Terms = WITHOUT_TERMS

    def agreed(self, connection: sa.Connection, tenant: str) -> Plan:
        """The plan, where everything stands as the terms say. Raises StaleError, and what planning raises."""
        require_tenant(connection, tenant)
        if self.terms.expected_revision or self.terms.etags:
            refuse_stale(connection, tenant, self.terms, standing_bodies(connection, tenant))
        return self.plan(connection)

    def answer(self, connection: sa.Connection, tenant: str, now: datetime) -> Applied:
        """What would happen, field by field; and what a publisher would sign, if that is asked for."""
        plan = self.agreed(connection, tenant)
        is_prepared = self.terms.prepare and takes_revision(connection, tenant, plan, self.terms, now)
        return replace(plan.answer(), prepared=prepared(connection, tenant, plan) if is_prepared else None)


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
        self._publication = Publication(keys_dir)
        self._clock = clock
        self._listeners: list[OnChange] = []
        self._materials: dict[str, Cached] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._told: dict[str, tuple[int, int]] = {}  # the newest revision and root by tenant

    def on_change(self, listener: OnChange) -> None:
        """Have `listener(tenant)` awaited after each new revision, when `offer_material` gives it already."""
        self._listeners.append(listener)

    async def apply(
        self,
        tenant: str,
        resources: Sequence[Resource],
        *,
        author: str,
        request_id: str,
        validate_only: bool,
        apply_set: str = "",
        prune: bool = False,
        reason: str = "",
        terms: Terms = WITHOUT_TERMS,
    ) -> Applied:
        """Make these resources stand, besides those that do already, as one new revision; none if nothing changes.

        request_id: the same one gives the same answer again; empty means no such guarantee.
        validate_only: say what would happen, field by field, and store nothing.
        apply_set: the set that the resources belong to from now on; empty leaves each where it is.
        prune: delete the set's resources that are not among these.
        reason: for the history, at most 1000 characters.
        terms: what must stand as it was seen, and who signs.
        A cancelled apply is finished or not begun, never half done.
        Raises: ResourcesInvalidError, LeftDanglingError (what is pruned is still needed), InvalidError (a prune that
            does not say of what, or of all; a set's name; a reason too long), NotFoundError (tenant), ConflictError
            (request_id of another request), SetupError (the tenant's keys cannot be used, or are elsewhere),
            StaleError (it stands otherwise than the terms say, or another revision came before the one signed), and
            what the store raises. Nothing was stored then.
        """
        if prune and not apply_set:
            raise InvalidError(PRUNE_UNNAMED)
        if prune and not resources:
            raise InvalidError(PRUNE_OF_ALL)
        bodies = [Body.of(resource) for resource in resources]
        set_name = check_name(apply_set) if apply_set else ""
        request = Request(
            APPLY,
            lambda connection: plan_apply(connection, tenant, bodies, apply_set=set_name, prune=prune),
            request_digest(bodies, apply_set=set_name, prune=prune, **terms_digest(terms)),
            apply_set=set_name,
            terms=terms,
        )
        return await self._change(tenant, request, author, request_id, validate_only, reason)

    async def delete(
        self,
        tenant: str,
        keys: Sequence[tuple[Kind.ValueType, str]],
        *,
        author: str,
        request_id: str = "",
        validate_only: bool = False,
        reason: str = "",
        terms: Terms = WITHOUT_TERMS,
    ) -> Applied:
        """Make these resources, by kind and name, stand no more, as one new revision. As `apply`.

        Raises: LeftDanglingError (others refer to them), NotFoundError (tenant, or one of them), InvalidError (none, or
            more than 10,000); otherwise as `apply`.
        """
        if not 0 < len(keys) <= MAX_DELETED:
            raise InvalidError(NAMES_MISSING, count=len(keys), limit=MAX_DELETED)
        wanted = sorted({(int(kind), name) for kind, name in keys})
        request = Request(
            DELETE,
            lambda connection: plan_delete(connection, tenant, wanted),
            request_digest([], delete=wanted, **terms_digest(terms)),
            terms=terms,
        )
        return await self._change(tenant, request, author, request_id, validate_only, reason)

    async def rollback(
        self,
        tenant: str,
        number: int,
        *,
        author: str,
        request_id: str = "",
        validate_only: bool = False,
        reason: str = "",
        terms: Terms = WITHOUT_TERMS,
    ) -> Applied:
        """Make what stood in revision `number` stand again, as a new and higher one; none if it stands. As `apply`.

        Raises: NotFoundError (tenant, revision), ResourcesInvalidError (content that is no longer taken); otherwise as
            `apply`.
        """
        request = Request(
            ROLLBACK,
            lambda connection: plan_rollback(connection, tenant, number),
            request_digest([], rollback=number, **terms_digest(terms)),
            terms=terms,
        )
        return await self._change(tenant, request, author, request_id, validate_only, reason)

    async def _change(
        self, tenant: str, request: Request, author: str, request_id: str, validate_only: bool, reason: str
    ) -> Applied:
        because = checked_reason(reason)
        if validate_only or request.terms.prepare:
            now = self._clock.now()
            return await self._store.read(lambda connection: request.answer(connection, tenant, now))
        return await undivided(self._make(tenant, request, author, request_id, because))

    async def _make(self, tenant: str, request: Request, author: str, request_id: str, reason: str) -> Applied:
        now = self._clock.now()
        who = Author(author, now, reason, str(trace_context.current() or ""))

        def write(connection: sa.Connection) -> tuple[Applied, bool]:
            require_tenant(connection, tenant)
            before = answered(connection, tenant, request_id, request.digest) if request_id else None
            if before:
                return before, False
            plan, targets = request.agreed(connection, tenant), request.terms.signed_targets
            number, is_new = plan.number, takes_revision(connection, tenant, plan, request.terms, now)
            if is_new:
                number = self._publication.publish(connection, tenant, plan, who, signed_targets=targets)
            assign(connection, tenant, request.apply_set, plan.moved)
            applied = Applied(number, plan.changes, plan.affected_sites)
            if request_id:
                remember(connection, tenant, request_id, request.digest, applied, now)
            record(connection, actor=author, action=request.action, tenant=tenant, target=_target(plan, number), at=now)
            return applied, is_new

        applied, is_new = await self._store.write(write)
        if is_new:
            log.info("config.revision", extra={names.TENANT: tenant, names.REVISION: applied.revision})
            await self.tell(tenant, applied.revision)
        return applied

    async def changed(self, tenant: str) -> None:
        """Some process changed something of the tenant's. Tells of a revision, or a root, of which nobody was told
        here. Raises FaosError."""
        number, root = await self._store.read(lambda connection: _standing(connection, tenant))
        told_number, told_root = self._told.get(tenant, NOTHING_TOLD)
        if number > told_number or root > told_root:
            await self.tell(tenant, number, root)

    async def tell(self, tenant: str, number: int = 0, root: int = 0) -> None:
        """A revision, or a root, is durable: whoever cannot be told now sees it when they next ask. number, root: which
        it is, if known."""
        told_number, told_root = self._told.get(tenant, NOTHING_TOLD)
        self._told[tenant] = (max(number, told_number), max(root, told_root))
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
        material = await self._store.read(lambda connection: material_of(connection, tenant))
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
        keys = self._publication.keys(connection, tenant)
        fresh = trust.resign_timestamp(keys, timestamp, timestamp_version=version + 1, now=now)
        store_metadata(connection, tenant, "timestamp", version + 1, fresh)

    def _renew_root(self, connection: sa.Connection, tenant: str, now: datetime) -> None:
        root = last_root(connection, tenant)
        if trust.expires_at(root) - now >= RENEW_BEFORE:
            return
        renewed = trust.renew_root(self._publication.keys(connection, tenant), root, now=now)
        store_metadata(connection, tenant, "root", trust.version_of(renewed), renewed)
        record(connection, actor=ITSELF, action=RENEW, tenant=tenant, target="TUF root", at=now)

    def _renew_revision(self, connection: sa.Connection, tenant: str, now: datetime) -> None:
        """Publish the standing content as the next revision."""
        _, targets = last_metadata(connection, tenant, "targets")
        if trust.expires_at(targets) - now >= RENEW_BEFORE:
            return
        number = self._publication.publish(connection, tenant, plan_renewal(connection, tenant), Author(ITSELF, now))
        record(connection, actor=ITSELF, action=RENEW, tenant=tenant, target=f"revision {number}", at=now)

    async def get_resource(self, tenant: str, kind: Kind.ValueType, name: str) -> StoredResource:
        """Raises NotFoundError (tenant, resource)."""
        query = _stored(tenant).where(resources.c.kind == int(kind), resources.c.name == name)

        def fetch(connection: sa.Connection) -> StoredResource:
            require_tenant(connection, tenant)
            row = connection.execute(query).one_or_none()
            if row is None:
                raise NotFoundError(RESOURCE_UNKNOWN, tenant=tenant, kind=kind_name(kind), name=name[:80])
            return _resource(row)

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
            return [_resource(row) for row in rows], next_page_token

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

    async def entries(self, tenant: str, number: int) -> Sequence[ManifestEntry]:
        """What the manifest of a revision names, by kind and name. Raises NotFoundError (tenant, revision)."""

        def fetch(connection: sa.Connection) -> Sequence[ManifestEntry]:
            require_tenant(connection, tenant)
            if not 0 < number <= standing_number(connection, tenant):
                raise NotFoundError(REVISION_UNKNOWN, tenant=tenant, number=number)
            return Manifest.FromString(signed_manifest(connection, tenant, number)).entries

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


def _standing(connection: sa.Connection, tenant: str) -> tuple[int, int]:
    """Number of the revision and version of the root; 0 before the first revision, and before the second root."""
    return standing_number(connection, tenant), last_metadata(connection, tenant, "root")[0]


def _age(timestamp: bytes, now: datetime) -> timedelta:
    """Since it was signed."""
    return now - (trust.expires_at(timestamp) - trust.TIMESTAMP_LIFETIME)


def checked_reason(reason: str) -> str:
    """As it is stored: one line, without what PostgreSQL cannot hold. Raises InvalidError."""
    if len(reason) > MAX_REASON:
        raise InvalidError(REASON_TOO_LONG, count=len(reason), limit=MAX_REASON)
    return " ".join(reason.replace("\0", "\ufffd").split())


def _target(plan: Plan, number: int) -> str:
    """What the audit log names."""
    of = f" (content of revision {plan.rollback_of})" if plan.rollback_of else ""
    return f"revision {number}{of}" + ("" if plan.is_new else " (unchanged)")


def _stored(tenant: str) -> sa.Select[Any]:
    joined = resources.join(blobs, sa.and_(blobs.c.tenant == resources.c.tenant, blobs.c.sha256 == resources.c.sha256))
    members = apply_set_members
    same = (members.c[key] == resources.c[key] for key in ("tenant", "kind", "name"))
    joined = joined.outerjoin(members, sa.and_(*same))
    columns = (resources.c.kind, resources.c.name, resources.c.revision, members.c.apply_set)
    return sa.select(*columns, blobs.c.data, blobs.c.sha256).select_from(joined).where(resources.c.tenant == tenant)


def _resource(row: sa.Row[Any]) -> StoredResource:
    return StoredResource(Resource.FromString(row.data), row.revision, row.apply_set or "", etag_of(row.sha256))


def _revisions(tenant: str) -> sa.Select[Any]:
    wanted = ("number", "created_at", "author", "manifest_sha256", "reason", "rollback_of")
    return sa.select(*(revisions.c[name] for name in wanted)).where(revisions.c.tenant == tenant)


def _with_changes(connection: sa.Connection, tenant: str, rows: Sequence[Any]) -> list[Revision]:
    changes = changes_of(connection, tenant, [row.number for row in rows])
    return [
        Revision(
            tenant,
            row.number,
            row.created_at,
            row.author,
            row.manifest_sha256,
            tuple(changes[row.number]),
            reason=row.reason or "",
            rollback_of=row.rollback_of or 0,
        )
        for row in rows
    ]
