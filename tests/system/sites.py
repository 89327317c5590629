"""A site with its cloud in one process, over real sockets: `async with Site(nodes=3) as site: await site.converged()`.

Each node dials through a proxy of its own, which counts, cuts and holds what passes. Folders of a node's data may lie
on a small disk, which can be full, and its database may be PostgreSQL's. All of it is gone when the context is left.
"""

import asyncio
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from control_plane.fleet.frame_record import read_frames
from control_plane.settings import DATABASE_FILE
from data_plane.app import Node, node
from data_plane.ceiling.models import Ceiling
from data_plane.egress.ledger_verifier import Report, verify
from data_plane.egress.reader import read_leaves
from data_plane.egress.service import ledger_folder
from data_plane.identity.join import join
from data_plane.identity.store import Membership
from data_plane.settings import ApplyTimes, NodeSettings
from data_plane.telemetry.settings import TelemetrySettings
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core.clock import Clock
from tests.patience import PATIENCE_S
from tests.servers.databases import Databases
from tests.servers.small_disk import SmallDisk, small_disk
from tests.system.counting_proxy import Wire, counting_proxy
from tests.system.harness import TENANT, RunningControlPlane, running_control_plane
from tests.system.small_site import fill_small_site
from tunnel.identity import decode_join_string, encode_join_string

ENDED = (tunnel.APPLY_STATE_HEALTHY, tunnel.APPLY_STATE_REJECTED, tunnel.APPLY_STATE_ROLLED_BACK)
SMALL_DISK_BYTES = 8 << 20


@dataclass(slots=True)
class SiteNode:
    """One node: what it is, and itself while it runs."""

    settings: NodeSettings
    wire: Wire
    member: Membership
    clock: Clock | None
    disk: SmallDisk | None = None
    life: Node | None = None
    _stack: AsyncExitStack | None = None

    @property
    def name(self) -> str:
        return str(self.member.identity.node)

    @property
    def data_dir(self) -> Path:
        return self.settings.data_dir

    @property
    def running(self) -> Node:
        assert self.life, f"{self.name} does not run"
        return self.life

    def ledger(self) -> Report:
        """What its offline verifier says."""
        return verify(ledger_folder(self.data_dir))

    def left(self) -> list[bytes | None]:
        """Bodies of the ledger's leaves."""
        return [leaf.body for leaf in read_leaves(ledger_folder(self.data_dir))]

    async def start(self) -> Node:
        """Raises what ends a node at its start."""
        stack = AsyncExitStack()
        self.life = await stack.enter_async_context(node(self.settings, clock=self.clock))
        self._stack = stack
        return self.life

    async def stop(self) -> None:
        """Idempotent."""
        stack, self._stack, self.life = self._stack, None, None
        if stack:
            await stack.aclose()


