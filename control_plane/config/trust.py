"""Signing of a tenant's revisions with The Update Framework: the only place of this plane that knows python-tuf. What
a publisher can do on a machine of its own is in faos_core.publisher.

One TUF repository per tenant (DESIGN §4) with one target, "manifest". Its metadata is a pure function of the
manifest, two version numbers and the time, so nothing is read back to sign the next revision:

    root       v1, v2 …            who may sign the others; not needed to sign a revision, so its key can leave
    targets    version = revision  the publisher: names the manifest by length and SHA-256
    snapshot   version = revision  names targets
    timestamp  a counter           names snapshot; signed again while nothing changes

**Expiry.** Only *taking new configuration* looks at it: a node boots its last-known-good without asking TUF, so one
that was cut off for months still starts, and the first offer after that brings metadata of that day. Freshness is
the timestamp's alone (7 days: how long a control plane can be held back unnoticed); it is signed again daily. Root,
targets and snapshot live a year, because TUF allows no second file of one version: two months before their end, the
root is renewed (same keys, next version) and the standing content published again as the next revision.

**Keys** are found by reference, one per role, in `keys.json` of the tenant's key folder: "file:NAME" is a PKCS#8 file
beside it (the embedded default); any other scheme is a securesystemslib signer URI (KMS, HSM, Vault). A folder
without a reference for a role simply cannot sign as that role: an offline publisher or an offline root. Which key a
role has is said by the newest root, which stands in the database; version 1 lies beside the keys.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.exceptions import Error as SigningLibraryError
from securesystemslib.signer import CryptoSigner, Key, Signer, SSlibKey
from tuf.api.metadata import (  # type: ignore[attr-defined]  # python-tuf re-exports them without saying so to mypy
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    Targets,
    Timestamp,
)
from tuf.api.serialization import DeserializationError

from control_plane.config.errors import KEYS_OF_ANOTHER, KEYS_UNUSABLE, METADATA_UNREADABLE, PUBLISHER_ELSEWHERE
from faos_core import publisher
from faos_core.disk import Disk
from faos_core.errors import ConflictError, IntegrityError, InvalidError, SetupError
from faos_core.publisher import TARGET_PATH as TARGET_PATH
from faos_core.publisher import YEAR, keys_of, sign_targets, signed

ROLES = (Root.type, Targets.type, Snapshot.type, Timestamp.type)
TIMESTAMP_LIFETIME = timedelta(days=7)
LIFETIME = {
    Root.type: YEAR,
    Targets.type: YEAR,
    Snapshot.type: YEAR,
    Timestamp.type: TIMESTAMP_LIFETIME,
}
REFERENCES_FILE = "keys.json"
ROOT_FILE = "1.root.json"
FILE_SCHEME = "file:"


@dataclass(frozen=True, slots=True)
class SignedMetadata:
    """Serialised TUF metadata of one revision."""

    timestamp: bytes
    snapshot: bytes
    targets: bytes


@dataclass(frozen=True, slots=True)
class TenantKeys:
    """A tenant's signing keys by reference. Immutable; holds no private key."""

    directory: Path
    root: bytes  # the root metadata that stands, which has every public key
    references: Mapping[str, str]  # TUF role → key reference

    def holds(self, role: str) -> bool:
        """Whether the role is signed for here. A key file that the root names no more, as a crash in the middle of a
        rotation leaves it, is none: its signature under the new key's name would be refused by every node. Blocking."""
        if not self.is_file(role):
            return role in self.references
        try:
            self._named(role, _private_key(self.directory, self.references[role]))
        except LookupError:
            return False
        except (OSError, ValueError, UnsupportedAlgorithm):
            return True  # it should be: its use says what is wrong with it
        return True

    def is_file(self, role: str) -> bool:
        """Whether its key is a file here, not a thing that a reference reaches."""
        return self.references.get(role, "").startswith(FILE_SCHEME)

    def signer(self, role: str) -> Signer:
        """Open the key of a role; touches the disk, or the KMS. Raises SetupError when it cannot be used."""
        if role == Targets.type and not self.holds(role):
            raise SetupError(PUBLISHER_ELSEWHERE, tenant=self.directory.name)
        try:
            reference = self.references[role]
            if not self.is_file(role):
                return Signer.from_priv_key_uri(reference, self.public_key(role))
            private = _private_key(self.directory, reference)
            return CryptoSigner(private, self._named(role, private))
        except (OSError, LookupError, ValueError, UnsupportedAlgorithm, SigningLibraryError) as error:
            raise SetupError(KEYS_UNUSABLE, role=role, directory=self.directory) from error

    def public_key(self, role: str) -> Key:
        return keys_of(self.root, role)[0]

    def _named(self, role: str, private: PrivateKeyTypes) -> SSlibKey:
        """The root's key that this is the private part of. Raises LookupError."""
        own = SSlibKey.from_crypto(private.public_key())
        for key in keys_of(self.root, role):
            if isinstance(key, SSlibKey) and key.keyval["public"].strip() == own.keyval["public"].strip():
                return key
        raise LookupError(role)


