"""How the next revision comes to stand: what a publisher elsewhere is shown, and what is taken from it. Within the
caller's transaction.

A prepared revision is stored nowhere. It is a pure function of what stands and what is asked for, so whoever comes back
with a signature asks for the same again, and it holds exactly as long as nothing else was published.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path

import sqlalchemy as sa

from control_plane.config import trust
from control_plane.config.errors import OVERTAKEN, RESOURCE_STALE, REVISION_STALE
from control_plane.config.models import Prepared, Revision, SignedManifest, Terms
from control_plane.config.plans import UNCHANGED, Plan
from control_plane.config.revisions import (
    Body,
    all_roots,
    changes_of,
    etag_of,
    last_metadata,
    last_root,
    manifest_of,
    signed_manifest,
    standing_number,
    store_revision,
    targets_of,
)
from control_plane.db.models import resources, revisions
from faos.admin.v1.admin_pb2 import ChangeType
from faos.resource.v1.resource_pb2 import Kind
from faos_core.errors import FaosError, StaleError
from faos_core.kinds import kind_name
from faos_core.manifests import Key

MAX_BODIES_BYTES = 8 * 1024 * 1024  # that go with a prepared revision
RENEW_BEFORE = timedelta(days=60)  # of the end of what lives a year
SHOWN = 3  # changes that an error names


@dataclass(frozen=True, slots=True)
class Author:
    """Who makes a revision, when and why."""

    name: str
    at: datetime
    reason: str = ""
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Publication:
    """Publishes for tenants whose key folders lie here."""

    keys_dir: Path = field(repr=False)

    def keys(self, connection: sa.Connection, tenant: str) -> trust.TenantKeys:
        """By the root that stands. Raises SetupError."""
        return trust.load_tenant_keys(self.keys_dir / tenant, last_root(connection, tenant))

    def publish(
        self, connection: sa.Connection, tenant: str, plan: Plan, author: Author, *, signed_targets: bytes = b""
    ) -> int:
        """Sign and store the revision after the one that stands. In the writer thread; opens key files (about 1 ms).

        signed_targets: the publisher's part, where it was signed elsewhere.
        Raises: StaleError when another revision came in between, InvalidError for a signature that is not the
            publisher's over this revision, SetupError (keys).
        """
        number = plan.number + 1
        manifest = manifest_of(tenant, number, plan.after.values())
        if signed_targets:
            refuse_overtaken(connection, tenant, signed_targets, number)
        timestamp_version = last_metadata(connection, tenant, "timestamp")[0] + 1
        signed = trust.sign_revision(
            self.keys(connection, tenant),
            manifest=manifest,
            revision=number,
            timestamp_version=timestamp_version,
            now=author.at,
            signed_targets=signed_targets,
        )
        changes = [change for change in plan.changes if change.change != UNCHANGED]
        digest, of = sha256(manifest).digest(), plan.rollback_of
        more = {"reason": author.reason, "traceparent": author.traceparent}
        revision = Revision(tenant, number, author.at, author.name, digest, changes, rollback_of=of, **more)
        store_revision(
            connection,
            revision,
            manifest,
            signed,
            timestamp_version=timestamp_version,
            changed=plan.changed,
            removed=plan.removed,
        )
        return number


def ages(connection: sa.Connection, tenant: str, now: datetime) -> bool:
    """Whether the publisher's signature over what stands nears its end."""
    _, targets = last_metadata(connection, tenant, "targets")
    return bool(targets) and trust.expires_at(targets) - now < RENEW_BEFORE


def takes_revision(connection: sa.Connection, tenant: str, plan: Plan, terms: Terms, now: datetime) -> bool:
    """Whether something changes; or, where the publisher is at hand, whether what stands is to be signed again."""
    return plan.is_new or ((terms.prepare or bool(terms.signed_targets)) and ages(connection, tenant, now))


# ---- what a publisher elsewhere is shown


