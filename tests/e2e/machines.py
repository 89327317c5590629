"""Machines that share a cable and nothing else: network and mount namespaces, as an ordinary user.

Each has a network of its own (loopback, and one end of the cable), and a file system of its own: the software,
read-only, and private empty folders. What the test's own temporary folder holds is not seen from there.
"""

import contextlib
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.processes import ENVIRONMENT, Running, running
from tests.parts import ASSETS, ROOT
from tests.patience import PATIENCE_S

HOME = "/tmp/home"
HIDDEN = ("/tmp", "/var/tmp", "/run", "/dev/shm", "/home", "/root", "/srv", "/mnt", "/opt")
STAGE = "/mnt"  # one of the hidden folders, and there on every Linux (FHS 3.0 section 3.12)
READY = "machine is ready"


@dataclass(frozen=True)
class Machine:
    """A running one, held by the process `pid`."""

    pid: int
    address: str

    def command(self, *command: str) -> tuple[str, ...]:
        """The command as it is run there, in its home folder."""
        inside = f"cd {HOME} && exec {shlex.join(command)}"
        namespaces = ("--user", "--net", "--mount", "--preserve-credentials")
        return ("nsenter", "--target", str(self.pid), *namespaces, "--", "sh", "-c", inside)

    def run(self, *command: str, stdin: str = "", timeout_s: float = PATIENCE_S) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            self.command(*command),
            env=ENVIRONMENT | {"HOME": HOME},
            input=stdin,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=timeout_s,
        )

    @contextmanager
    def running(self, *command: str) -> Iterator[Running]:
        with running(*self.command(*command), cwd=Path("/"), environment={"HOME": HOME}) as process:
            yield process


def set_up(address: str) -> str:
    """Shell words that make the machine's own file system; the software stays where it is, read-only."""
    kept = sorted({Path(path).resolve() for path in (ROOT, ASSETS, sys.prefix, sys.base_prefix)})
    lines = ["set -e", f"mount -t tmpfs none {STAGE}"]
    for number, path in enumerate(kept):
        lines += [f"mkdir {STAGE}/{number}", f"mount --bind {shlex.quote(str(path))} {STAGE}/{number}"]
    lines += [f"exec 9<{STAGE}"]
    hidden = [folder for folder in HIDDEN if Path(folder).is_dir() and not Path(folder).is_symlink()]
    lines += [f"mount -t tmpfs none {folder}" for folder in hidden]
    for number, path in enumerate(kept):
        place = shlex.quote(str(path))
        lines += [f"mkdir -p {place}", f"mount --bind /proc/self/fd/9/{number} {place}"]
    lines += [f"mount -o remount,bind,ro {shlex.quote(str(path))}" for path in kept]
    return "\n".join(
        [*lines, "exec 9<&-", f"mkdir -p {HOME}", "ip link set lo up", f"echo {READY}", "exec sleep infinity"]
    )


@contextmanager
def two_machines() -> Iterator[tuple[Machine, Machine]]:
    """A cable between 10.77.0.1 and 10.77.0.2."""
    with contextlib.ExitStack() as stack:
        own_user = ("unshare", "--user", "--map-root-user", "--net", "--mount", "sh", "-c")
        first = stack.enter_context(held(*own_user, set_up("10.77.0.1")))
        same_user = ("nsenter", "--target", str(first), "--user", "--preserve-credentials")
        second = stack.enter_context(held(*same_user, "unshare", "--net", "--mount", "sh", "-c", set_up("10.77.0.2")))
        machines = Machine(first, "10.77.0.1"), Machine(second, "10.77.0.2")
        connect(*machines)
        yield machines


@contextmanager
def held(*command: str) -> Iterator[int]:
    """Pid of the process that holds the namespaces."""
    with running(*command, cwd=Path("/"), environment={"PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"}) as holder:
        holder.until(READY)
        yield holder.process.pid


def connect(first: Machine, second: Machine) -> None:
    must(first, "ip", "link", "add", "cable0", "type", "veth", "peer", "name", "cable1", "netns", str(second.pid))
    for machine, end in ((first, "cable0"), (second, "cable1")):
        must(machine, "ip", "address", "add", f"{machine.address}/24", "dev", end)
        must(machine, "ip", "link", "set", end, "up")


def must(machine: Machine, *command: str) -> str:
    done = machine.run(*command)
    assert done.returncode == 0, f"{shlex.join(command)}:\n{done.stdout}{done.stderr}"
    return done.stdout