class Site:
    """A running site. `plane` is its control plane; `nodes` are in the order in which they joined."""

    def __init__(
        self,
        folder: Path | None = None,
        *,
        nodes: int = 1,
        fill: Callable[[Path], Path] = fill_small_site,
        databases: Databases | None = None,
        on_small_disk: Sequence[str] = (),
        soak_s: float = 0.1,
        clock: Clock | None = None,
        node_clock: Clock | None = None,
        node_telemetry: TelemetrySettings | None = None,
        **settings: Any,
    ) -> None:
        """fill: writes the site's files into an empty folder; the path of its site.toml. on_small_disk:
        folders of each node's data ("ledger", "config") that `fill_disk` fills. clock: the control plane's, with its
        other settings."""
        self.plane: RunningControlPlane
        self.nodes: list[SiteNode] = []
        self._given_folder = folder
        self._node_count = nodes
        self._fill = fill
        self._databases = databases or Databases()
        self._on_small_disk = on_small_disk
        self._soak_s = soak_s
        self._node_clock = node_clock
        self._node_telemetry = node_telemetry or TelemetrySettings()
        self._settings = {"heartbeat_s": 1.0, "clock": clock, "database_url": self._databases.cloud} | settings
        self._stack = AsyncExitStack()
        self._cloud: AsyncExitStack | None = None
        self._address: str | None = None
        self._revision = 0

    async def __aenter__(self) -> "Site":
        try:
            self.folder = self._given_folder or Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
            self.site_toml = self._fill(self.folder / "site")
            await self.start_control_plane()
            self._stack.push_async_callback(self.stop_control_plane)
            await self.plane.create_tenant()
            for _ in range(self._node_count):
                await self._add_node()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def node(self) -> SiteNode:
        """The only one."""
        (only,) = self.nodes
        return only

    @property
    def database(self) -> str:
        """URL of the control plane's."""
        return self._databases.cloud or f"sqlite:///{self.folder / 'cp' / DATABASE_FILE}"

    async def _add_node(self) -> None:
        place = len(self.nodes)
        wire = await self._stack.enter_async_context(counting_proxy(self.plane.endpoints.tunnel_port))
        data_dir = self.folder / f"node-{place}"
        string = decode_join_string(await self.plane.join_string())
        string.addresses[:] = [f"127.0.0.1:{wire.port}"]
        member = await join(data_dir, encode_join_string(string), Ceiling())
        disk = self._small_disk(data_dir) if self._on_small_disk else None
        settings = NodeSettings(
            data_dir=data_dir,
            site_file=self.site_toml,
            database_url=self._databases.of_node(place),
            apply=ApplyTimes(soak_s=self._soak_s),
            telemetry=self._node_telemetry,
        )
        self.nodes.append(SiteNode(settings, wire, member, self._node_clock, disk))
        self._stack.push_async_callback(self.nodes[-1].stop)
        await self.nodes[-1].start()

    def _small_disk(self, data_dir: Path) -> SmallDisk:
        disk = self._stack.enter_context(small_disk(SMALL_DISK_BYTES))
        for name in self._on_small_disk:
            if (data_dir / name).exists():
                shutil.move(data_dir / name, disk.folder / name)
            else:
                (disk.folder / name).mkdir(mode=0o700)
            (data_dir / name).symlink_to(disk.folder / name)
        return disk

    # ---- what an operator does

    async def apply(self, *resources: Any) -> int:
        """The revision that stands now."""
        self._revision = int((await self.plane.apply(*resources, tenant=TENANT)).revision)
        return self._revision

    async def settled(
        self, place: int = 0, revision: int = 0, states: Sequence[tunnel.ApplyState.ValueType] = ENDED
    ) -> Any:
        """The node as the control plane's operator sees it, once the revision (0: the newest) has come to an end."""
        revision = revision or self._revision
        async with asyncio.timeout(PATIENCE_S):
            while True:
                seen = await self.facts(place)
                if seen.config.attempted_revision == revision and seen.config.state in states:
                    return seen
                await asyncio.sleep(0.05)

    async def converged(self, revision: int = 0) -> None:
        """Return when every running node has the newest revision (or this one), healthy, and the control plane knows.
        Fails with what it saw last."""
        for place, each in enumerate(self.nodes):
            if each.life and (revision or self._revision):
                await self._converged(place, revision or self._revision)

    async def _converged(self, place: int, revision: int) -> None:
        node, seen = self.nodes[place].running, await self.facts(place)
        give_up_s = time.monotonic() + PATIENCE_S
        while not (runs(node.applier.facts(), revision) and is_shown(seen.config, revision)):
            assert time.monotonic() < give_up_s, f"revision {revision}: {node.applier.facts()}{seen.config}"
            await asyncio.sleep(0.05)
            seen = await self.facts(place)

    async def facts(self, place: int = 0) -> Any:
        """The node as the control plane shows it."""
        return await self.plane.node(self.nodes[place].name)

    # ---- what happens to a site

    def cut(self, place: int = 0) -> None:
        """The node's connections break, and none comes up."""
        self.nodes[place].wire.cut()

    def hold(self, place: int = 0) -> None:
        """Nothing passes between the node and its control plane, and nobody says so."""
        self.nodes[place].wire.hold()

    def heal(self) -> None:
        """Every wire passes again, and every disk has room."""
        for each in self.nodes:
            each.wire.heal()
            if each.disk:
                each.disk.free()

    def fill_disk(self, place: int = 0) -> None:
        disk = self.nodes[place].disk
        assert disk, "Site(on_small_disk=[…]) gives nodes a disk that can be full"
        disk.fill()

    async def restart(self, place: int = 0, *, soak_s: float | None = None) -> Node:
        """soak_s: from now on; None leaves it as it is."""
        await (node := self.nodes[place]).stop()
        if soak_s is not None:
            node.settings = replace(node.settings, apply=ApplyTimes(soak_s=soak_s))
        return await node.start()

    async def restart_control_plane(self, **settings: Any) -> None:
        """On the same port; settings win over those that it had."""
        await self.stop_control_plane()
        await self.start_control_plane(**settings)

    async def start_control_plane(self, **settings: Any) -> None:
        stack, self._settings = AsyncExitStack(), self._settings | settings
        wanted = {"tunnel_listen": self._address, **self._settings}
        data_dir = wanted.pop("data_dir", self.folder / "cp")
        self.plane = await stack.enter_async_context(running_control_plane(data_dir, **wanted))
        self._address, self._cloud = self.plane.tunnel_address, stack

    async def stop_control_plane(self) -> None:
        """Idempotent."""
        stack, self._cloud = self._cloud, None
        if stack:
            await stack.aclose()

    # ---- what is left

    def received(self) -> list[bytes]:
        """Every body that came up through the tunnel, of all nodes."""
        return list(read_frames(self.plane.data_dir / "received-frames.bin"))


def runs(facts: tunnel.ConfigFacts, revision: int) -> bool:
    """By the node's own account."""
    return facts.running_revision == facts.healthy_revision == revision


def is_shown(config: Any, revision: int) -> bool:
    """As its operator sees it."""
    numbers = {config.attempted_revision, config.running_revision, config.healthy_revision}
    return numbers == {revision} and config.state == tunnel.APPLY_STATE_HEALTHY
