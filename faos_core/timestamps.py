"""Times as they stand in messages."""

from datetime import UTC, datetime
from typing import overload

from google.protobuf.timestamp_pb2 import Timestamp

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@overload
def timestamp(at: datetime) -> Timestamp: ...
@overload
def timestamp(at: datetime | None) -> Timestamp | None: ...
def timestamp(at: datetime | None) -> Timestamp | None:
    """The message of an aware time; None, which leaves a field unset, for None."""
    if at is None:
        return None
    since = at - EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1_000)
