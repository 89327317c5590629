"""faos run and runs against a node's real API in this process, with a scripted model behind it."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from data_plane.api.interfaces import Facts, LinkState
from data_plane.api.server import SiteServer
from data_plane.api.service import SiteApi
from data_plane.egress.interfaces import LedgerHead
from data_plane.storage.service import Storage, open_storage
from faos.site.v1 import site_pb2 as site
from faos_cli.site_client import connect, resume_point
from faos_core.errors import NotFoundError, UnavailableError
from faos_core.ids import TenantName
from faos_core.lifecycle import running
from tests.fakes.model import ScriptedModel
from tests.fakes.runs import Node, make_node
from tests.patience import PATIENCE_S

if TYPE_CHECKING:
    from tests.unit.faos_cli.conftest import RunFaos

ANSWER = "It reads 41872."


@dataclass
class Standing:
    """A link and a ledger that stand still."""

    alarms: tuple[str, ...] = ()

    def state(self) -> LinkState:
        return LinkState("spiffe://x/n", connected=True, attempted_revision=3, healthy_revision=2, alarms=self.alarms)

    def head(self) -> LedgerHead:
        return LedgerHead(17, b"")


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[Storage]:
    async with open_storage(tmp_path / "node", tenant=TenantName("acme")) as storage:
        (tmp_path / ".faos").mkdir()
        (tmp_path / ".faos" / "context.json").write_text(json.dumps({"node_data_dir": str(tmp_path / "node")}))
        yield storage


@asynccontextmanager
async def serving(node: Node, folder: Path, *alarms: str) -> AsyncIterator[None]:
    runs = node.runs()
    facts = Facts(Standing(alarms), node.configuration, Standing())
    async with running([runs, SiteServer(folder / "node", SiteApi(runs, facts))]):
        await runs.resume_all()
        yield


async def test_answer_goes_to_standard_output_and_the_run_can_be_shown(
    storage: Storage, run_faos: "RunFaos", tmp_path: Path
) -> None:
    """`faos run … | next-program` gets the answer and nothing else; what happened is looked up afterwards."""
    async with serving(make_node(storage, [ANSWER, ANSWER, ANSWER]), tmp_path):
        asked = await run_faos("run", "helper", "What", "is", "it?")
        piped = await run_faos("run", "helper", "-", "-o", "json", stdin="What is it?")
        listed = await run_faos("runs")
        names = await run_faos("runs", "-o", "name", "--limit", "1")
        shown = await run_faos("runs", "show", piped.json["run"]["runId"])
        whole = await run_faos("run", "show", piped.json["run"]["runId"], "-o", "json")

    assert (asked.out, asked.err, asked.code) == (f"{ANSWER}\n", "", 0)
    assert (piped.json["run"]["input"], piped.json["run"]["output"]) == ("What is it?", ANSWER)
    assert len(listed.out.splitlines()) == 3
    assert names.out == f"run/{piped.json['run']['runId']}\n"
    assert ANSWER in shown.out
    assert whole.json == piped.json


async def test_run_that_fails_leaves_with_an_error_that_names_it(
    storage: Storage, run_faos: "RunFaos", tmp_path: Path
) -> None:
    """A script must not take an empty answer for a good one."""
    async with serving(make_node(storage, []), tmp_path):
        done = await run_faos("run", "helper", "What is it?")
        nobody = await run_faos("run", "nobody", "What is it?")

    assert done.code == 1
    assert "faos run show run-" in done.err
    assert (nobody.code, "'nobody'" in nobody.err) == (1, True)


async def test_no_runs_yet_says_how_to_begin_one(storage: Storage, run_faos: "RunFaos", tmp_path: Path) -> None:
    """An empty list is where somebody new stands."""
    async with serving(make_node(storage), tmp_path):
        done = await run_faos("runs")

    assert (done.code, done.out) == (0, "")
    assert "faos run AGENT" in done.err


async def test_status_shows_the_node_and_fails_for_an_alarm(
    storage: Storage, run_faos: "RunFaos", tmp_path: Path
) -> None:
    """A monitoring script needs the exit code; a person the three facts and the alarm."""
    async with serving(make_node(storage), tmp_path):
        well = await run_faos("status")
    async with serving(make_node(storage), tmp_path, "config.rejected"):
        alarmed = await run_faos("status", "-o", "json")

    facts = dict(line.split(maxsplit=1) for line in well.out.splitlines() if line.startswith("  "))
    assert (well.code, facts["attempted"], facts["running"], facts["healthy"]) == (0, "3", "1", "2")
    assert (alarmed.code, alarmed.json["node"]["alarms"]) == (1, ["config.rejected"])


async def test_node_that_is_not_running_is_said_so(storage: Storage, run_faos: "RunFaos", tmp_path: Path) -> None:
    """With the command that starts it; also when a dead node left its socket behind."""
    absent = await run_faos("run", "helper", "Hello?")
    async with serving(make_node(storage), tmp_path):
        pass
    status = await run_faos("status")

    assert (absent.code, "faos node run --data" in absent.err) == (1, True)
    assert (status.code, "DOWN" in status.out) == (1, True)


class HeldModel(ScriptedModel):
    """Says its first words, then waits until it is let go."""

    def __init__(self, turns: list[str]) -> None:
        super().__init__(turns)
        self.free = asyncio.Event()

    async def chat(self, messages, *, sampling, json_schema=None):  # type: ignore[no-untyped-def]  # as ModelRuntime
        count = 0
        async for item in super().chat(messages, sampling=sampling, json_schema=json_schema):
            yield item
            count += 1
            if count == 2:
                await self.free.wait()


async def test_stream_goes_on_when_the_node_restarts_in_the_middle(storage: Storage, tmp_path: Path) -> None:
    """The issue's promise at the command line: the node dies during an answer, and the same command shows its end."""
    events: list[site.RunEvent] = []
    half_said = asyncio.Event()

    async def ask() -> None:
        async with connect(tmp_path / "node") as client:
            async for event in client.stream_run("helper", "What does the manual say?", patience_s=30):
                events.append(event)
                if event.HasField("text_delta"):
                    half_said.set()

    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
        async with serving(make_node(storage, model=HeldModel([ANSWER])), tmp_path):
            group.create_task(ask())
            await half_said.wait()
        before = len(events)
        async with serving(make_node(storage, [ANSWER]), tmp_path):
            while not (events and events[-1].HasField("finished")):
                await asyncio.sleep(0.01)

    assert 0 < before < len(events)
    assert events[-1].finished.output == ANSWER
    done = [event.sequence for event in events if event.HasField("step_finished")]
    assert done == sorted(set(done))
    assert len({event.run_id for event in events}) == 1


