"""Times as they stand in messages."""

from datetime import datetime
from typing import overload

from google.protobuf.timestamp_pb2 import Timestamp


@overload
def timestamp(at: datetime) -> Timestamp: ...
@overload
def timestamp(at: datetime | None) -> Timestamp | None: ...
def timestamp(at: datetime | None) -> Timestamp | None:
    """The message of an aware time; None, which leaves a field unset, for None."""
    if at is None:
        return None
    message = Timestamp()
    message.FromDatetime(at)
    return message
