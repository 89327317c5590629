"""What leaves, and who says so."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from google.protobuf.message import Message


@dataclass(frozen=True, slots=True)
class LedgerHead:
    """RFC 6962 tree head over the first `size` leaves."""

    size: int
    root_sha256: bytes


@dataclass(frozen=True, slots=True)
class Leaf:
    """One message that left through a door."""

    index: int
    at: datetime
    door: str  # of the registry of doors
    destination: str  # host:port
    method: str  # full gRPC method, or HTTP verb and path
    message: str  # full protobuf name
    size_bytes: int
    fields_by_class: dict[str, int]  # class name → number of set fields
    body_sha256: bytes
    body: bytes | None  # None once the raw bytes passed their retention


class Identifiers(Protocol):
    """The set of values that an IDENTIFIER field may carry: names in the running revision, ids that this node
    generated, and what the control plane itself sent (nonces, digests). Nothing else passes, whatever it looks like."""

    def allow(self, *values: str | bytes) -> None: ...

    def replace_names(self, names: frozenset[str]) -> None:
        """The names of the running revision, in place of those of the one before."""

    def __contains__(self, value: str | bytes) -> bool: ...


class Gate(Protocol):
    """The only way to bytes that may be sent. See DESIGN section 6."""

    async def seal(self, message: Message, *, door: str, destination: str, method: str) -> bytes:
        """Drop unknown fields, check classes against the door's ceiling, validate identifiers, encode, append to
        the ledger, fsync (group commit) and return those very bytes.

        Raises: DeniedError (class above the ceiling, field without a class, or an identifier that is none): nothing
            was written and nothing may be sent. StopError (the ledger cannot be written): nothing may be sent.
        """

    def head(self) -> LedgerHead:
        """Head over everything that is durable."""
