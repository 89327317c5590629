"""Who may sign for a tenant: its keys, and how they move away from the control plane."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from securesystemslib.signer import Key

from control_plane.audit.service import record
from control_plane.config import trust
from control_plane.config.errors import RENEWAL_MISSING, ROOT_ELSEWHERE
from control_plane.config.models import Prepared, Trust
from control_plane.config.plans import plan_renewal
from control_plane.config.publishing import Author, Publication, prepared
from control_plane.config.revisions import all_roots, last_root, standing_number, store_metadata
from control_plane.tenants.service import require_tenant
from faos_core import names, publisher
from faos_core.clock import Clock
from faos_core.errors import FaosError, SetupError
from faos_core.lifecycle import undivided
from faos_core.store import Store

log = logging.getLogger(__name__)

ROTATE = "faos.admin.v1.TrustService/RotateRoot"
ROOT, PUBLISHER = publisher.MOVABLE
MOVED = "the publisher's key moved"

Tell = Callable[[str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Rotated:
    """What stands after a rotation."""

    root_version: int
    revision: int  # 0: none
    moved: tuple[str, ...] = ()  # roles that have other keys now
    left_here: tuple[str, ...] = ()  # roles whose keys are still here, and are not theirs any more
    is_new: bool = False  # the root stood not before


class TrustService:
    """Safe for concurrent use, by several control planes over one database and one key folder too."""

    def __init__(self, store: Store, keys_dir: Path, clock: Clock, tell: Tell) -> None:
        """keys_dir: one folder of signing keys per tenant. tell: awaited with a tenant whose offers changed."""
        self._store = store
        self._publication = Publication(keys_dir)
        self._keys_dir = keys_dir
        self._clock = clock
        self._tell = tell

    def create_tenant_keys(self, tenant: str, publisher_key_pem: str = "") -> bytes:
        """Make the tenant's signing keys, or find those that are there; its TUF root, version 1. Blocking.

        publisher_key_pem: public key of a publisher elsewhere; empty: the control plane publishes.
        Raises: InvalidError (no such key), ConflictError (keys that are there have another publisher).
        """
        key: Key | None = publisher.public_key_of(publisher_key_pem.encode()) if publisher_key_pem else None
        return trust.create_tenant_keys(self._keys_dir / tenant, now=self._clock.now(), publisher_key=key)

    async def get(self, tenant: str) -> Trust:
        """Raises NotFoundError (tenant), SetupError (its keys)."""
        return await self._store.read(lambda connection: self._trust(connection, tenant))

    def _trust(self, connection: sa.Connection, tenant: str) -> Trust:
        require_tenant(connection, tenant)
        keys = self._publication.keys(connection, tenant)
        return Trust(
            roots=tuple(all_roots(connection, tenant)),
            has_root_key=keys.holds(ROOT),
            has_publisher_key=keys.holds(PUBLISHER),
            renewal=_renewal(connection, tenant),
        )

    async def rotate(self, tenant: str, root: bytes, *, signed_targets: bytes = b"", actor: str) -> Rotated:
        """Make this the tenant's root, and with another publisher its signature over what stands, in one transaction.

        root: the next version; signed here too where its key is here. The same root again changes nothing.
        Keys here that the root names no more are destroyed, those that an earlier rotation could not destroy too.
        Raises: InvalidError (not the next root; signed_targets not the new publisher's, or missing), StaleError
            (another revision came before the one signed), NotFoundError (tenant), SetupError (keys).
        """
        return await undivided(self._rotate(tenant, root, signed_targets, actor))

    async def _rotate(self, tenant: str, root: bytes, signed_targets: bytes, actor: str) -> Rotated:
        now = self._clock.now()
        rotated = await self._store.write(
            lambda connection: self._write(connection, tenant, root, signed_targets, Author(actor, now, MOVED))
        )
        log.info("trust.rotated", extra={names.TENANT: tenant, names.REVISION: rotated.revision})
        await asyncio.to_thread(self._forget, tenant, rotated.left_here)
        if rotated.is_new:
            await self._tell(tenant)
        return rotated

    def _write(
        self, connection: sa.Connection, tenant: str, root: bytes, signed_targets: bytes, author: Author
    ) -> Rotated:
        require_tenant(connection, tenant)
        last, number = last_root(connection, tenant), standing_number(connection, tenant)
        publisher.root_of(root)
        if publisher.is_same_statement(last, root):
            return Rotated(trust.version_of(last), number, left_here=self._left_here(connection, tenant, ()))
        root = self._signed_here(connection, tenant, last, root)
        publisher.check_next_root(last, root, now=author.at)
        version, moved = trust.version_of(root), _moved(last, root)
        store_metadata(connection, tenant, ROOT, version, root)
        if number and PUBLISHER in moved:
            number = self._publish_again(connection, tenant, author, signed_targets, number)
        target = f"TUF root {version}" + "".join(f", another {role} key" for role in moved)
        record(connection, actor=author.name, action=ROTATE, tenant=tenant, target=target, at=author.at)
        return Rotated(version, number, moved, self._left_here(connection, tenant, moved), is_new=True)

    def _left_here(self, connection: sa.Connection, tenant: str, moved: tuple[str, ...]) -> tuple[str, ...]:
        """By the root that stands now. What a reference to an HSM or a KMS opens is not looked at: it left if it
        moved."""
        keys = self._publication.keys(connection, tenant)
        there = (role for role in publisher.MOVABLE if role in keys.references)
        return tuple(role for role in there if not keys.holds(role) or (role in moved and not keys.is_file(role)))

    def _signed_here(self, connection: sa.Connection, tenant: str, last: bytes, root: bytes) -> bytes:
        """Raises SetupError when the root that stands has not signed it, and cannot here."""
        keys = self._publication.keys(connection, tenant)
        if keys.holds(ROOT):
            return publisher.with_signature(root, keys.signer(ROOT))
        if not publisher.is_signed_as_root(last, root):
            raise SetupError(ROOT_ELSEWHERE)
        return root

    def _publish_again(
        self, connection: sa.Connection, tenant: str, author: Author, signed_targets: bytes, number: int
    ) -> int:
        if not signed_targets:
            raise SetupError(RENEWAL_MISSING, number=number)
        plan = plan_renewal(connection, tenant)
        return self._publication.publish(connection, tenant, plan, author, signed_targets=signed_targets)

    def _forget(self, tenant: str, roles: tuple[str, ...]) -> None:
        """The new root is durable, so a key that stays here by mishap signs nothing any more (TenantKeys.holds): said,
        not raised; the same root again tries it again."""
        try:
            if roles:
                trust.forget_keys(self._keys_dir / tenant, roles)
        except (OSError, FaosError):
            log.error("trust.key_not_destroyed", extra={names.TENANT: tenant}, exc_info=True)


def _renewal(connection: sa.Connection, tenant: str) -> Prepared | None:
    plan = plan_renewal(connection, tenant)
    return prepared(connection, tenant, plan) if plan.number else None


def _moved(before: bytes, after: bytes) -> tuple[str, ...]:
    """Roles that have other keys now."""
    return tuple(
        role for role in publisher.MOVABLE if publisher.keys_of(before, role) != publisher.keys_of(after, role)
    )
