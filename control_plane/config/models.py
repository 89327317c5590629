"""What the configuration side answers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from faos.resource.v1.resource_pb2 import Kind, Resource
from faos_core.field_changes import FieldChange


@dataclass(frozen=True, slots=True)
class Change:
    """What an apply does, or would do, to one resource."""

    kind: Kind.ValueType
    name: str
    change: int  # a number of faos.admin.v1.ChangeType
    fields: Sequence[FieldChange] = ()  # of a change that is only asked about
    fields_truncated: bool = False


@dataclass(frozen=True, slots=True)
class Terms:
    """On what a change is made. The default: on none, and the control plane signs."""

    prepare: bool = False  # answer with what the publisher signs elsewhere; store nothing
    signed_targets: bytes = b""  # of the revision that was prepared; empty: the control plane signs
    expected_revision: int = 0  # that must stand; 0: any
    etags: Sequence[tuple[tuple[int, str], str]] = ()  # kind and name, and how it must stand; "": it must not


@dataclass(frozen=True, slots=True)
class SignedManifest:
    """A revision's manifest, and the TUF targets metadata that names it."""

    manifest: bytes
    targets: bytes


@dataclass(frozen=True, slots=True)
class Prepared:
    """A revision before it is signed: what the publisher's machine checks by itself."""

    revision: int
    manifest: bytes
    base: SignedManifest | None  # what stands; None before the first
    source: SignedManifest | None  # of a rollback: whose content comes back
    bodies: Sequence[bytes]  # of what changes, both sides, as far as 8 MiB go
    roots: Sequence[bytes]  # from version 1 on


@dataclass(frozen=True, slots=True)
class Trust:
    """Who may sign for a tenant, and which of them signs here."""

    roots: Sequence[bytes]  # from version 1 on
    has_root_key: bool
    has_publisher_key: bool
    renewal: Prepared | None  # what stands as the next revision; None before the first


@dataclass(frozen=True, slots=True)
class Applied:
    """Answer of an apply."""

    revision: int  # that now stands; 0 while there is none
    changes: Sequence[Change]  # as asked, the unchanged included
    affected_sites: Sequence[str]  # sorted
    prepared: Prepared | None = None  # of a request to prepare that changes something


@dataclass(frozen=True, slots=True)
class StoredResource:
    """A resource as it stands."""

    resource: Resource
    revision: int  # in which it last changed
    apply_set: str = ""  # empty: of none
    etag: str = ""  # another for other content


@dataclass(frozen=True, slots=True)
class Revision:
    """One immutable version of all that a tenant declares."""

    tenant: str
    number: int
    created_at: datetime
    author: str
    manifest_sha256: bytes
    changes: Sequence[Change] = field(default_factory=tuple)  # against the revision before
    reason: str = ""  # what the author said
    rollback_of: int = 0  # whose content it brought back; 0: none's
    traceparent: str = ""  # W3C trace context of the change; empty: none
