"""A child process of test_config_kill: applies a series of offers and dies where it is told.

    python config_kill_child.py FOLDER [TRIAL:CRASH_AT ...]

FOLDER holds root.json and offers/<n>. Without trials the child applies them in FOLDER, never crashing, and says
"point NAME" at each disk operation and a line for each state that has become durable. With trials it does so once for
each, in a process forked for it, in FOLDER/TRIAL, saying it to FOLDER/TRIAL/said: that process kills itself before
disk operation CRASH_AT, counted from 1 (0: never).
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

from data_plane.link.applier import Applier, ApplySettings, NodeScope
from data_plane.link.apply_machine import TERMINAL
from data_plane.link.config_store import ConfigStore
from data_plane.link.interfaces import Configuration
from data_plane.link.trust import Trust
from faos.tunnel.v1.tunnel_pb2 import APPLY_STATE_HEALTHY, ConfigOffer
from faos_core.clock import SystemClock
from faos_core.disk import Disk
from faos_core.errors import NotFoundError, define
from faos_core.lifecycle import running
from tests.fixtures.resources_of_a_site import CEILING, LABELS
from tests.fixtures.tuf_publisher import TENANT

NOWHERE = define("test.blob_nowhere", what="No blob.", why="A test.", next_step="None.")


class DyingDisk(Disk):
    """Counts operations, and is killed before one of them."""

    def __init__(self, crash_at: int) -> None:
        self.crash_at = crash_at
        self.count = 0

    def point(self, name: str) -> None:
        self.count += 1
        say(f"point {name}")
        if self.count == self.crash_at:
            os.kill(os.getpid(), signal.SIGKILL)


class Plant:
    """Activates in no time."""

    def __init__(self) -> None:
        self.active = Configuration()

    async def activate(self, configuration: Configuration) -> None:
        self.active = configuration

    def running(self) -> Configuration:
        return self.active


class NoBlobs:
    async def get(self, sha256: bytes) -> bytes:
        raise NotFoundError(NOWHERE)


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())  # unbuffered: a kill loses nothing that was said


async def main(folder: Path, crash_at: int) -> None:
    plant = Plant()
    applier = Applier(
        store=ConfigStore(folder / "config", disk=DyingDisk(crash_at)),
        trust=Trust((folder / "root.json").read_bytes()),
        activation=plant,
        health=lambda: None,
        blobs=NoBlobs(),
        ceiling=CEILING,
        scope=NodeScope(TENANT, LABELS),
        clock=SystemClock(),
        settings=ApplySettings(soak_s=0.0, most_deaths=1000),  # being killed is what the tests do
    )
    async with running([applier]):
        say(f"started {plant.running().revision}")
        for path in sorted((folder / "offers").iterdir()):
            await applier.offer(ConfigOffer.FromString(path.read_bytes()))
            async for status in applier.statuses:
                if status.state in TERMINAL:
                    break
            if status.state == APPLY_STATE_HEALTHY:
                say(f"healthy {status.revision}")
        say("done")


def try_it(trial: Path, crash_at: int) -> None:
    """One run in a process of its own; imports are paid once. Safe: nothing has started a thread yet."""
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return
    os.fsync = lambda descriptor: None  # a killed process leaves the page cache; hundreds of trials wait for no disk
    with (trial / "said").open("wb") as said:
        os.dup2(said.fileno(), 1)
    asyncio.run(main(trial, crash_at))
    os._exit(0)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    if trials := [argument.split(":") for argument in sys.argv[2:]]:
        for name, crash_at in trials:
            try_it(folder / name, int(crash_at))
    else:
        asyncio.run(main(folder, 0))
