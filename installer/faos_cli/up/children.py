"""The control plane and the node as processes of their own."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from faos_cli.up.bound_child import GO
from faos_cli.up.errors import CHILD_ENDED
from faos_cli.up.layout import told_by_path
from faos_core.errors import SetupError

STOP_GRACE_S = 15.0  # what a node has to do takes 7 s at most (data_plane.tools), and the machine may be busy
LOG_LIMIT_BYTES = 16 << 20
TAIL_BYTES = 16 << 10


@dataclass(frozen=True, slots=True)
class Command:
    """What to run and what to call it."""

    title: str
    arguments: tuple[str, ...]  # of faos
    log: Path
    preload: str = "-"  # module to import ahead; the child then waits for `go`


class Child:
    """One process: started, told to go if it waits, stopped. It dies with this one in any case."""

    def __init__(self, command: Command) -> None:
        self.command = command
        self._process: asyncio.subprocess.Process | None = None
        self._log_start = 0
        self._began_s = 0.0

    @property
    def pid(self) -> int:
        """0 before it was started."""
        return self._process.pid if self._process else 0

    @property
    def age_s(self) -> float:
        """Since it was started last."""
        return time.monotonic() - self._began_s

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Call from the main thread: the kernel ties the child to the thread that started it."""
        module = (sys.executable, "-m", "faos_cli.up.bound_child", str(os.getpid()), self.command.preload)
        with told_by_path(self.command.log):
            trim(self.command.log)
            with self.command.log.open("ab") as log:
                self._log_start, self._began_s = log.tell(), time.monotonic()
                self._process = await asyncio.create_subprocess_exec(
                    *module,
                    *self.command.arguments,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C is for this process, which then stops them in order
                    env=os.environ | {"GRPC_VERBOSITY": "NONE", "NO_COLOR": "1"},
                )

    async def go(self) -> None:
        """Release a child that waits. It may be gone already: whoever waits for it to be ready is told why."""
        assert self._process
        assert self._process.stdin
        try:
            self._process.stdin.write(GO.encode())
            await self._process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            return

    async def ended(self) -> SetupError:
        """Wait until it has ended; what it said."""
        assert self._process
        await self._process.wait()
        return self.failure()

    def failure(self) -> SetupError:
        """Why it ended: its own last error, else its status."""
        status = self._process.returncode if self._process else None
        said = last_error(self._said())
        what, why, next_step = said or ("", ended_how(status), "Run the same command again.")
        fields = {"what": what, "why": why, "next_step": next_step, "log": self.command.log}
        return SetupError(CHILD_ENDED, title=self.command.title, **fields)

    async def stop(self) -> bool:
        """Ask, wait, insist. False when it had to be killed. Idempotent."""
        if not self.is_running:
            return True
        assert self._process
        self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), STOP_GRACE_S)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
            return False
        return True

    def _said(self) -> str:
        with self.command.log.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_start, size - TAIL_BYTES))
            return log.read().decode(errors="replace")


def trim(log: Path) -> None:
    """Keep one older log, once this one is long."""
    if log.exists() and log.stat().st_size > LOG_LIMIT_BYTES:
        log.replace(log.with_suffix(".1.log"))


def last_error(said: str) -> tuple[str, str, str] | None:
    """What, why and next of the last error that a command printed (see faos_cli.failures)."""
    lines = said.splitlines()
    for at in range(len(lines) - 3, -1, -1):
        what, why, next_step = lines[at : at + 3]
        if what.startswith("error: ") and why.startswith("  why:") and next_step.startswith("  next:"):
            parts = what.removeprefix("error: "), why.removeprefix("  why:"), next_step.removeprefix("  next:")
            return parts[0].strip(), parts[1].strip(), parts[2].strip()
    return None


def ended_how(status: int | None) -> str:
    if status is not None and status < 0:
        return f"It was ended by signal {signal.Signals(-status).name}."
    return f"It ended with status {status}."


async def stop_all(children: Sequence[Child]) -> list[Child]:
    """Stop them in this order, each within its grace; those that had to be killed."""
    return [child for child in children if not await child.stop()]
