"""Processes that start, say why they end, stop when asked, and never outlive their parent."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from faos_cli.up.children import Child, Command, last_error, stop_all
from faos_cli.up.service import unless_ended
from faos_core.errors import SetupError, UnavailableError, define
from tests.patience import PATIENCE_S

CHEAP = "data_plane.errors"  # to preload: imports next to nothing
GONE = define("test.gone", what="Gone.", why="It went.", next_step="Wait.")


def child(tmp_path: Path, *arguments: str, preload: str = "-") -> Child:
    return Child(Command("helper", arguments, tmp_path / "helper.log", preload))


async def test_a_child_that_ends_is_told_by_its_own_last_error(tmp_path: Path) -> None:
    """A port taken between our look and its bind is its error, not ours."""
    process = child(tmp_path, "ledger", "verify", "--data", str(tmp_path / "nothing"))
    await process.start()

    failure = await process.ended()

    assert "helper stopped by itself" in failure.what
    assert "There is no ledger" in failure.what
    assert str(tmp_path / "helper.log") in failure.next_step


async def test_a_waiting_child_is_stopped_at_once(tmp_path: Path) -> None:
    """The node waits, preloaded, until it has joined; Ctrl-C before that must not wait for it."""
    process = child(tmp_path, "--version", preload=CHEAP)
    await process.start()

    assert await stop_all([process]) == []
    assert not process.is_running


async def test_a_waiting_child_goes_when_told(tmp_path: Path) -> None:
    """And not before."""
    process = child(tmp_path, "--version", preload=CHEAP)
    await process.start()
    assert process.is_running

    await process.go()
    await process.ended()

    assert (tmp_path / "helper.log").read_text().startswith("faos ")


async def test_an_end_by_a_signal_is_named(tmp_path: Path) -> None:
    """`kill -9` from outside, or the kernel's own when memory runs out."""
    process = child(tmp_path, "--version", preload=CHEAP)
    await process.start()
    os.kill(process.pid, signal.SIGKILL)

    assert "SIGKILL" in (await process.ended()).why


async def test_the_child_dies_with_its_parent_by_kill_9(tmp_path: Path) -> None:
    """Orphans would hold the ports and the locks of the next run."""
    script = (
        "import asyncio, pathlib, sys\n"
        "from faos_cli.up.children import Child, Command\n"
        "async def main():\n"
        "    child = Child(Command('helper', ('--version',), pathlib.Path(sys.argv[1]), 'data_plane.errors'))\n"
        "    await child.start()\n"
        "    print(child.pid, flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(tmp_path / "log"), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout
    pid = int(await parent.stdout.readline())
    assert Path(f"/proc/{pid}").exists()

    parent.kill()
    await parent.wait()

    async with asyncio.timeout(PATIENCE_S):
        while is_alive(pid):
            await asyncio.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_a_childs_end_says_more_than_the_connection_that_broke(tmp_path: Path) -> None:
    """The user is told why the control plane ended, not that a call to it failed."""
    process = child(tmp_path, "--no-such-option", preload=CHEAP)
    await process.start()

    async def call_that_breaks() -> None:
        await process.go()
        raise UnavailableError(GONE)

    with pytest.raises(SetupError) as failure:
        await unless_ended(call_that_breaks(), [process])

    assert "stopped by itself" in failure.value.what


async def test_without_a_childs_end_the_works_own_error_and_result_count(tmp_path: Path) -> None:
    """Nothing is swallowed."""
    process = child(tmp_path, "--version", preload=CHEAP)
    await process.start()

    async def fails() -> None:
        raise SetupError(GONE)

    async def answers() -> int:
        return 7

    with pytest.raises(SetupError, match=r"test\.gone"):
        await unless_ended(fails(), [process])
    assert await unless_ended(answers(), [process]) == 7
    await process.stop()


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("log\nerror: A.\n  why:  B.\n  next: C.\n", ("A.", "B.", "C.")),
        ("error: A.\n  why:  B.\n  next: C.\nerror: D.\n  why:  E.\n  next: F.\nlog\n", ("D.", "E.", "F.")),
        ("error: A.\n  why:  B.\n", None),
        ("", None),
    ],
)
def test_the_last_whole_error_of_a_log(said: str, error: tuple[str, str, str] | None) -> None:
    """Logs and errors stand in one file."""
    assert last_error(said) == error
