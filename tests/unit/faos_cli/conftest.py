import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.patience import PATIENCE_S
from tests.system.harness import RunningControlPlane, running_control_plane


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


RunFaos = Callable[..., Awaitable[Done]]


@pytest.fixture
def run_faos(tmp_path: Path) -> RunFaos:
    """`faos …` as a user runs it, in the test's folder: (arguments, *, stdin="")."""

    async def run(*arguments: str, stdin: str = "") -> Done:
        folders = {"XDG_CONFIG_HOME": str(tmp_path / "config"), "XDG_STATE_HOME": str(tmp_path / "state")}
        environment = os.environ | folders
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "faos_cli",
            *arguments,
            cwd=tmp_path,
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(PATIENCE_S):
            out, err = await process.communicate(stdin.encode())
        return Done(process.returncode or 0, out.decode(), err.decode())

    return run


def context_of(plane: RunningControlPlane, **more: str) -> dict[str, str]:
    """What `.faos/context.json` says about a control plane of the harness."""
    return {
        "admin_address": f"127.0.0.1:{plane.endpoints.admin_port}",
        "ca_file": str(plane.data_dir / "ca" / "ca.pem"),
        "token_file": str(plane.data_dir / "admin.token"),
        **more,
    }


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[RunningControlPlane]:
    """A real control plane without a tenant, and the context that leads to it."""
    async with running_control_plane(tmp_path / "cp") as running:
        folder = tmp_path / ".faos"
        folder.mkdir()
        (folder / "context.json").write_text(json.dumps(context_of(running)))
        yield running
