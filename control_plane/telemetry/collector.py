"""OTLP over HTTP to the control plane's collector: no redirects, nothing from the environment."""

import asyncio
import http.client
import ssl
from pathlib import Path
from urllib.parse import urlsplit

from google.protobuf.message import Message

from control_plane.telemetry.errors import COLLECTOR_REFUSED, COLLECTOR_UNREACHABLE
from faos_core.errors import InvalidError, UnavailableError
from faos_core.telemetry_target import is_final

TIMEOUT_S = 10.0
HEADERS = {"Content-Type": "application/x-protobuf", "Connection": "close"}


class CollectorSink:
    """Implements telemetry.Sink. No I/O before the first request."""

    def __init__(self, url: str, *, ca_file: Path | None = None) -> None:
        self._url = urlsplit(url)
        self._ca_file = ca_file

    async def send(self, signal: str, request: Message) -> None:
        """Raises UnavailableError; InvalidError where the collector never takes this."""
        status = await asyncio.to_thread(self._post, signal, request.SerializeToString())
        if not 200 <= status < 300:
            if is_final(status):
                raise InvalidError(COLLECTOR_REFUSED, status=status)
            raise UnavailableError(COLLECTOR_REFUSED, status=status)

    def _post(self, signal: str, body: bytes) -> int:
        connection = self._connection()
        try:
            connection.request("POST", f"{self._url.path.rstrip('/')}/v1/{signal}", body, HEADERS)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            raise UnavailableError(COLLECTOR_UNREACHABLE, reason=f"The system says: {type(error).__name__}.") from error
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        host = self._url.hostname or ""
        if self._url.scheme == "http":
            return http.client.HTTPConnection(host, self._url.port, timeout=TIMEOUT_S)
        context = ssl.create_default_context(cafile=str(self._ca_file) if self._ca_file else None)
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # as before Python 3.13: companies' CAs are seldom strict
        return http.client.HTTPSConnection(host, self._url.port, timeout=TIMEOUT_S, context=context)
