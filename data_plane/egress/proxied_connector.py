"""How the HTTP door connects where site.toml says `through_proxy`: over the relay's socket, in TLS with the endpoint.

The request that goes through is the same as without a proxy, for http:// too: the proxy is asked to CONNECT, so what
arrives at the endpoint is what the ledger's digest is over.
"""

import asyncio
import ssl
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

if TYPE_CHECKING:
    from aiohttp import ClientRequest, ClientTimeout
    from aiohttp.tracing import Trace


class ProxiedConnector(aiohttp.UnixConnector):
    """As its base class, which knows no TLS."""

    def __init__(self, path: str, *, tls: ssl.SSLContext | None, host: str, **keeping: Any) -> None:
        """keeping: as its base class."""
        super().__init__(path, **keeping)
        self._tls = tls
        self._host = host

    async def _create_connection(
        self,
        req: "ClientRequest",
        traces: "list[Trace]",
        timeout: "ClientTimeout",  # noqa: ASYNC109  # its base class's parameter
    ) -> ResponseHandler:
        async with asyncio.timeout(timeout.connect):
            _, protocol = await self._loop.create_unix_connection(
                self._factory, self._path, ssl=self._tls, server_hostname=self._host if self._tls else None
            )
        return protocol
