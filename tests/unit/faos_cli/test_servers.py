"""faos control-plane run, faos node run and faos model fetch as processes."""

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from faos_cli.commands.model import one_line_each
from tests.parts import ASSETS, ROOT
from tests.patience import PATIENCE_S

if TYPE_CHECKING:
    from tests.unit.faos_cli.conftest import RunFaos


async def test_control_plane_runs_leaves_a_context_and_stops_cleanly(run_faos: "RunFaos", tmp_path: Path) -> None:
    """The two-machine way begins here: run it, and `--context DIR` is all that the other commands need."""
    command = (
        "control-plane",
        "run",
        "--data",
        "cp",
        "--tunnel-listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "faos_cli", *command, cwd=tmp_path, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr
    async with asyncio.timeout(PATIENCE_S):
        while json.loads(await process.stderr.readline())["event"] != "control_plane.ready":
            pass
        made = await run_faos("--context", "cp", "tenant", "create", "mercy")
        again = await run_faos("control-plane", "run", "--data", "cp", "--config", "absent.toml")
        process.send_signal(signal.SIGINT)
        rest = await process.stderr.read()
        code = await process.wait()

    assert made.out == "tenant/mercy created\n"
    assert (again.code, "absent.toml" in again.err) == (1, True)
    assert code == 0
    assert b"Traceback" not in rest


@pytest.mark.slow
async def test_node_that_never_joined_says_what_to_do(run_faos: "RunFaos", tmp_path: Path) -> None:
    """Somebody starts the node first: the error leads to `faos join`, without a traceback."""
    (tmp_path / "node").mkdir()

    done = await run_faos("node", "run", "--data", "node")

    assert done.code == 1
    assert "error:" in done.err
    assert "Traceback" not in done.err


@pytest.mark.needs("model", "embedder")
async def test_model_fetch_finds_what_is_there(run_faos: "RunFaos") -> None:
    """A second `make up` must be warm: files that are there are verified, never fetched."""
    done = await run_faos("model", "fetch", "--to", str(ASSETS.absolute()))
    quiet = await run_faos("model", "fetch", "--to", str(ASSETS.absolute()), "--quiet")

    assert done.code == 0
    assert [Path(line).exists() for line in done.out.splitlines()] == [True] * 3
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")


def test_progress_without_terminal_is_one_line_per_file(capsys: pytest.CaptureFixture[str]) -> None:
    """A CI log with ten thousand progress lines is no log."""
    on_progress = one_line_each()

    for done in (0, 50, 100):
        on_progress("language model", done, 92_871_040)

    assert capsys.readouterr().err == "Fetching the language model, 93 MB …\n"


def test_commands_in_the_quickstart_exist(capsys: pytest.CaptureFixture[str]) -> None:
    """Every command shown to a newcomer is one that the program has."""
    from faos_cli.__main__ import COMMANDS

    text = (ROOT / "examples" / "quickstart" / "README.md").read_text()
    shown = {line.split()[1] for line in text.splitlines() if line.startswith("    faos ")}

    assert shown
    assert shown <= {name for group in COMMANDS.values() for name in group}
