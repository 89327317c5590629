"""The manifest of a revision: how a resource becomes bytes, an entry, and the target that is signed. Pure."""

from collections.abc import Iterable
from hashlib import sha256

from faos.resource.v1.resource_pb2 import Manifest, ManifestEntry, Resource
from faos_core.kinds import kind_of

Key = tuple[int, str]  # kind and name

# What a node takes, and a control plane therefore publishes, in one revision of a tenant.
MOST_ENTRIES = 10_000
MOST_MANIFEST_BYTES = 4 * 1024 * 1024


def body_of(resource: Resource) -> bytes:
    """The bytes that stand for a resource: made once, stored, signed for and sent as they are."""
    return resource.SerializeToString(deterministic=True)


def entry_of(resource: Resource, body: bytes) -> ManifestEntry:
    """body: as `body_of` made it."""
    metadata = resource.metadata
    return ManifestEntry(
        kind=kind_of(resource),
        name=metadata.name,
        sites=metadata.sites if metadata.HasField("sites") else None,
        sha256=sha256(body).digest(),
        length_bytes=len(body),
    )


def key_of(entry: ManifestEntry) -> Key:
    return int(entry.kind), entry.name


def manifest_bytes(tenant: str, revision: int, entries: Iterable[ManifestEntry]) -> bytes:
    """The TUF target: entries by kind and name, so that equal content gives equal bytes."""
    in_order = sorted(entries, key=key_of)
    return Manifest(tenant=tenant, revision=revision, entries=in_order).SerializeToString(deterministic=True)
