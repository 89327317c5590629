"""The models of the servers under [endpoints], for a person at the site: what is there, and fetching more.

The client is imported by the first question: a site without endpoints need not pay 0.5 s at its node's start.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING

from data_plane.ceiling.models import Endpoint
from data_plane.egress.doors import REMOTE_MODEL
from data_plane.models import errors
from faos_core.errors import FaosError, InvalidError, NotFoundError
from faos_core.resource_validation import is_model_tag

if TYPE_CHECKING:
    from data_plane.egress.http_door import HttpDoor
    from data_plane.models.ollama import PulledModel, PullProgress

LIST_TIMEOUT_S = 10.0


class EndpointModels:
    """Asks each server through its door. Stateless between calls."""

    def __init__(self, endpoints: Mapping[str, Endpoint], open_door: "Callable[[str, Endpoint], HttpDoor]") -> None:
        """endpoints: of the ceiling, by name."""
        self._endpoints = endpoints
        self._open_door = open_door

    async def pulled(self) -> "dict[str, list[PulledModel] | None]":
        """By endpoint: what its server has; None where it does not answer within 10 s as an Ollama server does."""
        async with asyncio.TaskGroup() as group:
            tasks = {name: group.create_task(self._pulled(name)) for name in sorted(self._endpoints)}
        return {name: task.result() for name, task in tasks.items()}

    async def pull(self, endpoint: str, tag: str) -> "AsyncGenerator[PullProgress, None]":
        """Have the server fetch it. Raises NotFoundError (no such endpoint), InvalidError (no tag), SetupError (it
        cannot), UnavailableError."""
        from data_plane.models.ollama import OllamaServer

        if endpoint not in self._endpoints:
            raise NotFoundError(errors.ENDPOINT_UNKNOWN, endpoint=endpoint[:80])
        if not is_model_tag(tag):
            raise InvalidError(errors.TAG_MALFORMED, tag=tag[:80])
        door = self._open_door(REMOTE_MODEL.name, self._endpoints[endpoint])
        async with door, aclosing(OllamaServer(door).pull(tag)) as progress:
            async for each in progress:
                yield each

    async def _pulled(self, name: str) -> "list[PulledModel] | None":
        from data_plane.models.ollama import OllamaServer

        try:
            async with asyncio.timeout(LIST_TIMEOUT_S):
                async with self._open_door(REMOTE_MODEL.name, self._endpoints[name]) as door:
                    return await OllamaServer(door).pulled()
        except (FaosError, TimeoutError):
            return None
