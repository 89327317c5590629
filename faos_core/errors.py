"""Every error of FAOS, grouped by what the caller does about it.

    FaosError
    ├── RetryError              try again later; nothing was decided
    │   ├── UnavailableError    the other side cannot be reached or is draining
    │   └── DeadlineError       took longer than it was allowed
    ├── RequestError            the caller must change the request
    │   ├── InvalidError        malformed or inconsistent
    │   ├── NotFoundError       no such thing
    │   ├── ConflictError       clashes with what is there
    │   ├── StaleError          what the caller saw stands no more
    │   ├── UnauthenticatedError  who are you
    │   ├── DeniedError         known, and not allowed
    │   └── LimitError          over a quota or a size
    └── StopError               stop and alert a person
        ├── IntegrityError      a signature, hash or chain does not hold
        ├── SetupError          this installation is misconfigured or incomplete
        └── InternalError       a defect of ours

An error carries a code of the registry and fields, never prose: the registry holds what a person reads (what
happened, why, what to type next). Each area defines its codes in its own `errors.py` through `define`.
"""

from dataclasses import dataclass
from typing import ClassVar

import grpc


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """One entry of the registry. The texts are format strings over the error's fields."""

    code: str
    what: str
    why: str
    next_step: str


REGISTRY: dict[str, ErrorCode] = {}


def define(code: str, *, what: str, why: str, next_step: str) -> ErrorCode:
    """Add a code ("area.condition") to the registry. Raises ValueError for one that is there already."""
    if code in REGISTRY:
        raise ValueError(f"error code {code!r} is defined twice")
    REGISTRY[code] = ErrorCode(code, what, why, next_step)
    return REGISTRY[code]


class FaosError(Exception):
    """Base of all; raise one of the leaves.

    code: an entry of the registry. fields: what the entry's texts name; never customer content.
    """

    grpc_status: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL

    def __init__(self, code: ErrorCode, **fields: object) -> None:
        self.code = code
        self.fields = fields
        super().__init__(code.code)

    @property
    def what(self) -> str:
        return self.code.what.format(**self.fields)

    @property
    def why(self) -> str:
        return self.code.why.format(**self.fields)

    @property
    def next_step(self) -> str:
        return self.code.next_step.format(**self.fields)

    def __str__(self) -> str:
        return f"[{self.code.code}] {self.what}"


class RetryError(FaosError):
    """Try again later."""

    grpc_status = grpc.StatusCode.UNAVAILABLE


class UnavailableError(RetryError):
    """The other side cannot be reached, or sends us away for now."""


class DeadlineError(RetryError):
    """Took longer than allowed."""

    grpc_status = grpc.StatusCode.DEADLINE_EXCEEDED


class RequestError(FaosError):
    """The caller must change the request."""

    grpc_status = grpc.StatusCode.INVALID_ARGUMENT


class InvalidError(RequestError):
    """Malformed or inconsistent input."""


class NotFoundError(RequestError):
    """No such thing."""

    grpc_status = grpc.StatusCode.NOT_FOUND


class ConflictError(RequestError):
    """Clashes with what is there."""

    grpc_status = grpc.StatusCode.ALREADY_EXISTS


class StaleError(RequestError):
    """What the caller saw stands no more: look again, then decide again (AIP-154)."""

    grpc_status = grpc.StatusCode.ABORTED


class UnauthenticatedError(RequestError):
    """No identity, or one that does not hold."""

    grpc_status = grpc.StatusCode.UNAUTHENTICATED


class DeniedError(RequestError):
    """Known, and not allowed."""

    grpc_status = grpc.StatusCode.PERMISSION_DENIED


class LimitError(RequestError):
    """Over a quota or a size."""

    grpc_status = grpc.StatusCode.RESOURCE_EXHAUSTED


class StopError(FaosError):
    """Stop and alert a person."""


class IntegrityError(StopError):
    """A signature, hash or chain does not hold."""

    grpc_status = grpc.StatusCode.DATA_LOSS


class SetupError(StopError):
    """This installation is misconfigured or incomplete."""

    grpc_status = grpc.StatusCode.FAILED_PRECONDITION


class InternalError(StopError):
    """A defect of ours."""
