"""Programs of others that our figures are held against, and the model server that both ask.

They lie beside the checkout in shared/peers, or where FAOS_PEERS says, and are started, never imported. What a
benchmark cannot have it names and does without.
"""

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PYTHON = ROOT / ".cache" / "tools" / "bench-langgraph" / "bin" / "python"
LOCK = ROOT / "requirements" / "bench-langgraph.lock"
UV = ROOT / ".cache" / "uv" / "bin" / "uv"
PUSHBENCH = ROOT / ".cache" / "build" / "pushbench"
START_S = 20.0


class MissingPeerError(Exception):
    """A peer cannot be run here; says why, in words for the report."""


def folder() -> Path:
    """Raises MissingPeerError."""
    found = Path(os.environ.get("FAOS_PEERS") or ROOT.parent / "shared" / "peers")
    if not found.is_dir():
        raise MissingPeerError("no peers beside the checkout (FAOS_PEERS=DIR says where they are)")
    return found


def python() -> Path:
    """The interpreter of an environment with LangGraph in it, made by hash at first use. Raises MissingPeerError."""
    stamp = PYTHON.parents[1] / "lock"
    if stamp.exists() and stamp.read_text() == LOCK.read_text():
        return PYTHON
    commands = (
        [UV, "venv", "--quiet", "--clear", "--python", ROOT / ".venv" / "bin" / "python", PYTHON.parents[1]],
        [UV, "pip", "install", "--quiet", "--python", PYTHON, "--require-hashes", "-r", LOCK],
    )
    for command in commands:
        if subprocess.run([str(word) for word in command], cwd=ROOT).returncode != 0:
            raise MissingPeerError("the environment of LangGraph could not be made (see above)")
    stamp.write_text(LOCK.read_text())
    return PYTHON


@contextmanager
def stub_model_server() -> Iterator[str]:
    """A model server that answers at once; its URL. Raises MissingPeerError."""
    program, port = folder() / "stub_server.py", free_port()
    process = subprocess.Popen([python(), program, "--port", str(port)], stdout=subprocess.DEVNULL)
    try:
        wait_until_open(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def langgraph(url: str, *arguments: str, limit_s: float = 90.0) -> dict[str, Any]:
    """One measurement of LangGraph with its SQLite checkpoints. Raises MissingPeerError."""
    command = [python(), folder() / "bench_agents.py", "--peer", "langgraph+sqlite", "--base", url, "--uvloop"]
    return measured([*map(str, command), *arguments, "--limit", str(limit_s)], limit_s=limit_s + 60)


def pushbench(*arguments: str, limit_s: float = 180.0) -> dict[str, Any]:
    """One measurement of go-control-plane. Raises MissingPeerError."""
    return measured([str(built_pushbench()), "server", *arguments], limit_s=limit_s)


def built_pushbench() -> Path:
    """Built anew when its sources changed. Raises MissingPeerError."""
    source, go = folder() / "go-control-plane", shutil.which("go")
    if go is None:
        raise MissingPeerError("go-control-plane: there is no Go here to build it with")
    if PUSHBENCH.exists() and PUSHBENCH.stat().st_mtime > max(file.stat().st_mtime for file in source.iterdir()):
        return PUSHBENCH
    PUSHBENCH.parent.mkdir(parents=True, exist_ok=True)
    if subprocess.run([go, "build", "-o", PUSHBENCH, "."], cwd=source).returncode != 0:
        raise MissingPeerError("go-control-plane: it could not be built (see above)")
    return PUSHBENCH


def measured(command: Sequence[str], *, limit_s: float) -> dict[str, Any]:
    """The last line of what it writes, as JSON. Raises MissingPeerError."""
    name = Path(command[1]).name if command[1].endswith(".py") else Path(command[0]).name
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, timeout=limit_s, text=True)
    except subprocess.TimeoutExpired as error:
        raise MissingPeerError(f"{name}: not done after {limit_s:.0f} s") from error
    if done.returncode != 0 or not done.stdout.strip():
        raise MissingPeerError(f"{name}: it ended with status {done.returncode}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def wait_until_open(port: int) -> None:
    """Raises MissingPeerError."""
    until_s = time.monotonic() + START_S
    while time.monotonic() < until_s:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise MissingPeerError(f"the stub model server did not open its port in {START_S:.0f} s")
