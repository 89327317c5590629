"""Completion: what a shell gets when somebody presses Tab."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from faos.resource.v1 import resource_pb2 as pb
from faos_cli import completion
from faos_cli.listings import LISTINGS
from tests.system.harness import RunningControlPlane


async def completed(folder: Path, *words: str) -> list[str]:
    """The values offered for the last of these words, as bash asks for them."""
    asked = {
        "_FAOS_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(("faos", *words)),
        "COMP_CWORD": str(len(words)),
        "XDG_CONFIG_HOME": str(folder / "config"),
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "faos_cli"), env=os.environ | asked, cwd=folder, stdout=subprocess.PIPE
    )
    out, _ = await process.communicate()
    return [line.partition(",")[2] for line in out.decode().splitlines() if line]


async def asked_for(folder: Path, *words: str) -> list[str]:
    """As a person does who presses Tab again: a busy machine may need longer than completion waits for an answer."""
    for _ in range(6):
        if found := await completed(folder, *words):
            return found
    return []


def test_kinds_are_those_of_get() -> None:
    """The list by heart must be the true one."""
    assert set(completion.KINDS) == {listing.plural for listing in LISTINGS}
    assert set(completion.RESOURCES) == {listing.plural for listing in LISTINGS if listing.kind}


async def test_commands_kinds_and_names_are_completed(plane: RunningControlPlane, tmp_path: Path) -> None:
    """Names come from the control plane, as it stands."""
    await plane.create_tenant()
    resources = [
        pb.Resource(metadata=pb.Metadata(name=name), knowledge_base=pb.KnowledgeBase(folder="docs"))
        for name in ("handbook", "forms")
    ]
    await plane.apply(*resources)

    assert await completed(tmp_path, "ro") == ["rollback"]
    assert await completed(tmp_path, "get", "k") == ["knowledgebases"]
    assert await asked_for(tmp_path, "get", "kb", "") == ["forms", "handbook"]
    assert await asked_for(tmp_path, "delete", "knowledgebase", "forms", "") == ["handbook"]
    assert await asked_for(tmp_path, "get", "tenants", "") == ["mercy"]
    assert await asked_for(tmp_path, "rollback", "") == ["1"]


async def test_silence_where_nobody_answers(tmp_path: Path) -> None:
    """A shell that hangs, or prints errors into the line that is being typed, is worse than one without completion."""
    (tmp_path / ".faos").mkdir()
    (tmp_path / ".faos" / "context.json").write_text(
        '{"admin_address": "192.0.2.1:9", "ca_file": "x", "token_file": "x"}'
    )
    began = time.monotonic()

    assert await completed(tmp_path, "get", "agents", "") == []
    assert await completed(tmp_path / ".faos", "get", "nothing", "") == []
    assert time.monotonic() - began < 30


async def test_contexts_are_completed(tmp_path: Path) -> None:
    """Names of the user's own file, and nothing where it is damaged."""
    (folder := tmp_path / "config" / "faos").mkdir(parents=True)
    (folder / "contexts.json").write_text('{"contexts": {"prod": {}, "lab": {}}}')

    assert await completed(tmp_path, "context", "use", "p") == ["prod"]
    assert await completed(tmp_path, "--context", "") == ["lab", "prod"]
    (folder / "contexts.json").write_text("{")
    assert await completed(tmp_path, "context", "use", "") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_is_the_shells_own(shell: str) -> None:
    """`source <(faos completion bash)` must be all that there is to do."""
    done = subprocess.run(
        [sys.executable, "-m", "faos_cli", "completion", shell], capture_output=True, text=True, check=True
    )

    assert "_FAOS_COMPLETE=" + shell in done.stdout
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=done.stdout, text=True, check=True)


BASH = """
source <(faos completion bash)
complete -p faos > /dev/null || exit 1
press() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _faos_completion faos; echo "${COMPREPLY[@]}"; }
press faos rollb
press faos node re
press faos get kn
"""


def test_pressing_tab_in_a_real_bash_completes(tmp_path: Path) -> None:
    """The script, the shell and the program together, as somebody who sourced it once has them."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    environment = os.environ | {"PATH": path, "XDG_CONFIG_HOME": str(tmp_path)}

    done = subprocess.run(
        ["bash", "--norc", "-c", BASH], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )

    assert done.stdout.splitlines() == ["rollback", "readmit revoke", "knowledgebases"]
    assert done.stderr == ""
