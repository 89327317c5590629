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
class Applied:
    """Answer of an apply."""

    revision: int  # that now stands; 0 while there is none
    changes: Sequence[Change]  # as asked, the unchanged included
    affected_sites: Sequence[str]  # sorted


@dataclass(frozen=True, slots=True)
class StoredResource:
    """A resource as it stands."""

    resource: Resource
    revision: int  # in which it last changed
    apply_set: str = ""  # empty: of none


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
