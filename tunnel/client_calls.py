"""What every call of the node's end shares: bytes read as messages, and whatever fails as our errors."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from faos_core.errors import DeadlineError, FaosError, InvalidError, UnavailableError
from tunnel.error_mapping import DETAIL_KEY, from_rpc_error
from tunnel.errors import CONTROL_PLANE_UNREACHABLE, FRAME_UNEXPECTED, PEER_TAKES_NOTHING

DIAL_TIMEOUT_S = 20.0
WRITE_S = 30.0  # that the control plane may take nothing of what it is sent
UNREACHED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)  # where the server itself said nothing
WRITE_FAILED = "Internal error from Core"  # gRPC's words for a write to a call that ended before it knew why
Parsed = TypeVar("Parsed", bound=Message)


class SessionEndedError(Exception):
    """A session is over, and why; retry_after_s: seconds that the control plane asked to stay away."""

    def __init__(self, error: FaosError, retry_after_s: float) -> None:
        self.error = error
        self.retry_after_s = retry_after_s


def parsed(kind: type[Parsed], raw: bytes) -> Parsed:
    """Not as gRPC's deserialiser: that one logs what it cannot read and hands on None, which nobody expects.

    Raises InvalidError.
    """
    try:
        return kind.FromString(raw)
    except DecodeError as error:
        raise InvalidError(FRAME_UNEXPECTED, frame="what cannot be read", expected=kind.DESCRIPTOR.name) from error


def closed(address: str, details: str) -> UnavailableError:
    return UnavailableError(CONTROL_PLANE_UNREACHABLE, address=address, details=details, timeout_s=0)


@contextmanager
def mapped(address: str) -> Iterator[None]:
    """Turns gRPC's errors into ours: what the server meant, or that it could not be reached."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise reached(error, address) from error
    except asyncio.InvalidStateError as error:  # written to a call that has ended
        raise closed(address, "the stream has ended") from error
    except grpc.aio.UsageError as error:  # begun on a channel that has been closed meanwhile
        raise closed(address, "the session ended meanwhile") from error
    except TimeoutError as error:  # of a write
        raise DeadlineError(PEER_TAKES_NOTHING, timeout_s=round(WRITE_S)) from error
    except asyncio.CancelledError as error:
        if is_cancelled():
            raise
        raise closed(address, "the session ended meanwhile") from error  # gRPC's word for a channel that was closed


def reached(error: grpc.aio.AioRpcError, address: str) -> FaosError:
    """The server's own error, or CONTROL_PLANE_UNREACHABLE when it was the connection that failed."""
    said = any(key == DETAIL_KEY for key, _ in error.trailing_metadata() or ())
    if not said and error.details() == WRITE_FAILED:
        return closed(address, "the stream ended while it was written to")
    if said or error.code() not in UNREACHED:
        return from_rpc_error(error)
    details = (error.details() or "no details").splitlines()[0]
    return UnavailableError(CONTROL_PLANE_UNREACHABLE, address=address, details=details, timeout_s=int(DIAL_TIMEOUT_S))


def is_cancelled() -> bool:
    """Whether this very task is to end: gRPC raises CancelledError for its own reasons too, and a task group that fails
    while its task is cancelled raises the failure."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


@contextmanager
def flattened() -> Iterator[None]:
    """A task group of one session fails with one cause: raise that, not a group. A stop (ledger, defect) goes
    before the end of the session, which goes before what the connection said."""
    try:
        yield
    except BaseExceptionGroup as group:
        causes = list(_leaves(group))
        causes.sort(key=lambda cause: (not _is_stop(cause), not isinstance(cause, SessionEndedError)))
        raise causes[0] from None


def _is_stop(cause: BaseException) -> bool:
    return not isinstance(cause, FaosError | SessionEndedError)


def _leaves(group: BaseExceptionGroup[Any]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
