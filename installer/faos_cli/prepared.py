"""Is what a control plane asks to sign what its operator asked for? Pure: no network, no key.

The control plane is not trusted here. Of what it prepared, each resource must be vouched for by one of three: files of
the operator's, a revision that this very key signed before, or the operator's word (`adopt`) after having seen it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from google.protobuf.message import DecodeError, Message
from securesystemslib.signer import Key

from faos.admin.v1 import admin_pb2 as admin
from faos.resource.v1.resource_pb2 import Kind, Manifest, ManifestEntry, Resource
from faos_cli.key_errors import NEVER_SIGNED, PREPARED_WRONG
from faos_core import publisher
from faos_core.errors import DeniedError, IntegrityError
from faos_core.field_changes import MAX_ANSWER_CHARACTERS, field_changes
from faos_core.kinds import kind_name
from faos_core.manifests import Key as Named
from faos_core.manifests import body_of, entry_of, key_of, manifest_bytes

Entries = Mapping[Named, ManifestEntry]
LISTED = 5  # resources that an error names

ChangeRequest = admin.ApplyResourcesRequest | admin.DeleteResourcesRequest | admin.RollbackRevisionRequest


@dataclass(frozen=True, slots=True)
class Known:
    """A revision that stood before, and whether this key vouches for it."""

    revision: int
    entries: Entries
    sha256: bytes
    is_signed: bool


@dataclass(frozen=True, slots=True)
class Checked:
    """What may be signed, for a person to see first."""

    tenant: str
    revision: int
    manifest: bytes
    base: Known
    changes: Sequence[admin.ResourceChange]
    adopted: Sequence[Named] = field(default_factory=tuple)  # that nothing but the operator's word vouches for


def check(request: ChangeRequest, prepared: admin.PreparedRevision, key: Key, *, adopt: bool) -> Checked:
    """adopt: the operator vouches for what stands.

    Raises: IntegrityError (something else than was asked for), DeniedError (resources that nobody vouches for).
    """
    tenant = request.tenant
    base = known(prepared.base, tenant, key) if prepared.HasField("base") else Known(0, {}, b"", is_signed=True)
    entries = entries_in(prepared.manifest, tenant, prepared.revision)
    _require(prepared.revision == base.revision + 1, f"Revision {prepared.revision} cannot follow {base.revision}.")
    vouched = _vouched(request, prepared, base, entries, key)
    adopted = tuple(name for name, entry in entries.items() if vouched.get(name) != entry)
    if adopted and not adopt:
        raise DeniedError(NEVER_SIGNED, count=len(adopted), listed=_listed(adopted))
    changes = tuple(_changes(base.entries, entries, _resources(request, prepared)))
    return Checked(tenant, prepared.revision, prepared.manifest, base, changes, adopted)


def check_renewal(tenant: str, prepared: admin.PreparedRevision, key: Key) -> Checked:
    """The same content once more, for a new publisher: all of it is adopted. Raises IntegrityError."""
    base = known(prepared.base, tenant, key)
    entries = entries_in(prepared.manifest, tenant, prepared.revision)
    _require(prepared.revision == base.revision + 1, f"Revision {prepared.revision} cannot follow {base.revision}.")
    _require(entries == base.entries, "It is not the content that stands.")
    return Checked(tenant, prepared.revision, prepared.manifest, base, (), tuple(entries))


def known(signed: admin.SignedManifest, tenant: str, key: Key) -> Known:
    """Raises IntegrityError for what is no manifest of the tenant."""
    revision = _parsed(signed.manifest).revision
    is_signed = publisher.is_signed_by(key, signed.targets, manifest=signed.manifest, revision=revision)
    entries = entries_in(signed.manifest, tenant, revision)
    return Known(revision, entries, sha256(signed.manifest).digest(), is_signed)


def entries_in(manifest: bytes, tenant: str, revision: int) -> dict[Named, ManifestEntry]:
    """What a manifest names. It must be the canonical bytes of what we read, so that nodes read nothing else."""
    read = _parsed(manifest)
    entries = {key_of(entry): entry for entry in read.entries}
    _require(read.tenant == tenant, f"It is for tenant {read.tenant[:80]!r}.")
    _require(read.revision == revision, f"It says that it is revision {read.revision}, not {revision}.")
    _require(len(entries) == len(read.entries), "It names one resource twice.")
    plain = [_without_unknown(entry) for entry in read.entries]
    _require(manifest_bytes(tenant, revision, plain) == manifest, "It holds more than what can be read here.")
    return entries


def _parsed(manifest: bytes) -> Manifest:
    try:
        return Manifest.FromString(manifest)
    except DecodeError as error:
        raise IntegrityError(PREPARED_WRONG, reason="It is no manifest.") from error


def _without_unknown(entry: ManifestEntry) -> ManifestEntry:
    copy = ManifestEntry()
    copy.CopyFrom(entry)
    copy.DiscardUnknownFields()
    return copy


def _require(holds: bool, reason: str) -> None:
    if not holds:
        raise IntegrityError(PREPARED_WRONG, reason=reason)


# ---- what was asked for


def _vouched(
    request: ChangeRequest, prepared: admin.PreparedRevision, base: Known, entries: Entries, key: Key
) -> dict[Named, ManifestEntry]:
    """Entries that files or an earlier signature vouch for, where all entries are those that the request comes to."""
    match request:
        case admin.RollbackRevisionRequest():
            source = known(prepared.source, request.tenant, key)
            _require(source.revision == request.number, f"It is the content of revision {source.revision}.")
            _require(entries == source.entries, f"It is not the content of revision {request.number}.")
            return dict(source.entries) if source.is_signed else _signed(base)
        case admin.DeleteResourcesRequest():
            gone = {(int(each.kind), each.name) for each in request.names}
            left = {name: entry for name, entry in base.entries.items() if name not in gone}
            _require_same(entries, left)
            return _signed(base)
        case _:
            files = _files(request)
            gone = {name for name in base.entries if name not in entries} if request.prune else set()
            left = {name: entry for name, entry in base.entries.items() if name not in gone} | files
            _require_same(entries, left)
            return _signed(base) | files


def _signed(base: Known) -> dict[Named, ManifestEntry]:
    return dict(base.entries) if base.is_signed else {}


def _files(request: admin.ApplyResourcesRequest) -> dict[Named, ManifestEntry]:
    made = (entry_of(resource, body_of(resource)) for resource in request.resources)
    return {key_of(entry): entry for entry in made}


def _require_same(entries: Entries, wanted: Entries) -> None:
    """Raises IntegrityError that names the first difference."""
    for name in sorted({*entries, *wanted}):
        if entries.get(name) != wanted.get(name):
            what = "is missing" if name not in entries else "is more than was asked for"
            what = "is not what your files, or the revision before, say" if name in entries and name in wanted else what
            raise IntegrityError(PREPARED_WRONG, reason=f"{shown(name)} {what}.")


# ---- what a person sees


def _resources(request: ChangeRequest, prepared: admin.PreparedRevision) -> dict[bytes, Resource]:
    """By digest; what came with it is what its digest says, whoever sent it."""
    own = [body_of(each) for each in request.resources] if isinstance(request, admin.ApplyResourcesRequest) else []
    return {sha256(body).digest(): read for body in (*prepared.bodies, *own) if (read := _read(body)) is not None}


def _read(body: bytes) -> Resource | None:
    try:
        return Resource.FromString(body)
    except DecodeError:
        return None


def _changes(before: Entries, after: Entries, bodies: Mapping[bytes, Resource]) -> Iterator[admin.ResourceChange]:
    room = MAX_ANSWER_CHARACTERS
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        sides = [bodies.get(entry.sha256) if entry else None for entry in (old, new)]
        fields = field_changes(*sides, limit=room)
        room -= fields.size_characters
        is_shown = all((side is not None) == (entry is not None) for side, entry in zip(sides, (old, new), strict=True))
        yield admin.ResourceChange(
            kind=Kind.ValueType(name[0]),
            name=name[1],
            change=_word(old, new),
            fields=[_field(each.field_path, each.before, each.after) for each in fields.fields] if is_shown else [],
            fields_truncated=fields.is_truncated or not is_shown,
        )


def _word(old: Message | None, new: Message | None) -> admin.ChangeType.ValueType:
    if old is None:
        return admin.CHANGE_TYPE_CREATED
    return admin.CHANGE_TYPE_DELETED if new is None else admin.CHANGE_TYPE_UPDATED


def _field(path: str, before: str | None, after: str | None) -> admin.FieldChange:
    return admin.FieldChange(field_path=path, before=before, after=after)


def shown(name: Named) -> str:
    """kind/name."""
    return f"{kind_name(Kind.ValueType(name[0])).lower()}/{name[1]}"


def _listed(names: Sequence[Named]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(map(shown, names[:LISTED])) + more
