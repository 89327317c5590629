"""Sealing of single values: AES-256-GCM, bound to the place where the value stands.

    sealed value = marker (3) | version (1) | key id (16) | nonce (12) | ciphertext | tag (16)

The associated data are marker, version, key id, and table, column and row, each with its length: a value that is
moved elsewhere does not open. Nonces are random, so one key seals at most 2^32 values (NIST SP 800-38D, 8.3).
"""

import os
from dataclasses import dataclass, field

import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from data_plane.storage.errors import SEAL_BROKEN, UNSEALED, UnsealedError
from faos_core.errors import IntegrityError

HEADER = b"\xf5FS\x01"  # marker and version
KEY_ID_BYTES = 16
NONCE_BYTES = 12
TAG_BYTES = 16
PREFIX_BYTES = len(HEADER) + KEY_ID_BYTES
OVERHEAD_BYTES = PREFIX_BYTES + NONCE_BYTES + TAG_BYTES


@dataclass(frozen=True, slots=True)
class DataKey:
    """A key that seals the values of one tenant or of one data subject."""

    id: bytes
    secret: bytes = field(repr=False)
    cipher: AESGCM = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "cipher", AESGCM(self.secret))


def seal(key: DataKey, table: str, row: str, column: str, plaintext: bytes) -> bytes:
    """`plaintext` sealed for this place; 48 bytes longer. row: the row's primary key as text."""
    prefix = HEADER + key.id
    nonce = os.urandom(NONCE_BYTES)
    return prefix + nonce + key.cipher.encrypt(nonce, plaintext, associated_data(prefix, table, row, column))


def unseal(key: DataKey, table: str, row: str, column: str, sealed: bytes) -> bytes:
    """Inverse of `seal`. Raises IntegrityError for another key, another place, or a changed or plain value."""
    prefix, nonce, rest = split(sealed)
    try:
        return key.cipher.decrypt(nonce, rest, associated_data(prefix, table, row, column))
    except InvalidTag as error:
        raise IntegrityError(SEAL_BROKEN, table=table, column=column) from error


def split(sealed: bytes) -> tuple[bytes, bytes, bytes]:
    """Prefix, nonce, and ciphertext with its tag. Raises UnsealedError for a value that carries no seal."""
    if not is_sealed(sealed):
        raise UnsealedError(UNSEALED)
    end = PREFIX_BYTES + NONCE_BYTES
    return sealed[:PREFIX_BYTES], sealed[PREFIX_BYTES:end], sealed[end:]


def key_id_of(sealed: bytes) -> bytes:
    """Which key seals the value. Raises UnsealedError."""
    return split(sealed)[0][len(HEADER) :]


def is_sealed(value: object) -> bool:
    """Whether the value has the form of a sealed one; only `unseal` knows whether it is."""
    return isinstance(value, bytes) and len(value) >= OVERHEAD_BYTES and value.startswith(HEADER)


def associated_data(prefix: bytes, table: str, row: str, column: str) -> bytes:
    """Unambiguous: every part stands behind its length."""
    of_table, of_column, of_row = table.encode(), column.encode(), row.encode()
    return b"".join(
        (
            prefix,
            len(of_table).to_bytes(4),
            of_table,
            len(of_column).to_bytes(4),
            of_column,
            len(of_row).to_bytes(4),
            of_row,
        )
    )


class Sealed(sa.types.TypeDecorator[bytes]):
    """Column type of everything that is a customer's. Takes and gives sealed bytes; refuses others (UnsealedError)."""

    impl = sa.LargeBinary
    cache_ok = True

    def process_bind_param(self, value: bytes | None, dialect: sa.Dialect) -> bytes | None:
        if value is not None and not is_sealed(value):
            raise UnsealedError(UNSEALED)
        return value


def sealed_columns(table: sa.Table) -> list[str]:
    """Names of the table's sealed columns."""
    return [column.name for column in table.columns if isinstance(column.type, Sealed)]
