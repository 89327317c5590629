"""Real processes that faults strike: a control plane over PostgreSQL, and nodes, each on a machine of its own.

All of it lives in the namespaces of one process (see __main__): a cable for each node, a small disk for its data, and a
clock that can be set.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_plane.ceiling.models import Ceiling
from data_plane.identity.join import join
from faos.admin.v1 import admin_pb2 as admin
from faos_cli import admin_client, site_client
from faos_cli.context import read_context
from tests.e2e.processes import FAOS, Running, bytecode_apart, running
from tests.parts import libfaketime
from tests.servers import stub_model
from tests.servers.postgres import PostgresServer
from tests.servers.small_disk import SmallDisk
from tests.system.small_site import fill_small_site, toml_table

TENANT = "chaos"
TUNNEL_PORT, ADMIN_PORT, MODEL_PORT = 7443, 7444, 11434
DISK_BYTES = 64 << 20
HEARTBEAT_S = 1.0
START_S = 150.0  # a busy machine is slow, not wrong
PATH = os.environ["PATH"] + ":/usr/sbin:/sbin"


class DiedError(Exception):
    """A process ended, and no fault ended it."""


@dataclass(slots=True)
class Process:
    """A program that is started, struck and started again. `said` is all that its lives have said."""

    name: str
    command: tuple[str, ...]
    ready: str
    folder: Path
    clock: Path  # file that its clock reads its offset from
    life: Running | None = None
    lives: int = 0
    expected_dead: bool = False
    _stack: ExitStack = field(default_factory=ExitStack)

    @property
    def pid(self) -> int:
        assert self.life
        return self.life.process.pid

    def launch(self) -> Running:
        """Start it; it is not ready yet."""
        assert self.life is None
        self.life = self._stack.enter_context(running(*self.command, cwd=self.folder, environment=self._environment()))
        self.lives += 1
        return self.life

    async def start(self) -> None:
        """Raises AssertionError with what it said when it does not come up."""
        life = self.launch()
        await asyncio.to_thread(life.until, self.ready, START_S)

    async def kill(self) -> None:
        """kill -9, from wherever it is."""
        if self.life:
            self.life.process.kill()
            await self.ended()

    async def ended(self) -> str:
        """What the life said, once it is over."""
        assert self.life
        await asyncio.to_thread(self.life.process.wait, START_S)
        life, self.life = self.life, None
        await asyncio.to_thread(self._stack.close)
        with (self.folder / f"{self.name}.log").open("a") as log:
            log.write(f"---- life {self.lives}\n{life.text}")
        return life.text

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def check_alive(self) -> None:
        """Raises DiedError."""
        if self.life is None or self.life.process.poll() is not None:
            said = self.life.text[-2000:] if self.life else ""
            raise DiedError(f"{self.name} ended by itself; it said:\n{said}")

    def set_clock(self, offset: str) -> None:
        """offset: "+1d", "-1d" or "+0"; it takes a second."""
        self.clock.write_text(offset + "\n")

    def _environment(self) -> dict[str, str]:
        library = libfaketime()
        if library is None:
            return {}
        return bytecode_apart("-chaos") | {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self.clock),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }


@dataclass(slots=True)
class ChaosNode:
    """A node's machine: namespace, cable, disk, model server."""

    place: int
    holder: int  # pid whose network namespace it is
    disk: SmallDisk
    folder: Path
    name: str = ""
    process: Process = None  # type: ignore[assignment]  # made once it has joined
    redated_s: list[float] = field(default_factory=list)  # when it was started under another date (monotonic)

    @property
    def data_dir(self) -> Path:
        return self.disk.folder / "node"

    @property
    def cloud_address(self) -> str:
        return f"10.77.{self.place}.1:{TUNNEL_PORT}"

    @property
    def turns(self) -> Path:
        """What its model answered."""
        return self.folder / "turns.jsonl"

    def inside(self, *command: str) -> tuple[str, ...]:
        return ("nsenter", f"--net=/proc/{self.holder}/ns/net", "--", *command)

    def set_cable(self, *, end: str, is_up: bool) -> None:
        """end: "node": it is told that there is no network; "cloud": what it sends vanishes."""
        state = "up" if is_up else "down"
        if end == "node":
            must(*self.inside("ip", "link", "set", "cable", state))
        else:
            must("ip", "link", "set", f"cable{self.place}", state)


@dataclass(slots=True)
class Fleet:
    folder: Path
    database: PostgresServer
    database_url: str
    cloud: Process
    nodes: list[ChaosNode]
    client: admin_client.AdminClient

    def processes(self) -> list[Process]:
        return [self.cloud, *(node.process for node in self.nodes)]

    async def node(self, node: ChaosNode) -> Any:
        """As the control plane shows it. Raises FaosError."""
        request = admin.GetNodeRequest(tenant=TENANT, name=node.name)
        return (await self.client.call(self.client.nodes.GetNode, request)).node


