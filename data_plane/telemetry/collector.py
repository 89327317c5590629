"""OTLP to a collector at the site, through the door: each request is a leaf of the ledger before it is sent."""

from google.protobuf.message import Message

from data_plane.ceiling.models import DoorCeiling
from data_plane.egress.http_door import HttpDoor, HttpRequest
from data_plane.telemetry.errors import COLLECTOR_REFUSED
from faos_core.errors import InvalidError, UnavailableError
from faos_core.telemetry_target import is_final

READ_TIMEOUT_S = 10.0
HEADERS = {"content-type": "application/x-protobuf"}


class CollectorSink:
    """Implements telemetry.Sink over an open door."""

    def __init__(self, door: HttpDoor) -> None:
        self._door = door

    async def send(self, signal: str, request: Message) -> None:
        """Raises UnavailableError, InvalidError (the collector never takes this), DeniedError (the site does not let
        names pass there), StopError (the ledger)."""
        url = f"{self._door.endpoint.url.rstrip('/')}/v1/{signal}"
        body = request.SerializeToString()
        asked = HttpRequest("POST", url, HEADERS, body, DoorCeiling.IDENTIFIER, READ_TIMEOUT_S)
        async with self._door.send(asked) as answer:
            if not 200 <= answer.status < 300:
                name = self._door.endpoint.name
                if is_final(answer.status):
                    raise InvalidError(COLLECTOR_REFUSED, endpoint=name, status=answer.status)
                raise UnavailableError(COLLECTOR_REFUSED, endpoint=name, status=answer.status)
            async for _ in answer.pieces:  # what it says is of no interest; the connection is free again
                pass
