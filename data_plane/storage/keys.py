"""The site key (KEK), and the data keys that it wraps.

The KEK lives in a file of the site; data keys, one per tenant and one per data subject, stand wrapped in the table
`data_keys`. Destroying a row destroys all that its key sealed (crypto-shredding).
"""

import hmac
import os
import secrets
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from data_plane.storage.errors import KEK_EXPOSED, KEK_MALFORMED, KEK_MISSING, KEK_OTHER, KEK_UNREADABLE
from data_plane.storage.models import data_keys
from data_plane.storage.sealed import KEY_ID_BYTES, NONCE_BYTES, DataKey
from faos_core.disk import Disk
from faos_core.errors import IntegrityError, SetupError
from faos_core.ids import TenantName

KEK_BYTES = 32


@dataclass(frozen=True, slots=True)
class SiteKey:
    """The KEK. Its derived keys wrap data keys and index subjects; it never seals a value itself."""

    path: Path
    wrapping: AESGCM = field(repr=False)
    indexing: bytes = field(repr=False)
    id: bytes

    @classmethod
    def of(cls, secret: bytes, path: Path) -> "SiteKey":
        wrapping = AESGCM(derive(secret, b"faos wrap data keys v1"))
        return cls(path, wrapping, derive(secret, b"faos index subjects v1"), derive(secret, b"faos kek id v1")[:8])

    def subject_index(self, tenant: TenantName, subject: str) -> bytes:
        """A subject's name as it may stand on disk: 32 bytes, equal for equal names of one tenant."""
        return keyed_hash(self.indexing, tenant.encode(), subject.encode())


def derive(secret: bytes, purpose: bytes) -> bytes:
    """A 32-byte key for one purpose (HKDF-SHA-256, RFC 5869)."""
    return HKDF(SHA256(), 32, salt=None, info=purpose).derive(secret)


def keyed_hash(key: bytes, *parts: bytes) -> bytes:
    """HMAC-SHA-256 over the parts, each behind its length."""
    return hmac.digest(key, b"".join(len(part).to_bytes(4) + part for part in parts), sha256)


def load_site_key(path: Path, *, may_create: bool) -> SiteKey:
    """The KEK of the file, made first when there is none and `may_create`. Blocks.

    Raises: SetupError: storage.kek_missing (and may not be made), kek_exposed (mode lets others in), kek_malformed,
        kek_unreadable.
    """
    try:
        if not path.exists():
            if not may_create:
                raise SetupError(KEK_MISSING, path=path)
            create_key_file(path)
        return read_key_file(path)
    except OSError as error:
        raise SetupError(KEK_UNREADABLE, path=path) from error


def read_key_file(path: Path) -> SiteKey:
    """Looks at the mode of the file that it opened, not of the name."""
    with path.open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode & 0o777
        if mode & 0o077:
            raise SetupError(KEK_EXPOSED, path=path, mode=f"{mode:04o}")
        secret = file.read(KEK_BYTES + 1)
    if len(secret) != KEK_BYTES:
        raise SetupError(KEK_MALFORMED, path=path, size_bytes=path.stat().st_size)
    return SiteKey.of(secret, path)


def create_key_file(path: Path) -> None:
    """Whole or not at all, on disk when it returns; one that another process made meanwhile stands."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    Disk().put_new(path, secrets.token_bytes(KEK_BYTES))


def check_site_key(connection: sa.Connection, site_key: SiteKey) -> None:
    """Raises IntegrityError (storage.kek_other) when data keys here are wrapped with another KEK."""
    foreign = sa.select(data_keys.c.id).where(data_keys.c.kek_id != site_key.id).limit(1)
    if connection.execute(foreign).first():
        raise IntegrityError(KEK_OTHER, path=site_key.path)


class KeyRing:
    """The data keys of one tenant, for use inside `store.write` and `store.read`. Thread-safe.

    Unwrapped keys stay in memory by id. Which key a subject has is always read in the caller's own transaction: a
    remembered answer could be that of one that was rolled back, and what it seals could never be opened again.
    """

    CACHED_KEYS = 10_000

    def __init__(self, site_key: SiteKey, tenant: TenantName) -> None:
        self._site_key = site_key
        self.tenant = tenant
        self._cached: dict[bytes, DataKey] = {}
        self._uncached: set[bytes] = set()  # destroyed, or almost: each use asks its own snapshot

    def subject_index(self, subject: str) -> bytes:
        return self._site_key.subject_index(self.tenant, subject)

    def of_subject(self, connection: sa.Connection, subject: str) -> DataKey:
        """The subject's key, made in this transaction when there is none. Raises IntegrityError."""
        index = self.subject_index(subject)
        found = connection.execute(SELECT_BY_SUBJECT, {"tenant": self.tenant, "index": index}).first()
        if found:
            return self._cached.get(found.id) or self._remember(self._unwrap(found.id, found.wrapped_key))
        return self._create(connection, index)

    def of_id(self, connection: sa.Connection, key_id: bytes) -> DataKey | None:
        """The key of that id; None when it was destroyed. Raises IntegrityError."""
        if key := self._cached.get(key_id):
            return key
        found = connection.execute(SELECT_BY_ID, {"tenant": self.tenant, "id": key_id}).first()
        if not found:
            return None
        return self._remember(self._unwrap(key_id, found.wrapped_key))

    def destroy(self, connection: sa.Connection, subject: str) -> None:
        """Delete the subject's key, in this transaction, and never keep it in memory again."""
        index = self.subject_index(subject)
        found = connection.execute(SELECT_BY_SUBJECT, {"tenant": self.tenant, "index": index}).first()
        if found:
            self._uncached.add(found.id)
            self._cached.pop(found.id, None)
            connection.execute(data_keys.delete().where(data_keys.c.id == found.id))

    def _create(self, connection: sa.Connection, index: bytes) -> DataKey:
        key = DataKey(secrets.token_bytes(KEY_ID_BYTES), secrets.token_bytes(32))
        nonce = os.urandom(NONCE_BYTES)
        wrapped = nonce + self._site_key.wrapping.encrypt(nonce, key.secret, self._place(key.id))
        row = {"id": key.id, "tenant": self.tenant, "subject_index": index, "wrapped_key": wrapped}
        connection.execute(data_keys.insert(), row | {"kek_id": self._site_key.id})
        return self._remember(key)

    def _unwrap(self, key_id: bytes, wrapped: bytes) -> DataKey:
        try:
            nonce, rest = wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:]
            return DataKey(key_id, self._site_key.wrapping.decrypt(nonce, rest, self._place(key_id)))
        except InvalidTag as error:
            raise IntegrityError(KEK_OTHER, path=self._site_key.path) from error

    def _place(self, key_id: bytes) -> bytes:
        """What a wrapped key is bound to: it does not unwrap in another tenant's row."""
        return key_id + self.tenant.encode()

    def _remember(self, key: DataKey) -> DataKey:
        if len(self._cached) >= self.CACHED_KEYS:
            self._cached.clear()
        self._cached[key.id] = key
        if key.id in self._uncached:  # looked at last: another thread may be destroying it right now
            self._cached.pop(key.id, None)
        return key


SELECT_BY_SUBJECT = sa.select(data_keys.c.id, data_keys.c.wrapped_key).where(
    data_keys.c.tenant == sa.bindparam("tenant"), data_keys.c.subject_index == sa.bindparam("index")
)
SELECT_BY_ID = sa.select(data_keys.c.wrapped_key).where(
    data_keys.c.tenant == sa.bindparam("tenant"), data_keys.c.id == sa.bindparam("id")
)
