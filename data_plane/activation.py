"""Makes a configuration the running one: models, tools, knowledge, then the switch. Implements link's Activation."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from data_plane.ceiling.models import Ceiling
from data_plane.egress.interfaces import Identifiers
from data_plane.link.interfaces import Configuration, ConfigurationError
from data_plane.link.nacks import refusal
from data_plane.memory.interfaces import KnowledgeBases
from data_plane.models.catalogue import ModelCatalogue
from data_plane.tools.broker import Change, ToolServers
from data_plane.tools.errors import StartCause, ToolServerError
from faos.resource.v1 import resource_pb2 as resource
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core import names
from faos_core.errors import FaosError, IntegrityError

log = logging.getLogger(__name__)

TOOL_NACKS: Mapping[StartCause, tunnel.NackCode.ValueType] = {
    StartCause.NOT_IN_CEILING: tunnel.NACK_CODE_NAME_NOT_IN_CEILING,
    StartCause.START_FAILED: tunnel.NACK_CODE_TOOL_SERVER_FAILED,
    StartCause.TOOL_NOT_OFFERED: tunnel.NACK_CODE_TOOL_NOT_OFFERED,
    StartCause.SANDBOX_UNAVAILABLE: tunnel.NACK_CODE_SANDBOX_UNAVAILABLE,
}


class NodeActivation:
    """One activation at a time. What is new is made beside what runs; the old goes after the switch."""

    def __init__(
        self,
        ceiling: Ceiling,
        *,
        models: ModelCatalogue,
        tools: ToolServers,
        knowledge: KnowledgeBases,
        identifiers: Identifiers,
    ) -> None:
        self._ceiling = ceiling
        self._models = models
        self._tools = tools
        self._knowledge = knowledge
        self._identifiers = identifiers
        self._running = Configuration()
        self._came_with: Sequence[str] = ()
        self.activated = asyncio.Event()  # set by the first activation

    def running(self) -> Configuration:
        return self._running

    async def activate(self, configuration: Configuration) -> None:
        """See Activation. Tool servers start beside what runs while models load and documents are read; they replace
        it last, when everything is known to be good."""
        async with self._tools_beside(configuration) as tools:
            await self._load_models(configuration)
            await self._ingest(configuration)
            await tools.commit()
        before, self._running = self._running, configuration
        self._came_with = _new_servers(before, configuration)
        self._identifiers.replace_names(configuration.names())
        self.activated.set()
        await self._let_go(before, configuration)

    def health(self) -> tunnel.Nack | None:
        """What the soak asks: every tool server that came with the running configuration has lived on since. One that
        was there before says nothing about what is new."""
        for name in self._came_with:
            if self._tools.ended_lives(name):
                kind = resource.KIND_TOOL_SERVER
                return refusal(tunnel.NACK_CODE_TOOL_SERVER_FAILED, kind=kind, name=name).nack
        return None

    async def _load_models(self, configuration: Configuration) -> None:
        for name, spec in configuration.models.items():
            try:
                await self._models.load({name: spec})
            except IntegrityError as error:
                raise _refused(tunnel.NACK_CODE_MODEL_CHECKSUM, resource.KIND_MODEL, name, error) from error
            except FaosError as error:
                raise _refused(tunnel.NACK_CODE_MODEL_LOAD_FAILED, resource.KIND_MODEL, name, error) from error

    async def _ingest(self, configuration: Configuration) -> None:
        for name, spec in configuration.knowledge_bases.items():
            folder = self._ceiling.folders[spec.folder].path
            try:
                report = await self._knowledge.ingest(name, spec, folder)
            except FaosError as error:
                raise _refused(tunnel.NACK_CODE_INGEST_FAILED, resource.KIND_KNOWLEDGE_BASE, name, error) from error
            log.info("knowledge_base.ingested", extra={names.RESOURCE: name, names.SIZE: report.chunks})

    @asynccontextmanager
    async def _tools_beside(self, configuration: Configuration) -> AsyncIterator[Change]:
        try:
            async with self._tools.begun(configuration.tool_servers) as change:
                yield change
        except ToolServerError as error:
            code = TOOL_NACKS[error.cause]
            raise _refused(code, resource.KIND_TOOL_SERVER, error.server, error) from error

    async def _let_go(self, before: Configuration, now: Configuration) -> None:
        await self._models.retain(now.models)
        for name in before.knowledge_bases.keys() - now.knowledge_bases.keys():
            await self._knowledge.remove(name)


def _new_servers(before: Configuration, now: Configuration) -> Sequence[str]:
    """Tool servers that were not there, or had another spec."""
    return [name for name, spec in now.tool_servers.items() if before.tool_servers.get(name) != spec]


def _refused(
    code: tunnel.NackCode.ValueType, kind: resource.Kind.ValueType, name: str, error: FaosError
) -> ConfigurationError:
    """The operator at the site reads the cause in the log; what goes up is a code."""
    fields = {names.KIND: resource.Kind.Name(kind), names.RESOURCE: name, names.CODE: error.code.code}
    log.error("configuration.refused", extra=fields | {names.CAUSE: error.what})
    return refusal(code, kind=kind, name=name)
