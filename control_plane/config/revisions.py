"""Revisions in the database: what stands, and how the next one is written. All within the caller's transaction."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

import sqlalchemy as sa

from control_plane.config.models import Change, Revision
from control_plane.config.trust import SignedMetadata
from control_plane.db.models import blobs, nodes, resources, revision_changes, revisions, sites, tenants, tuf_metadata
from faos.resource.v1.resource_pb2 import Kind, Manifest, ManifestEntry, Resource, Selector
from faos.tunnel.v1.tunnel_pb2 import TufMetadata
from faos_core.kinds import kind_of
from faos_core.labels import SITE_LABEL
from faos_core.manifests import Key, body_of, entry_of, manifest_bytes

DIGESTS_AT_ONCE = 1000  # engines bound the parameters of one statement


@dataclass(frozen=True, slots=True)
class Body:
    """A resource and the bytes that stand for it: made once, stored, signed for and sent as they are."""

    resource: Resource
    data: bytes
    digest: bytes  # SHA-256 of data

    @classmethod
    def of(cls, resource: Resource) -> "Body":
        data = body_of(resource)
        return cls(resource, data, sha256(data).digest())

    @classmethod
    def stored(cls, data: bytes, digest: bytes) -> "Body":
        return cls(Resource.FromString(data), data, digest)

    @property
    def key(self) -> Key:
        return int(kind_of(self.resource)), self.resource.metadata.name

    def entry(self) -> ManifestEntry:
        return entry_of(self.resource, self.data)


def manifest_of(tenant: str, revision: int, bodies: Iterable[Body]) -> bytes:
    """The TUF target of these."""
    return manifest_bytes(tenant, revision, (body.entry() for body in bodies))


def standing_bodies(connection: sa.Connection, tenant: str) -> dict[Key, Body]:
    """All that the tenant declares now."""
    joined = resources.join(blobs, sa.and_(blobs.c.tenant == resources.c.tenant, blobs.c.sha256 == resources.c.sha256))
    query = sa.select(blobs.c.data, blobs.c.sha256).select_from(joined).where(resources.c.tenant == tenant)
    bodies = (Body.stored(row.data, row.sha256) for row in connection.execute(query))
    return {body.key: body for body in bodies}


def bodies_of(connection: sa.Connection, tenant: str, number: int) -> dict[Key, Body]:
    """All that the tenant declared in a revision that there is."""
    entries = Manifest.FromString(signed_manifest(connection, tenant, number)).entries
    digests = [entry.sha256 for entry in entries]
    bodies: dict[Key, Body] = {}
    for chunk in (digests[first : first + DIGESTS_AT_ONCE] for first in range(0, len(digests), DIGESTS_AT_ONCE)):
        query = sa.select(blobs.c.data, blobs.c.sha256).where(blobs.c.tenant == tenant, blobs.c.sha256.in_(chunk))
        stored = (Body.stored(row.data, row.sha256) for row in connection.execute(query))
        bodies |= {body.key: body for body in stored}
    return bodies


def standing_number(connection: sa.Connection, tenant: str) -> int:
    """The revision that stands; 0 before the first."""
    query = sa.select(sa.func.max(revisions.c.number)).where(revisions.c.tenant == tenant)
    return connection.execute(query).scalar() or 0


def last_metadata(connection: sa.Connection, tenant: str, role: str) -> tuple[int, bytes]:
    """Version and bytes of the newest of a TUF role; (0, b"") before the first."""
    here = sa.and_(tuf_metadata.c.tenant == tenant, tuf_metadata.c.role == role)
    query = sa.select(tuf_metadata.c.version, tuf_metadata.c.data).where(here)
    row = connection.execute(query.order_by(tuf_metadata.c.version.desc()).limit(1)).one_or_none()
    return (row.version, row.data) if row else (0, b"")


def last_root(connection: sa.Connection, tenant: str) -> bytes:
    """The newest root metadata; version 1, which nodes pin, stands with the tenant."""
    root: bytes = last_metadata(connection, tenant, "root")[1]
    return root or connection.execute(sa.select(tenants.c.tuf_root).where(tenants.c.name == tenant)).scalar_one()


def all_roots(connection: sa.Connection, tenant: str) -> list[bytes]:
    """From version 1 on."""
    first = connection.execute(sa.select(tenants.c.tuf_root).where(tenants.c.name == tenant)).scalar_one()
    later = (tuf_metadata.c.tenant == tenant, tuf_metadata.c.role == "root", tuf_metadata.c.version > 1)
    query = sa.select(tuf_metadata.c.data).where(*later)
    return [first, *connection.execute(query.order_by(tuf_metadata.c.version)).scalars()]


def targets_of(connection: sa.Connection, tenant: str, number: int) -> bytes:
    """The publisher's statement about a revision that there is."""
    here = (tuf_metadata.c.tenant == tenant, tuf_metadata.c.role == "targets", tuf_metadata.c.version == number)
    targets: bytes = connection.execute(sa.select(tuf_metadata.c.data).where(*here)).scalar_one()
    return targets