async def test_stream_gives_up_when_the_node_stays_away(storage: Storage, tmp_path: Path) -> None:
    """Bounded: a command that waits for ever for a node that was switched off tells nobody anything."""
    started = asyncio.Event()

    async def ask() -> None:
        async with connect(tmp_path / "node") as client:
            async for _ in client.stream_run("helper", "What does the manual say?", patience_s=0.3):
                started.set()

    async with asyncio.timeout(PATIENCE_S):
        async with serving(make_node(storage, model=HeldModel([ANSWER])), tmp_path):
            asking = asyncio.ensure_future(ask())
            await started.wait()
        with pytest.raises(UnavailableError) as caught:
            await asking

    assert caught.value.code.code == "node.lost"
    assert "faos run show run-" in caught.value.next_step


async def test_watching_what_never_ran_is_refused_at_once(storage: Storage, tmp_path: Path) -> None:
    """A misspelt id must not be waited for."""
    async with serving(make_node(storage), tmp_path), connect(tmp_path / "node") as client:
        with pytest.raises(NotFoundError):
            async for _ in client.watch_run("run-none"):
                pass


@pytest.mark.parametrize(
    ("event", "after"),
    [
        (site.RunEvent(sequence=1, started=site.RunStarted()), 1),
        (site.RunEvent(sequence=4, step_started=site.StepStarted()), 3),
        (site.RunEvent(sequence=4, text_delta=site.TextDelta()), 3),
        (site.RunEvent(sequence=5, step_finished=site.StepFinished()), 5),
    ],
)
def test_resuming_asks_for_the_step_in_progress_again(event: site.RunEvent, after: int) -> None:
    """After a crash the step begins again; asking behind its start would leave its text out."""
    assert resume_point(event) == after


