"""The switch from one configuration to the next: what is new starts beside what runs, and replaces it last."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from data_plane.activation import NodeActivation
from data_plane.ceiling.models import Ceiling, DoorCeiling, Endpoint, Folder
from data_plane.egress.identifiers import KnownIdentifiers
from data_plane.egress.service import Egress, open_egress
from data_plane.link.interfaces import Configuration, ConfigurationError
from data_plane.models.errors import CLOSED
from data_plane.tools.broker import ToolServers
from faos.resource.v1 import resource_pb2 as pb
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core.errors import UnavailableError
from tests.patience import PATIENCE_S
from tests.servers.rogue_mcp import RogueMcp, rogue_mcp


@dataclass
class SlowModels:
    """Loads when it is let."""

    loading: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    fails: bool = False

    async def load(self, models: Mapping[str, pb.Model]) -> None:
        self.loading.set()
        await self.go_on.wait()
        if self.fails:
            raise UnavailableError(CLOSED)

    async def retain(self, models: Mapping[str, pb.Model]) -> None: ...


class EmptyKnowledge:
    async def remove(self, name: str) -> None: ...


@dataclass
class Node:
    activation: NodeActivation
    models: SlowModels
    tools: ToolServers
    rogue: RogueMcp


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with rogue_mcp() as rogue:
        ceiling = Ceiling(
            endpoints={"box": Endpoint("box", rogue.url, DoorCeiling.CUSTOMER)},
            folders={"handbook": Folder("handbook", tmp_path)},
        )
        models = SlowModels()
        async with open_egress(tmp_path, ceiling) as egress, over(egress) as tools:
            activation = NodeActivation(
                ceiling,
                models=models,  # type: ignore[arg-type]  # what activation needs of a catalogue
                tools=tools,
                knowledge=EmptyKnowledge(),  # type: ignore[arg-type]  # likewise
                identifiers=KnownIdentifiers(),
            )
            yield Node(activation, models, tools, rogue)


def over(egress: Egress) -> ToolServers:
    return ToolServers(egress.ceiling, isolations=[], open_door=egress.http_door)


def configuration(revision: int, *tools: str, timeout_s: int = 5) -> Configuration:
    spec = pb.ToolServer(endpoint="box", allowed_tools=tools, call_timeout_seconds=timeout_s)
    return Configuration(revision=revision, models={"small": pb.Model()}, tool_servers={"box": spec})


def offered(node: Node) -> list[str]:
    return [definition.name for definition in node.tools.definitions(["box"])]


async def test_tool_servers_start_while_models_load_and_replace_nothing_before(node: Node) -> None:
    """Two seconds of a first answer; and a call in the meantime must still meet what it was planned with."""
    node.models.go_on.set()
    await node.activation.activate(configuration(1, "fine"))
    node.models.go_on.clear()

    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
        group.create_task(node.activation.activate(configuration(2, "fine", "dies")))
        while node.rogue.methods.count("tools/list") < 2:
            await asyncio.sleep(0.01)
        assert (offered(node), node.activation.running().revision) == (["fine"], 1)
        node.models.go_on.set()

    assert (offered(node), node.activation.running().revision) == (["dies", "fine"], 2)


async def test_failure_elsewhere_drops_what_was_started(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    """What runs goes on untouched, and nothing of the refused revision is left behind."""
    caplog.set_level(logging.INFO)
    node.models.go_on.set()
    await node.activation.activate(configuration(1, "fine"))
    node.models.go_on.clear()
    node.models.fails = True

    activating = asyncio.ensure_future(node.activation.activate(configuration(2, "fine", "dies")))
    async with asyncio.timeout(PATIENCE_S):
        while caplog.messages.count("tool_server.ready") < 2:
            await asyncio.sleep(0.01)
    node.models.go_on.set()
    with pytest.raises(ConfigurationError) as refused:
        await activating

    assert refused.value.nack.code == tunnel.NACK_CODE_MODEL_LOAD_FAILED
    assert (offered(node), node.activation.running().revision) == (["fine"], 1)
    async with asyncio.timeout(PATIENCE_S):
        while node.rogue.methods.count("DELETE") < 1:
            await asyncio.sleep(0.01)


async def test_cancelled_activation_leaves_what_ran(node: Node) -> None:
    """A newer revision preempts one that is stuck in loading a model."""
    node.models.go_on.set()
    await node.activation.activate(configuration(1, "fine"))
    node.models.go_on.clear()
    node.models.loading.clear()

    activating = asyncio.ensure_future(node.activation.activate(configuration(2, "fine", "dies")))
    await node.models.loading.wait()
    activating.cancel()
    await asyncio.wait([activating])

    assert (offered(node), node.activation.running().revision) == (["fine"], 1)


async def test_tool_server_that_does_not_start_is_told_by_name(node: Node) -> None:
    """Also when everything else was good."""
    node.models.go_on.set()

    with pytest.raises(ConfigurationError) as refused:
        await node.activation.activate(configuration(1, "absent"))

    assert (refused.value.nack.code, refused.value.nack.resource_name) == (tunnel.NACK_CODE_TOOL_NOT_OFFERED, "box")
    assert node.activation.running().revision == 0