def prepared(connection: sa.Connection, tenant: str, plan: Plan) -> Prepared:
    """The revision that the plan would make."""
    source = signed(connection, tenant, plan.rollback_of) if plan.rollback_of else None
    return Prepared(
        revision=plan.number + 1,
        manifest=manifest_of(tenant, plan.number + 1, plan.after.values()),
        base=signed(connection, tenant, plan.number) if plan.number else None,
        source=source,
        bodies=tuple(_bounded(_differing(plan))),
        roots=tuple(all_roots(connection, tenant)),
    )


def signed(connection: sa.Connection, tenant: str, number: int) -> SignedManifest:
    return SignedManifest(signed_manifest(connection, tenant, number), targets_of(connection, tenant, number))


def _differing(plan: Plan) -> Iterator[Body]:
    """Both sides of what changes."""
    for body in plan.changed:
        if body.key in plan.standing:
            yield plan.standing[body.key]
        yield body
    yield from (plan.standing[key] for key in plan.removed)


def _bounded(bodies: Iterator[Body]) -> Iterator[bytes]:
    room = MAX_BODIES_BYTES
    for body in bodies:
        room -= len(body.data)
        if room >= 0:
            yield body.data


# ---- what was seen must still stand


def refuse_stale(connection: sa.Connection, tenant: str, terms: Terms, standing: Mapping[Key, Body]) -> None:
    """Raises StaleError that says who changed what."""
    number = standing_number(connection, tenant)
    if terms.expected_revision and terms.expected_revision != number:
        change = what_changed(connection, tenant, number)
        raise StaleError(REVISION_STALE, expected=terms.expected_revision, number=number, change=change)
    for key, etag in terms.etags:
        body = standing.get(key)
        if (etag_of(body.digest) if body else "") != etag:
            raise _resource_stale(connection, tenant, key, body)


def _resource_stale(connection: sa.Connection, tenant: str, key: Key, body: Body | None) -> FaosError:
    kind, name = key
    shown = kind_name(Kind.ValueType(kind))
    here = (resources.c.tenant == tenant, resources.c.kind == kind, resources.c.name == name)
    if body is None:
        change = "It stands no more, or never did."
    else:
        number = connection.execute(sa.select(resources.c.revision).where(*here)).scalar_one()
        change = what_changed(connection, tenant, number)
    return StaleError(RESOURCE_STALE, kind=shown, name=name[:80], change=change)


def refuse_overtaken(connection: sa.Connection, tenant: str, signed_targets: bytes, number: int) -> None:
    """Raises StaleError when the signature is for a revision that another took meanwhile; InvalidError as reading it
    does."""
    version = trust.targets_version(signed_targets)
    if version < number:
        change = what_changed(connection, tenant, number - 1)
        raise StaleError(OVERTAKEN, signed=version, number=number - 1, change=change)


def what_changed(connection: sa.Connection, tenant: str, number: int) -> str:
    """One sentence: who made that revision, when, and what it changed."""
    query = sa.select(revisions).where(revisions.c.tenant == tenant, revisions.c.number == number)
    row = connection.execute(query).first()
    if row is None:
        return "There is no revision yet."
    changes = changes_of(connection, tenant, [number])[number]
    shown = [f"{_word(each.change)} {kind_name(each.kind)} {each.name}" for each in changes[:SHOWN]]
    more = [f"{len(changes) - SHOWN} more"] if len(changes) > SHOWN else []
    what = ", ".join([*shown, *more]) or "signed the same content again"
    reason = f" ({row.reason})" if row.reason else ""
    return f"Revision {number}, by {row.author} at {row.created_at:%Y-%m-%d %H:%M:%S} UTC{reason}: {what}."


def _word(change: int) -> str:
    return ChangeType.Name(ChangeType.ValueType(change)).removeprefix("CHANGE_TYPE_").lower()


def terms_digest(terms: Terms) -> dict[str, object]:
    """What of the terms makes a request another one: not the signature, which is another each time that it is made."""
    more = {"expected": terms.expected_revision, "etags": [[list(key), etag] for key, etag in terms.etags]}
    return {name: value for name, value in more.items() if value}