@asynccontextmanager
async def fleet(folder: Path, *, nodes: int) -> AsyncIterator[Fleet]:
    """Everything up, every node joined. Needs to be root of its own user, network and mount namespace."""
    async with AsyncExitStack() as stack:
        must("ip", "link", "set", "lo", "up")
        database = await asyncio.to_thread(PostgresServer.create)
        stack.callback(database.remove)
        url = database.url(stack.enter_context(database.database()))
        machines = [machine(folder / f"node-{place}", place, stack) for place in range(nodes)]
        cloud = cloud_process(folder / "cp", url)
        await cloud.start()
        stack.push_async_callback(cloud.kill)
        context = read_context(folder / "cp" / "context.json")
        client = await stack.enter_async_context(admin_client.connect(context))
        made = Fleet(folder, database, url, cloud, machines, client)
        await client.call(client.tenants.CreateTenant, admin.CreateTenantRequest(name=TENANT))
        for node in machines:
            await enrol(made, node)
            stack.push_async_callback(node.process.kill)
        await asyncio.gather(*(node.process.start() for node in machines))
        yield made


def cloud_process(folder: Path, url: str) -> Process:
    folder.mkdir(mode=0o700)
    settings = folder / "control-plane.toml"
    settings.write_text(
        f'data_dir = "{folder}"\ntunnel_listen = "0.0.0.0:{TUNNEL_PORT}"\nadmin_listen = "127.0.0.1:{ADMIN_PORT}"\n'
        f'database_url = "{url}"\nheartbeat_s = {HEARTBEAT_S}\n'
    )
    command = (*FAOS, "control-plane", "run", "--config", str(settings))
    return Process("control-plane", command, "control_plane.ready", folder, clock_file(folder))


def clock_file(folder: Path) -> Path:
    file = folder / "clock"
    file.write_text("+0\n")
    return file


def machine(folder: Path, place: int, stack: AsyncExitStack) -> ChaosNode:
    """A network namespace with a cable to ours, a disk, and a model server."""
    (folder / "disk").mkdir(parents=True)
    must("mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(folder / "disk"))
    script = "ip link set lo up && echo up && exec sleep infinity"
    holder = stack.enter_context(
        running("unshare", "--net", "--", "sh", "-c", script, cwd=folder, environment={"PATH": PATH})
    )
    holder.until("up")
    node = ChaosNode(place, holder.process.pid, SmallDisk(folder / "disk"), folder)
    must("ip", "link", "add", f"cable{place}", "type", "veth", "peer", "name", "cable", "netns", str(node.holder))
    for command, end, host in ((("ip",), f"cable{place}", 1), (node.inside("ip"), "cable", 2)):
        must(*command, "address", "add", f"10.77.{place}.{host}/24", "dev", end)
        must(*command, "link", "set", end, "up")
    stub = (sys.executable, stub_model.__file__, str(MODEL_PORT), str(node.turns))
    node.turns.touch()
    stack.enter_context(running(*node.inside(*stub), cwd=folder)).until("stub is ready")
    return node


async def enrol(made: Fleet, node: ChaosNode) -> None:
    """A site of its own, so that one node's faults are one site's."""
    client, site = made.client, f"site-{node.place}"
    await client.call(client.tenants.CreateSite, admin.CreateSiteRequest(tenant=TENANT, name=site))
    request = admin.CreateJoinTokenRequest(tenant=TENANT, site=site, ttl_seconds=600, addresses=[node.cloud_address])
    answer = await client.call(client.nodes.CreateJoinToken, request)
    member = await join(node.data_dir, answer.join_string, Ceiling())
    node.name = member.identity.node
    command = node.inside(*FAOS, "node", "run", "--config", str(node_settings(node)))
    node.process = Process(f"node-{node.place}", command, "node.ready", node.folder, clock_file(node.folder))


def node_settings(node: ChaosNode) -> Path:
    site_toml = fill_small_site(node.folder / "site")
    endpoint = {"url": f"http://127.0.0.1:{MODEL_PORT}", "data_class": "customer"}
    with site_toml.open("a") as file:
        file.write(f'\n{toml_table("endpoints.box", endpoint)}\n[doors]\nremote-model = "customer"\n')
    settings = node.folder / "node.toml"
    settings.write_text(
        f'data_dir = "{node.data_dir}"\nsite_file = "{site_toml}"\ndial_again_s = 2.0\n[apply]\nsoak_s = 0.3\n'
    )
    return settings


def must(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PATH": PATH}, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


@asynccontextmanager
async def local_client(node: ChaosNode) -> AsyncIterator[site_client.SiteClient]:
    """Of the node's own API."""
    async with site_client.connect(node.data_dir) as client:
        yield client