def _private_key(directory: Path, reference: str) -> PrivateKeyTypes:
    """Raises OSError, ValueError, UnsupportedAlgorithm."""
    pem = (directory / Path(reference.removeprefix(FILE_SCHEME)).name).read_bytes()
    return load_pem_private_key(pem, None)


def create_tenant_keys(directory: Path, *, now: datetime, publisher_key: Key | None = None) -> bytes:
    """Make the four keys of a tenant in this folder and return its root metadata, version 1.

    publisher_key: of a publisher elsewhere, so only three are made; None: it is made here too.

    A folder that has them already stays as it is, and its root is returned: safe to call again after a crash, which
    leaves either all or nothing. Files are mode 0600, folders 0700. Blocking; fsyncs.
    Raises: ConflictError when those that are there have another publisher.
    """
    if not (directory / ROOT_FILE).exists():
        try:
            Disk().put_folder(directory, _new_keys(now, publisher_key))
        except OSError:
            if not (directory / ROOT_FILE).exists():
                raise
    root = (directory / ROOT_FILE).read_bytes()  # perhaps of another process, which made them meanwhile
    here = load_tenant_keys(directory).holds(Targets.type)
    if here != (publisher_key is None) or (publisher_key and keys_of(root, Targets.type) != [publisher_key]):
        raise ConflictError(KEYS_OF_ANOTHER, directory=directory)
    return root


def _new_keys(now: datetime, publisher_key: Key | None) -> dict[str, bytes]:
    """The content of a tenant's folder, by file name."""
    signers = {role: CryptoSigner.generate_ed25519() for role in ROLES if role != Targets.type or not publisher_key}
    root = Root(expires=now + LIFETIME[Root.type], consistent_snapshot=False)
    for role in ROLES:
        root.add_key(signers[role].public_key if role in signers else publisher_key, role)
    references = {role: f"{FILE_SCHEME}{role}.pem" for role in signers}
    files = {f"{role}.pem": signer.private_bytes for role, signer in signers.items()}
    files[REFERENCES_FILE] = _references(references)
    files[ROOT_FILE] = signed(root, signers[Root.type])
    return files


def _references(references: Mapping[str, str]) -> bytes:
    return json.dumps(references, indent=2).encode()


def load_tenant_keys(directory: Path, root: bytes = b"") -> TenantKeys:
    """The keys that `create_tenant_keys` made, or that an operator referred to. root: the one that stands; empty: it is
    still version 1. Raises SetupError."""
    try:
        references = dict(json.loads((directory / REFERENCES_FILE).read_bytes()))
        root = root or (directory / ROOT_FILE).read_bytes()
        Metadata[Root].from_bytes(root)
    except (OSError, ValueError, TypeError, DeserializationError) as error:
        raise SetupError(KEYS_UNUSABLE, role="root", directory=directory) from error
    return TenantKeys(directory, root, {role: str(references[role]) for role in ROLES if role in references})


