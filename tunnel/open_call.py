"""A call of a node that can be ended from outside: a revoked node keeps no stream."""

import asyncio
from collections.abc import Awaitable
from typing import Any

import grpc

from faos_core.errors import FaosError
from faos_core.ids import NodeIdentity
from tunnel.error_mapping import abort
from tunnel.tls import Peer

Context = grpc.aio.ServicerContext[Any, Any]


class OpenCall:
    """`run` once; `close` at any moment while it runs, from inside `work` too, which has to return then."""

    def __init__(self, identity: NodeIdentity, peer: Peer, method: str, context: Context) -> None:
        self.identity = identity
        self.peer = peer
        self.method = method
        self.retired_at_s: float | None = None  # since when its certificate is not the node's any more
        self._context = context
        self._task: asyncio.Task[Any] | None = None
        self.closed_by: FaosError | None = None  # why it was ended

    async def run(self, work: Awaitable[None]) -> None:
        """Aborts the call with the error of `close`."""
        self._task = asyncio.current_task()
        try:
            await work
        except asyncio.CancelledError:
            if self.closed_by is None or self._task is None:
                raise
            self._task.uncancel()
        if self.closed_by:
            await abort(self._context, self.closed_by)

    def close(self, error: FaosError) -> None:
        """End the call with this error. Idempotent."""
        if self.closed_by is None:
            self.closed_by = error
            if self._task and self._task is not asyncio.current_task():
                self._task.cancel()
