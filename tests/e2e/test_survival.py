"""kill -9, restarts, and the cloud gone: what a site must live through, with real processes."""

import os
import signal
from pathlib import Path

import pytest

from faos.site.v1 import site_pb2 as site
from faos_cli import site_client
from faos_cli.up.questions import DOCUMENT_QUESTION, TOOL_QUESTION
from tests.e2e.processes import FAOS, faos, fresh_ports, processes_with, running, up_once

pytestmark = [pytest.mark.needs("model", "embedder"), pytest.mark.slow]


async def test_kill_9_in_the_middle_of_a_run_and_no_recorded_step_runs_twice(tmp_path: Path) -> None:
    """Promise 5 on the real thing: the run finishes after the restart, and what was recorded before stays recorded."""
    node_dir = tmp_path / ".faos" / "node"
    with running(*FAOS, "up", "--data", ".faos", *fresh_ports(), cwd=tmp_path) as up:
        up.until("stays up until Ctrl-C")
        (first_pid,) = processes_with("node", "run", str(node_dir))
        recorded: list[site.Step] = []
        finished = site.RunFinished()
        async with site_client.connect(node_dir) as client:
            async for event in client.stream_run("assistant", TOOL_QUESTION):
                if event.HasField("step_finished") and not was_killed(recorded):
                    recorded.append(event.step_finished.step)
                    if was_killed(recorded):
                        os.kill(first_pid, signal.SIGKILL)
                if event.HasField("finished"):
                    finished = event.finished
            journal = await client.get_run(event.run_id)
        up.until("SIGKILL.*Starting it again")
        assert up.end() == 0, up.text

    number = (tmp_path / ".faos" / "site" / "wards.json").read_text().split('"cardiology": "')[1][:5]
    assert finished.state == site.RUN_STATE_SUCCEEDED
    assert number in finished.output
    before = {step.idempotency_key: step for step in recorded}
    after = {step.idempotency_key: step for step in journal.steps}
    assert len(before) >= 3
    assert all(after[key] == step for key, step in before.items()), "a recorded step was recorded anew"
    assert all(after[key].attempts == 1 for key in before)
    assert [step.sequence for step in journal.steps] == list(range(1, len(journal.steps) + 1))


def was_killed(recorded: list[site.Step]) -> bool:
    """The node is killed once the tool's result is recorded: what follows is the turn that tells it."""
    return any(step.kind == site.STEP_KIND_TOOL for step in recorded)


def test_the_site_answers_with_the_control_plane_gone_restarts_included(tmp_path: Path) -> None:
    """Promise 4: nothing that a site needs to work lies in the cloud."""
    up_once(tmp_path, *fresh_ports())
    data = tmp_path / "d"
    number = (data / "site" / "handbook" / "oxygen.md").read_text().split("line is ")[1][:5]
    (data / "control-plane").rename(tmp_path / "gone")
    node = (*FAOS, "node", "run", "--data", str(data / "node"), "--site-file", str(data / "site" / "site.toml"))
    ask = ("--context", str(data / "context.json"), "run", "assistant", DOCUMENT_QUESTION)

    for _ in range(2):
        with running(*node, cwd=tmp_path) as process:
            process.until("node.ready")
            answer = first_answer(*ask, cwd=tmp_path)
            process.end(signal.SIGKILL)

        assert number in answer, process.text


def first_answer(*ask: str, cwd: Path) -> str:
    """Ask until the node has loaded what it needs."""
    for _ in range(100):
        done = faos(*ask, cwd=cwd)
        if done.returncode == 0:
            return done.stdout
    raise AssertionError(done.stderr)