def etag_of(digest: bytes) -> str:
    """AIP-154: another for other content."""
    return digest.hex()[:32]


def store_metadata(connection: sa.Connection, tenant: str, role: str, version: int, data: bytes) -> None:
    connection.execute(tuf_metadata.insert().values(tenant=tenant, role=role, version=version, data=data))


def store_revision(
    connection: sa.Connection,
    revision: Revision,
    manifest: bytes,
    signed: SignedMetadata,
    *,
    timestamp_version: int,
    changed: Sequence[Body],
    removed: Sequence[Key] = (),
) -> None:
    """Write a revision whole. changed: bodies that differ from those that stood. removed: what stands no more; its
    body stays, because earlier revisions name it."""
    tenant, number = revision.tenant, revision.number
    for body in changed:
        _store_body(connection, tenant, number, body)
    for key in removed:
        connection.execute(resources.delete().where(_here(tenant, key)))
    row = {"number": number, "created_at": revision.created_at, "author": revision.author[:255]}
    row |= {"reason": revision.reason or None, "rollback_of": revision.rollback_of or None}
    row |= {"traceparent": revision.traceparent or None}
    digest = revision.manifest_sha256
    connection.execute(revisions.insert().values(tenant=tenant, manifest=manifest, manifest_sha256=digest, **row))
    of_revision = {"tenant": tenant, "revision": number}
    changes = [{**of_revision, "kind": it.kind, "name": it.name, "change": it.change} for it in revision.changes]
    if changes:
        connection.execute(revision_changes.insert(), changes)
    for role, data in (("snapshot", signed.snapshot), ("targets", signed.targets)):
        store_metadata(connection, tenant, role, number, data)
    store_metadata(connection, tenant, "timestamp", timestamp_version, signed.timestamp)


def _store_body(connection: sa.Connection, tenant: str, number: int, body: Body) -> None:
    has = sa.select(blobs.c.sha256).where(blobs.c.tenant == tenant, blobs.c.sha256 == body.digest)
    if connection.execute(has).first() is None:
        connection.execute(blobs.insert().values(tenant=tenant, sha256=body.digest, data=body.data))
    kind, name = body.key
    values = {"sha256": body.digest, "revision": number}
    if connection.execute(resources.update().where(_here(tenant, body.key)).values(values)).rowcount == 0:
        connection.execute(resources.insert().values(tenant=tenant, kind=kind, name=name, **values))


def _here(tenant: str, key: Key) -> sa.ColumnElement[bool]:
    kind, name = key
    return sa.and_(resources.c.tenant == tenant, resources.c.kind == kind, resources.c.name == name)


def changes_of(connection: sa.Connection, tenant: str, numbers: Sequence[int]) -> dict[int, list[Change]]:
    """Changes by revision, each list by kind and name."""
    table = revision_changes
    query = sa.select(table).where(table.c.tenant == tenant, table.c.revision.in_(numbers))
    found: dict[int, list[Change]] = {number: [] for number in numbers}
    for row in connection.execute(query.order_by(table.c.revision, table.c.kind, table.c.name)):
        found[row.revision].append(Change(Kind.ValueType(row.kind), row.name, row.change))
    return found


def signed_manifest(connection: sa.Connection, tenant: str, number: int) -> bytes:
    query = sa.select(revisions.c.manifest).where(revisions.c.tenant == tenant, revisions.c.number == number)
    manifest: bytes = connection.execute(query).scalar_one()
    return manifest


def metadata_of(connection: sa.Connection, tenant: str, number: int) -> TufMetadata:
    """What an offer of the revision carries, with the newest timestamp."""
    query = sa.select(tuf_metadata.c.role, tuf_metadata.c.data).where(
        tuf_metadata.c.tenant == tenant,
        sa.or_(
            sa.and_(tuf_metadata.c.role == "root", tuf_metadata.c.version > 1),
            sa.and_(tuf_metadata.c.role.in_(["snapshot", "targets"]), tuf_metadata.c.version == number),
        ),
    )
    rows = list(connection.execute(query.order_by(tuf_metadata.c.version)))
    single = {row.role: row.data for row in rows if row.role != "root"}
    roots = [row.data for row in rows if row.role == "root"]
    return TufMetadata(roots=roots, timestamp=last_metadata(connection, tenant, "timestamp")[1], **single)


def sites_selected(connection: sa.Connection, tenant: str, selectors: Sequence[Selector]) -> list[str]:
    """Sites where some selector matches the site's own labels or those of one of its nodes; sorted."""
    labelled: list[tuple[str, Mapping[str, str]]] = [
        (row.name, {**row.labels, SITE_LABEL: row.name})
        for row in connection.execute(sa.select(sites.c.name, sites.c.labels).where(sites.c.tenant == tenant))
    ]
    of_nodes = sa.select(nodes.c.site, nodes.c.labels).where(nodes.c.tenant == tenant)
    labelled += [(row.site, row.labels) for row in connection.execute(of_nodes)]
    return sorted({site for site, labels in labelled if any(_selects(selector, labels) for selector in selectors)})


def _selects(selector: Selector, labels: Mapping[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in selector.match_labels.items())
