"""What is signed for a tenant away from its control plane, and how either side checks it.

A revision's TUF targets metadata is a pure function of its manifest, its number and the time, so the publisher's
machine makes it by itself and never signs bytes of another's making. A root follows from the root before and the key
that takes a role. Everything here is bytes in, bytes out; the files and databases are the planes'.

The only module that the control plane and the command line share which knows python-tuf.
Source: TUF specification 1.0.33, sections 4 and 5.3.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from securesystemslib.signer import Key, Signer, SSlibKey
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import (  # type: ignore[attr-defined]  # python-tuf re-exports them without saying so to mypy
    Metadata,
    Root,
    Signed,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization import DeserializationError
from tuf.api.serialization.json import JSONSerializer

from faos_core.errors import IntegrityError, InvalidError, define

TARGET_PATH = "manifest"
YEAR = timedelta(days=365)
LONGEST = timedelta(days=400)  # that signed metadata may hold; a clock of the publisher's may be a little off
# What nodes take at most (data_plane/link/trust.py).
MAX_TARGETS_BYTES = 256 * 1024
MAX_ROOT_BYTES = 64 * 1024
MAX_ROOT_VERSION = 64
MOVABLE = (Root.type, Targets.type)  # roles whose keys may be elsewhere; the other two sign every day
# What python-tuf raises for bytes that are no metadata, or metadata that makes no sense.
UNREADABLE = (DeserializationError, ValueError, TypeError, LookupError, AttributeError, RuntimeError)

TARGETS_REFUSED = define(
    "publisher.targets_refused",
    what="The signature does not make this revision the publisher's.",
    why="{reason}",
    next_step="Prepare and sign it anew with the publisher's key: faos apply --sign KEYREF -f DIR",
)
ROOT_REFUSED = define(
    "publisher.root_refused",
    what="This cannot be the tenant's next root.",
    why="{reason}",
    next_step="Look at the root that stands: faos tenant publisher show",
)
ROOTS_BROKEN = define(
    "publisher.roots_broken",
    what="The tenant's roots do not follow from each other.",
    why="{reason}",
    next_step="Sign nothing for this control plane before you know why; compare its roots with your own copy.",
)
KEY_UNREADABLE = define(
    "publisher.key_unreadable",
    what="This is not a public key that can sign revisions.",
    why="It must be PEM of an Ed25519, ECDSA (P-256, P-384) or RSA public key.",
    next_step="Have it printed as it must be: faos key show KEYREF",
)


def public_key_of(pem: bytes) -> SSlibKey:
    """Raises InvalidError."""
    try:
        return SSlibKey.from_crypto(load_pem_public_key(pem))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidError(KEY_UNREADABLE) from error


# ---- a revision


def sign_targets(publisher: Signer, *, manifest: bytes, revision: int, now: datetime) -> bytes:
    """The publisher's statement that this manifest is the tenant's revision. Opens the key: raises what that raises."""
    targets = {TARGET_PATH: TargetFile.from_data(TARGET_PATH, manifest, ["sha256"])}
    return signed(Targets(version=revision, expires=now + YEAR, targets=targets), publisher)


def check_targets(root: bytes, targets: bytes, *, manifest: bytes, revision: int, now: datetime) -> None:
    """That these targets are what nodes will take for this revision. Raises InvalidError."""
    if reason := _targets_problem(root, targets, manifest=manifest, revision=revision, now=now):
        raise InvalidError(TARGETS_REFUSED, reason=reason)


def _targets_problem(root: bytes, targets: bytes, *, manifest: bytes, revision: int, now: datetime) -> str | None:
    if len(targets) > MAX_TARGETS_BYTES:
        return f"It has {len(targets)} bytes; nodes take at most {MAX_TARGETS_BYTES}."
    metadata = _targets_in(targets)
    if metadata is None:
        return "It is no TUF targets metadata."
    said = metadata.signed
    if said.version != revision:
        return f"It is for revision {said.version}, not {revision}."
    if not now < said.expires <= now + LONGEST:
        return f"It holds until {said.expires:%Y-%m-%d}; that must lie ahead, by at most {LONGEST.days} days."
    if said.delegations is not None or list(said.targets) != [TARGET_PATH] or not names(said, manifest):
        return "It names other content than was prepared."
    try:
        root_of(root).verify_delegate(Targets.type, metadata.signed_bytes, metadata.signatures)
    except UnsignedMetadataError:
        signers = ", ".join(keyid[:16] for keyid in metadata.signatures) or "nobody"
        wanted = ", ".join(key.keyid[:16] for key in keys_of(root, Targets.type))
        return f"It is signed by {signers}, and the tenant's publisher is {wanted}."
    return None


def _targets_in(data: bytes) -> Metadata[Any] | None:
    try:
        metadata = Metadata[Any].from_bytes(data)
    except UNREADABLE:
        return None
    return metadata if isinstance(metadata.signed, Targets) else None


def names(targets: Targets, manifest: bytes) -> bool:
    """Whether the manifest is, to the byte, what these targets name."""
    info = targets.targets.get(TARGET_PATH)
    same = TargetFile.from_data(TARGET_PATH, manifest, ["sha256"])
    return info is not None and (info.length, info.hashes) == (same.length, same.hashes)


def is_signed_by(key: Key, targets: bytes, *, manifest: bytes, revision: int) -> bool:
    """Whether the holder of this key said, at any time, that the manifest is that revision."""
    metadata = _targets_in(targets)
    if metadata is None or metadata.signed.version != revision or not names(metadata.signed, manifest):
        return False
    holder = Root()
    holder.add_key(key, Targets.type)
    return bool(holder.get_verification_result(Targets.type, metadata.signed_bytes, metadata.signatures))


# ---- a root


def root_of(data: bytes) -> Root:
    """Raises InvalidError."""
    try:
        metadata = Metadata[Any].from_bytes(data)
    except UNREADABLE as error:
        raise InvalidError(ROOT_REFUSED, reason="It is no TUF metadata.") from error
    if not isinstance(metadata.signed, Root):
        raise InvalidError(ROOT_REFUSED, reason="It is TUF metadata of another role.")
    return metadata.signed


def keys_of(root: bytes, role: str) -> list[Key]:
    """Who may sign as this role."""
    said = root_of(root)
    return [said.get_key(keyid) for keyid in said.roles[role].keyids]


def check_chain(roots: Sequence[bytes]) -> None:
    """That each root is signed by itself and by the one before, from version 1 on. Raises IntegrityError."""
    previous: Root | None = None
    for version, data in enumerate(roots, 1):
        if reason := _chain_problem(previous, data, version):
            raise IntegrityError(ROOTS_BROKEN, reason=reason)
        previous = root_of(data)
    if previous is None:
        raise IntegrityError(ROOTS_BROKEN, reason="There is none.")


def _chain_problem(previous: Root | None, data: bytes, version: int) -> str | None:
    try:
        metadata = Metadata[Any].from_bytes(data)
        said = metadata.signed
        if not isinstance(said, Root) or said.version != version:
            return f"Version {version} is not where it should be."
        result = said.get_root_verification_result(previous, metadata.signed_bytes, metadata.signatures)
    except UNREADABLE:
        return f"Version {version} cannot be read."
    return None if result else f"Version {version} is not signed by the root's keys."


def next_root(root: bytes, *, now: datetime, publisher: Key | None = None, root_key: Key | None = None) -> bytes:
    """The root after this one, for another year, not yet signed. None: that role keeps its keys."""
    said = root_of(root)
    said.version += 1
    said.expires = now + YEAR
    for role, key in ((Targets.type, publisher), (Root.type, root_key)):
        if key is not None:
            _give(said, role, key)
    return Metadata(said).to_bytes(JSONSerializer(compact=True))


def _give(root: Root, role: str, key: Key) -> None:
    for keyid in [each for each in root.roles[role].keyids if each != key.keyid]:
        root.revoke_key(keyid, role)
    root.add_key(key, role)
    root.roles[role].threshold = 1


def with_signature(metadata: bytes, signer: Signer) -> bytes:
    """The metadata with one more signature. Opens the key: raises what that raises."""
    read = Metadata[Any].from_bytes(metadata)
    read.sign(signer, append=True)
    return read.to_bytes(JSONSerializer(compact=True))


def check_next_root(root: bytes, proposed: bytes, *, now: datetime) -> None:
    """That nodes which trust `root` will trust `proposed`, and that the control plane's own roles keep their keys, so
    that it can go on. Raises InvalidError."""
    if reason := _next_root_problem(root, proposed, now=now):
        raise InvalidError(ROOT_REFUSED, reason=reason)


def _next_root_problem(root: bytes, proposed: bytes, *, now: datetime) -> str | None:
    if len(proposed) > MAX_ROOT_BYTES:
        return f"It has {len(proposed)} bytes; nodes take at most {MAX_ROOT_BYTES}."
    before, after = root_of(root), root_of(proposed)
    if after.version != before.version + 1 or after.version > MAX_ROOT_VERSION:
        return f"It is version {after.version} after {before.version}; nodes follow up to version {MAX_ROOT_VERSION}."
    if not now < after.expires <= now + LONGEST:
        return f"It holds until {after.expires:%Y-%m-%d}; that must lie ahead, by at most {LONGEST.days} days."
    for role in (Snapshot.type, Timestamp.type):
        if _holders(before, role) != _holders(after, role):
            return f"It changes who signs as {role}, which is the control plane itself."
    if any(after.roles[role].threshold != 1 or not after.roles[role].keyids for role in MOVABLE):
        return "Each role takes one signature."
    if after.consistent_snapshot != before.consistent_snapshot:
        return "It changes how metadata is named."
    return _chain_problem(before, proposed, after.version)


def _holders(root: Root, role: str) -> tuple[int, dict[str, Any]]:
    """Threshold and keys of a role."""
    there = root.roles[role]
    return there.threshold, {keyid: root.get_key(keyid).to_dict() for keyid in there.keyids}


def expires_at(metadata: bytes) -> datetime:
    """Of metadata of any role that was checked before."""
    until: datetime = Metadata[Any].from_bytes(metadata).signed.expires
    return until


def is_signed_as_root(root: bytes, proposed: bytes) -> bool:
    """Whether the root's own keys signed what is proposed. Raises InvalidError for what is no root."""
    root_of(proposed)
    metadata = Metadata[Any].from_bytes(proposed)
    return bool(root_of(root).get_verification_result(Root.type, metadata.signed_bytes, metadata.signatures))


def is_root_signed_by(key: Key, root: bytes) -> bool:
    """Whether the holder of this key said that it is the root, and is its key itself."""
    metadata = Metadata[Any].from_bytes(root)
    holder = Root()
    holder.add_key(key, Root.type)
    is_signed = bool(holder.get_verification_result(Root.type, metadata.signed_bytes, metadata.signatures))
    return is_signed and key in keys_of(root, Root.type)


def signed_part(metadata: bytes) -> bytes:
    """The bytes that are signed: the same for every set of signatures."""
    data: bytes = Metadata[Any].from_bytes(metadata).signed_bytes
    return data


def is_same_statement(one: bytes, other: bytes) -> bool:
    """Whether two metadata say the same, whoever signed them."""
    return bool(Metadata[Any].from_bytes(one).signed == Metadata[Any].from_bytes(other).signed)


def signed(statement: Signed, signer: Signer) -> bytes:
    """Raises what the signer raises: a PIN that is wrong must be told from a key that is broken."""
    metadata: Metadata[Any] = Metadata(statement)
    try:
        metadata.sign(signer)
    except UnsignedMetadataError as error:
        raise error.__cause__ or error from None
    return metadata.to_bytes(JSONSerializer(compact=True))
