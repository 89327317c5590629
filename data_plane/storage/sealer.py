"""Sealing with few words, for every area that stores what is a customer's."""

import json
from typing import Any

import sqlalchemy as sa

from data_plane.storage.errors import KEY_DESTROYED
from data_plane.storage.keys import KeyRing, derive, keyed_hash
from data_plane.storage.sealed import DataKey, key_id_of, seal, unseal
from faos_core.compact_json import encoded
from faos_core.errors import NotFoundError


class Sealer:
    """Seals and opens the values of one tenant. Synchronous; for use inside `store.write` and `store.read`.

    column: the `Sealed` column that the value stands in. row: the row's primary key as text, known before the insert
    (of several columns: joined by "/"). subject: whose data it is; "" is the tenant's own.
    """

    def __init__(self, keys: KeyRing, connection: sa.Connection) -> None:
        """connection: in a write; the tenant's own key is made here when there is none. Durable before first use."""
        self._keys = keys
        self._tenant_key = keys.of_subject(connection, "")
        self._indexing = derive(self._tenant_key.secret, b"faos blind index v1")

    def seal(
        self, connection: sa.Connection, column: sa.Column[Any], row: str, plaintext: bytes, *, subject: str = ""
    ) -> bytes:
        """Only in a write: the first value of a subject makes its key."""
        key = self._keys.of_subject(connection, subject) if subject else self._tenant_key
        return seal(key, column.table.name, row, column.name, plaintext)

    def unseal(self, connection: sa.Connection, column: sa.Column[Any], row: str, sealed: bytes) -> bytes:
        """Raises IntegrityError (moved, changed or never sealed), NotFoundError (the subject was erased)."""
        key = self._key_of(connection, column, sealed)
        return unseal(key, column.table.name, row, column.name, sealed)

    def seal_json(
        self, connection: sa.Connection, column: sa.Column[Any], row: str, value: Any, *, subject: str = ""
    ) -> bytes:
        """value: anything that JSON can say; a string too."""
        plaintext = encoded(value)
        return self.seal(connection, column, row, plaintext, subject=subject)

    def unseal_json(self, connection: sa.Connection, column: sa.Column[Any], row: str, sealed: bytes) -> Any:
        """Inverse of `seal_json`; raises as `unseal`."""
        return json.loads(self.unseal(connection, column, row, sealed))

    def blind_index(self, column: sa.Column[Any], value: str) -> bytes:
        """32 bytes for equality look-ups in a plain `LargeBinary` column: equal for equal values of this column, and
        telling nothing else. Whoever erases a subject deletes these too."""
        return keyed_hash(self._indexing, column.table.name.encode(), column.name.encode(), value.encode())

    def subject_index(self, subject: str) -> bytes:
        """32 bytes that stand for the subject's name in a `subject_index` column, so that erasing finds its rows."""
        return self._keys.subject_index(subject)

    def _key_of(self, connection: sa.Connection, column: sa.Column[Any], sealed: bytes) -> DataKey:
        key_id = key_id_of(sealed)
        if key_id == self._tenant_key.id:
            return self._tenant_key
        key = self._keys.of_id(connection, key_id)
        if key is None:
            raise NotFoundError(KEY_DESTROYED, table=column.table.name, column=column.name)
        return key