def forget_keys(directory: Path, roles: Sequence[str]) -> None:
    """Sign no more for these roles, and destroy the private keys of those that are files here. Idempotent; blocking.

    Raises: SetupError, OSError. What they signed with is worthless once nodes have the root that names others.
    """
    keys = load_tenant_keys(directory)
    kept = {role: reference for role, reference in keys.references.items() if role not in roles}
    Disk().put(directory, {REFERENCES_FILE: _references(kept)})
    for role in roles:
        reference = keys.references.get(role, "")
        if reference.startswith(FILE_SCHEME):
            Disk().remove(directory / Path(reference.removeprefix(FILE_SCHEME)).name)
    Disk().sync_folder(directory)


def sign_revision(
    keys: TenantKeys,
    *,
    manifest: bytes,
    revision: int,
    timestamp_version: int,
    now: datetime,
    signed_targets: bytes = b"",
) -> SignedMetadata:
    """Sign a revision's manifest as publisher, and snapshot and timestamp over it.

    revision: from 1; must exceed the one that stands. timestamp_version: must exceed every one signed before.
    signed_targets: the publisher's part, where it was signed elsewhere.
    Blocking, about 1 ms with key files.
    Raises: SetupError when a key cannot be used, or is not here; InvalidError when signed_targets are not these.
    """
    what: dict[str, Any] = {"manifest": manifest, "revision": revision, "now": now}
    if signed_targets:
        publisher.check_targets(keys.root, signed_targets, **what)
    targets = signed_targets or sign_targets(keys.signer(Targets.type), **what)
    meta = {"targets.json": _meta(targets, revision)}
    snapshot = signed(
        Snapshot(version=revision, expires=now + LIFETIME[Snapshot.type], meta=meta), keys.signer(Snapshot.type)
    )
    timestamp = _timestamp(keys, _meta(snapshot, revision), timestamp_version, now)
    return SignedMetadata(timestamp, snapshot, targets)


def renew_root(keys: TenantKeys, root: bytes, *, now: datetime) -> bytes:
    """The next version of the root metadata: the same keys for another year. Needs the root key."""
    return publisher.with_signature(publisher.next_root(root, now=now), keys.signer(Root.type))


def resign_timestamp(keys: TenantKeys, timestamp: bytes, *, timestamp_version: int, now: datetime) -> bytes:
    """The same statement, fresh: what a tenant whose configuration does not change needs every few days."""
    return _timestamp(keys, _read(timestamp).signed.snapshot_meta, timestamp_version, now)


def _timestamp(keys: TenantKeys, snapshot: MetaFile, version: int, now: datetime) -> bytes:
    timestamp = Timestamp(version=version, expires=now + TIMESTAMP_LIFETIME, snapshot_meta=snapshot)
    return signed(timestamp, keys.signer(Timestamp.type))


def _meta(metadata: bytes, version: int) -> MetaFile:
    return MetaFile.from_data(version, metadata, ["sha256"])


def version_of(metadata: bytes) -> int:
    """Raises IntegrityError for what is no metadata."""
    version: int = _read(metadata).signed.version
    return version


def targets_version(targets: bytes) -> int:
    """Of what somebody else signed. Raises InvalidError for what is no metadata."""
    try:
        return version_of(targets)
    except IntegrityError as error:
        raise InvalidError(publisher.TARGETS_REFUSED, reason="It is no TUF metadata.") from error


def expires_at(metadata: bytes) -> datetime:
    """When this metadata, of any role, stops being taken. Raises IntegrityError for what is no metadata."""
    expires: datetime = _read(metadata).signed.expires
    return expires


def _read(metadata: bytes) -> Metadata[Any]:
    try:
        return Metadata[Any].from_bytes(metadata)
    except DeserializationError as error:
        raise IntegrityError(METADATA_UNREADABLE) from error
