import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from data_plane.agents.journal import Journal
from data_plane.agents.steps import RecordedStep, RunState
from data_plane.storage.service import open_storage
from faos_core.clock import SystemClock
from faos_core.ids import RunId
from tests.parts import ROOT
from tests.system.resume_child import CANCELLED, FINISHED, PAUSED, TENANT

pytestmark = pytest.mark.slow  # each kill is a process start

PAUSE_POINTS = (
    "retrieval",
    "routing",
    "arguments begins",
    "arguments half said",
    "tool begins",
    "tool done",
    "answer begins",
    "answer half said",
)
STEPS = ("retrieval", "routing", "arguments", "tool", "answer")  # in the order of their sequences, from 1


@pytest.fixture(autouse=True)
def on_each_engine(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child inherits it."""
    monkeypatch.setenv("RESUME_DATABASE_URL", database_url)


def run_child(folder: Path, pause_point: str) -> str:
    """What the child said last: it is killed with SIGKILL when it pauses, and ends by itself otherwise."""
    command = [sys.executable, "-m", "tests.system.resume_child", str(folder), pause_point]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as child:
        assert child.stdout
        said = child.stdout.readline().strip()
        if said == PAUSED:
            child.kill()
    return said


def executions(folder: Path) -> list[str]:
    return (folder / "executions").read_text().splitlines()


async def journal_of(folder: Path) -> tuple[RunState, str, list[RecordedStep]]:
    async with open_storage(folder / "node", tenant=TENANT, database_url=os.environ["RESUME_DATABASE_URL"]) as storage:
        journal = Journal(storage.store, storage.sealer, SystemClock())
        run_id: RunId | None = await journal.find_run("helper", "the one")
        assert run_id
        run, steps = await journal.read_run(run_id)
        return run.ending.state, run.ending.output, steps


async def test_run_killed_at_every_step_finishes_and_repeats_nothing_recorded(tmp_path: Path) -> None:
    """A power cut at the worst moment must cost at most the step in progress, and that keeps its key."""
    for point in PAUSE_POINTS:
        before = len(executions(tmp_path)) if (tmp_path / "executions").exists() else 0
        recorded = {STEPS[step.sequence - 1] for step in (await steps_so_far(tmp_path)) if step.outcome}

        assert run_child(tmp_path, point) == PAUSED

        since = {line.split()[0] for line in executions(tmp_path)[before:]}
        assert not since & recorded, f"repeated before {point}"

    assert run_child(tmp_path, "") == FINISHED
    state, output, steps = await journal_of(tmp_path)
    lines = executions(tmp_path)
    assert (state, output) == (RunState.SUCCEEDED, "It reads 41872.")
    assert [step.attempts for step in steps] == [2, 2, 3, 3, 3]
    assert Counter(line.split()[0] for line in lines) == {
        "retrieval": 2,
        "routing": 2,
        "arguments": 3,
        "tool": 2,
        "answer": 3,
    }
    assert {line.split()[1] for line in lines if line.startswith("tool")} == {steps[3].idempotency_key}


async def test_run_killed_after_tool_was_recorded_never_calls_it_again(tmp_path: Path) -> None:
    """The promise about effects: what was recorded happened once, however often the node dies afterwards."""
    for point in ("answer begins", "answer half said", "answer begins"):
        assert run_child(tmp_path, point) == PAUSED

    assert run_child(tmp_path, "") == FINISHED
    lines = executions(tmp_path)
    assert [line.split()[0] for line in lines].count("tool") == 1
    assert Counter(lines)["retrieval"] == Counter(lines)["routing"] == Counter(lines)["arguments"] == 1


async def test_finished_run_is_not_run_again_after_restart(tmp_path: Path) -> None:
    """A restart after the end finds nothing to do; the caller's key still leads to the same run."""
    assert run_child(tmp_path, "") == FINISHED
    before = executions(tmp_path)

    assert run_child(tmp_path, "") == FINISHED

    assert executions(tmp_path) == before


async def test_cancelled_run_is_not_taken_up_after_a_kill(tmp_path: Path) -> None:
    """What a person stopped stays stopped: the answer to the cancel is given when it is on the disk."""
    assert run_child(tmp_path, CANCELLED) == PAUSED
    before = executions(tmp_path)

    assert run_child(tmp_path, "") == FINISHED

    state, output, steps = await journal_of(tmp_path)
    assert (state, output, steps[-1].outcome.error_code if steps[-1].outcome else "") == (
        RunState.CANCELLED,
        "",
        "run.cancelled",
    )
    assert executions(tmp_path) == before


async def steps_so_far(folder: Path) -> list[RecordedStep]:
    return (await journal_of(folder))[2] if (folder / "executions").exists() else []