async def test_interrupted_command_leaves_no_traceback_and_the_run_goes_on(storage: Storage, tmp_path: Path) -> None:
    """Ctrl-C takes back the terminal, not the question: the node finishes what it began."""
    model = HeldModel([ANSWER])
    node = make_node(storage, model=model)
    async with asyncio.timeout(PATIENCE_S), serving(node, tmp_path), connect(tmp_path / "node") as client:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "faos_cli", "run", "helper", "What does the manual say?"),
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        while not model.seen:
            await asyncio.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = await process.communicate()
        model.free.set()
        (run,) = await client.list_runs()
        events = [event async for event in client.watch_run(run.run_id)]

    assert (process.returncode, out) == (2, b"")
    assert err.decode().split("\n") == [
        "",
        f"The run goes on at the node. Follow it: faos run follow {run.run_id} · stop it: faos run cancel {run.run_id}",
        "",
        "Interrupted.",
        "",
    ]
    assert events[-1].finished.output == ANSWER


async def test_interrupt_cancels_the_run_when_asked_to(storage: Storage, tmp_path: Path) -> None:
    """In a script that is stopped, nobody comes back for the answer."""
    model = HeldModel([ANSWER])
    node = make_node(storage, model=model)
    async with asyncio.timeout(PATIENCE_S), serving(node, tmp_path), connect(tmp_path / "node") as client:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "faos_cli", "run", "--cancel-on-interrupt", "helper", "What is it?"),
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        while not model.seen:
            await asyncio.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
        (run,) = await client.list_runs()

    assert process.returncode == 2
    assert f"faos run show {run.run_id}" in err.decode()
    assert run.state == site.RUN_STATE_CANCELLED


async def test_run_is_cancelled_shown_and_followed_by_its_id(
    storage: Storage, run_faos: "RunFaos", tmp_path: Path
) -> None:
    """What a person types after Ctrl-C; and a second cancel, or one that came too late, says how it stands."""
    model = HeldModel([ANSWER, ANSWER])
    async with serving(make_node(storage, model=model), tmp_path), connect(tmp_path / "node") as client:
        run_id = await anext(event.run_id async for event in client.stream_run("helper", "What is it?"))
        cancelled = await run_faos("run", "cancel", run_id)
        again = await run_faos("runs", "cancel", run_id, "-o", "json")
        shown = await run_faos("run", "show", run_id)
        followed = await run_faos("run", "follow", run_id)
        model.free.set()
        done = await run_faos("run", "helper", "And now?", "-o", "json")
        late = await run_faos("run", "cancel", done.json["run"]["runId"])
        nobody = await run_faos("runs", "cancel", "run-none")

    assert (cancelled.code, cancelled.out) == (0, f"run/{run_id} cancelled\n")
    assert again.json["run"]["state"] == "RUN_STATE_CANCELLED"
    assert "abandoned: the run was cancelled" in shown.out
    assert (followed.code, "was cancelled" in followed.err) == (1, True)
    assert (late.code, late.out.split(": ")[1]) == (0, "succeeded\n")
    assert (nobody.code, "faos runs" in nobody.err) == (1, True)


@pytest.mark.parametrize(
    "arguments", [("--cancel-on-interrupt", "follow", "run-1"), ("--subject", "x", "show", "run-1")]
)
async def test_option_that_would_have_no_effect_is_refused(run_faos: "RunFaos", arguments: tuple[str, ...]) -> None:
    """Whoever follows a run and presses Ctrl-C to stop it must know that it goes on."""
    done = await run_faos("run", *arguments)

    assert (done.code, "go with a question" in done.err) == (2, True)
