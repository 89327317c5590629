"""Real `faos` processes for tests: started, read line by line, signalled, and gone when the test is."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.parts import ASSETS, ROOT
from tests.patience import PATIENCE_S
from tests.ports import own_port

FAOS = (sys.executable, "-m", "faos_cli")
ENVIRONMENT = os.environ | {"FAOS_ASSETS": str(ASSETS), "NO_COLOR": "1", "COLUMNS": "200"}


def bytecode_apart(clock: str) -> dict[str, str]:
    """Under a wrong clock the sources' dates are others too: what such a process keeps of them is void for the rest,
    and the other way round, so that each would compile them again."""
    return {"PYTHONPYCACHEPREFIX": str(ROOT / ".cache" / f"bytecode{clock}")}


@dataclass
class Running:
    """A process and everything that it has said so far."""

    process: "subprocess.Popen[str]"
    lines: list[str] = field(default_factory=list)
    _said: threading.Condition = field(default_factory=threading.Condition)

    @property
    def text(self) -> str:
        return "".join(self.lines)

    def read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            with self._said:
                self.lines.append(line)
                self._said.notify_all()
        with self._said:
            self._said.notify_all()

    def until(self, pattern: str, timeout_s: float = PATIENCE_S) -> re.Match[str]:
        """The first match in what was said. Fails when the process ends or the time is up without it."""
        deadline = time.monotonic() + timeout_s
        with self._said:
            while not (match := re.search(pattern, self.text)):
                left_s = deadline - time.monotonic()
                assert left_s > 0, f"{pattern!r} did not come within {timeout_s} s; it said:\n{self.text}"
                assert self.process.poll() is None, f"it ended before {pattern!r}; it said:\n{self.text}"
                self._said.wait(min(left_s, 0.2))
        return match

    def end(self, number: int = signal.SIGINT, timeout_s: float = PATIENCE_S) -> int:
        """Send the signal; the exit code. Fails when that takes longer."""
        self.process.send_signal(number)
        return self.process.wait(timeout_s)


@contextmanager
def running(*command: str, cwd: Path, environment: Mapping[str, str] | None = None) -> Iterator[Running]:
    """A command whose output is read as it comes; killed when the block is left."""
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env={**ENVIRONMENT, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )
    seen = Running(process)
    reader = threading.Thread(target=seen.read)
    reader.start()
    try:
        yield seen
    finally:
        process.kill()
        process.wait()
        reader.join(PATIENCE_S)
        assert process.stdout
        process.stdout.close()


def finished(
    *command: str, cwd: Path, environment: Mapping[str, str] | None = None, timeout_s: float = PATIENCE_S
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end."""
    return subprocess.run(
        command,
        cwd=cwd,
        env={**ENVIRONMENT, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=timeout_s,
    )


def faos(*arguments: str, cwd: Path, **how: Any) -> "subprocess.CompletedProcess[str]":
    return finished(*FAOS, *arguments, cwd=cwd, **how)


def up_once(folder: Path, *arguments: str, **how: Any) -> dict[str, Any]:
    """`faos up --once` in this folder, which must succeed: what --json wrote."""
    file = folder / "up.json"
    done = faos("up", "--once", "--data", "d", "--json", str(file), *arguments, cwd=folder, **how)
    assert done.returncode == 0, done.stdout + done.stderr
    facts: dict[str, Any] = json.loads(file.read_text())
    return facts | {"said": done.stdout}


def fresh_ports() -> tuple[str, ...]:
    """Options for two ports of this test process, so that tests side by side do not meet at the usual ones."""
    return "--tunnel-port", str(own_port()), "--admin-port", str(own_port())


@contextmanager
def taken_port(wanted: int = 0) -> Iterator[int]:
    """A port with somebody listening on it: the wanted one if it is free or is taken already, else any."""
    with socket.socket() as holder:
        with contextlib.suppress(OSError):
            holder.bind(("127.0.0.1", wanted))
            holder.listen(1)
        yield wanted or holder.getsockname()[1]


def processes_with(*words: str) -> list[int]:
    """Pids of the living processes whose command line has every one of these words."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            arguments = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if all(word in arguments for word in words) and "Z" not in (folder / "stat").read_text().split()[2]:
                found.append(int(folder.name))
    return found


def eventually_none_with(*words: str, timeout_s: float = PATIENCE_S) -> None:
    """Return when no such process is left."""
    deadline = time.monotonic() + timeout_s
    while left := processes_with(*words):
        assert time.monotonic() < deadline, f"still there: {left}"
        threading.Event().wait(0.05)
