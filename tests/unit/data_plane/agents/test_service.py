import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from data_plane.agents.prompts import TOOL_FAILED_SENTENCE
from data_plane.ceiling.models import Limits
from data_plane.storage.service import Storage
from data_plane.tools.interfaces import ToolResult
from faos.resource.v1 import resource_pb2 as resource
from faos.site.v1 import site_pb2 as site
from faos_core.errors import DeniedError, LimitError, NotFoundError, UnavailableError
from faos_core.ids import RunId
from tests.fakes.agents import definition
from tests.fakes.runs import complete, finished, make_node

GAUGE = json.dumps({"sensor": "boiler"})
CALL = json.dumps({"tool": "read_gauge", "arguments": {"sensor": "boiler"}})
DONE = json.dumps({"tool": "answer"})
MODEL = resource.TOOL_CHOICE_MODEL
REQUIRED = resource.TOOL_CHOICE_REQUIRED


def kinds(steps: list[site.Step]) -> list[str]:
    return [site.StepKind.Name(step.kind).removeprefix("STEP_KIND_") for step in steps]


async def test_run_answers_from_document_when_agent_has_knowledge(storage: Storage) -> None:
    """The first thing a user asks: what a document says must be before the model."""
    node = make_node(storage, ["It is in cabinet 73519."], knowledge=["manual"])

    run, steps = await complete(node, "Where is the spare valve stored?")

    assert (run.state, run.output) == (site.RUN_STATE_SUCCEEDED, "It is in cabinet 73519.")
    assert kinds(steps) == ["RETRIEVAL", "MODEL"]
    assert "cabinet 73519" in node.model.seen[0][-1].content


async def test_run_calls_tool_when_question_is_nearer_to_it(storage: Storage) -> None:
    """Routing by embedding is how a small model gets to a tool at all."""
    node = make_node(storage, [GAUGE, "It reads 41872."], knowledge=["manual"], tools=["plant"])

    run, steps = await complete(node, "What does the gauge show now?")

    assert (run.state, run.output) == (site.RUN_STATE_SUCCEEDED, "It reads 41872.")
    assert kinds(steps) == ["RETRIEVAL", "ROUTING", "MODEL", "TOOL", "MODEL"]
    assert steps[3].result["text"] == "boiler reads 41872"
    assert "41872" in node.model.seen[1][-1].content


async def test_run_answers_from_passages_when_question_is_nearer_to_them(storage: Storage) -> None:
    """A tool that has nothing to do with the question must not be called."""
    node = make_node(storage, ["Cabinet 73519."], knowledge=["manual"], tools=["plant"])

    _, steps = await complete(node, "In which cabinet is the spare valve stored?")

    assert kinds(steps) == ["RETRIEVAL", "ROUTING", "MODEL"]
    assert steps[1].result["tool"] == ""
    assert node.tools.calls == []


async def test_run_starts_with_tool_when_required(storage: Storage) -> None:
    """REQUIRED is the author's way to make sure: no routing, no way around the tool."""
    node = make_node(storage, [GAUGE, "It reads 41872."], tools=["plant"], tool_choice=REQUIRED)

    _, steps = await complete(node, "Hello.")

    assert kinds(steps) == ["MODEL", "TOOL", "MODEL"]


async def test_run_decides_between_several_tools_under_one_schema(storage: Storage) -> None:
    """REQUIRED with several tools asks for name and arguments in one constrained turn."""
    node = make_node(storage, [CALL, "41872."], tools=["plant"], tool_choice=REQUIRED)
    node.tools.add(definition("stop_pump", "Stops a pump."), node.tools.tools["read_gauge"][1])

    _, steps = await complete(node)

    schema = steps[0].request["json_schema"]
    offered = [branch["properties"]["tool"]["const"] for branch in schema["oneOf"]]
    assert offered == ["read_gauge", "stop_pump"]
    assert steps[1].name == "read_gauge"


async def test_model_choice_goes_on_until_model_answers(storage: Storage) -> None:
    """TOOL_CHOICE_MODEL is a loop: call, look, decide again."""
    node = make_node(storage, [CALL, DONE, "It reads 41872."], tools=["plant"], tool_choice=MODEL)

    run, steps = await complete(node)

    assert kinds(steps) == ["MODEL", "TOOL", "MODEL", "MODEL"]
    assert run.output == "It reads 41872."


async def test_tool_without_parameters_is_called_without_asking(storage: Storage) -> None:
    """{} is the only thing to say to it, so a turn would be wasted."""
    node = make_node(storage, ["The time is 9."], tools=["plant"], tool_choice=REQUIRED)
    node.tools.tools.clear()

    async def now(arguments: Mapping[str, Any], idempotency_key: str) -> ToolResult:
        return ToolResult("9")

    node.tools.add(definition("now", "Tells the time.", schema={"type": "object", "properties": {}}), now)

    _, steps = await complete(node)

    assert kinds(steps) == ["TOOL", "MODEL"]


async def test_labels_say_where_arguments_came_from(storage: Storage) -> None:
    """Policy can only deny what retrieved text asked for when the call says that there was some."""
    node = make_node(storage, [CALL, CALL, DONE, "41872."], knowledge=["manual"], tools=["plant"], tool_choice=MODEL)

    await complete(node)

    assert [call.labels for call in node.tools.calls] == [
        {"model", "retrieved"},
        {"model", "retrieved", "tool-output"},
    ]


async def test_malformed_arguments_are_asked_for_again_and_never_made_up(storage: Storage) -> None:
    """Calling with {} what the model did not fill in would be an action that nobody asked for."""
    cut = resource.Model(sampling=resource.Sampling(max_tokens=2))
    node = make_node(storage, ['{ "sensor": "boiler" }'] * 3, tools=["plant"], tool_choice=REQUIRED)
    object.__setattr__(node.configuration.configuration, "models", {"small": cut})

    run, steps = await complete(node)

    assert (run.state, run.error_code) == (site.RUN_STATE_FAILED, "run.arguments_malformed")
    assert kinds(steps) == ["MODEL"] * 3
    assert node.tools.calls == []


async def test_malformed_arguments_recover_at_second_attempt(storage: Storage) -> None:
    """One bad reply must not cost the run; the model is told what was wrong with it."""
    cut = resource.Model(sampling=resource.Sampling(max_tokens=3))
    node = make_node(
        storage, ['{ "sensor": "boiler" }', GAUGE, "It reads 41872."], tools=["plant"], tool_choice=REQUIRED
    )
    object.__setattr__(node.configuration.configuration, "models", {"small": cut})

    run, _ = await complete(node)

    assert run.state == site.RUN_STATE_SUCCEEDED
    assert "not valid" in node.model.seen[1][-1].content
    assert len(node.tools.calls) == 1


@pytest.mark.parametrize("error", [UnavailableError, DeniedError])
async def test_tool_failure_is_recorded_and_told_to_model(storage: Storage, error: type[Exception]) -> None:
    """A dead tool is a fact for the model, not the end of the run; its message never reaches the prompt."""
    node = make_node(storage, [GAUGE, "I cannot read it."], tools=["plant"], tool_choice=REQUIRED)

    async def die(arguments: Mapping[str, Any], idempotency_key: str) -> ToolResult:
        from data_plane.tools.errors import SERVER_UNKNOWN

        raise error(SERVER_UNKNOWN, server="secret words")

    node.tools.add(definition("read_gauge", "Reads what a gauge shows now."), die)

    run, steps = await complete(node)

    assert (run.state, steps[1].error_code) == (site.RUN_STATE_SUCCEEDED, "tool.server_unknown")
    assert TOOL_FAILED_SENTENCE in node.model.seen[1][-1].content
    assert "secret" not in node.model.seen[1][-1].content


async def test_denied_call_is_recorded_with_policy_code(storage: Storage) -> None:
    """The timeline must show that policy stopped the call."""
    node = make_node(storage, [GAUGE, "I may not."], allow=False, tools=["plant"], tool_choice=REQUIRED)

    _, steps = await complete(node)

    assert steps[1].error_code == "tool.policy_denied"
    assert node.tools.calls == []


async def test_tool_is_error_is_recorded_with_what_it_said(storage: Storage) -> None:
    """is_error is the tool's own word; the operator needs its text, sealed, in the journal."""
    node = make_node(storage, [GAUGE, "It failed."], tools=["plant"], tool_choice=REQUIRED)

    async def fail(arguments: Mapping[str, Any], idempotency_key: str) -> ToolResult:
        return ToolResult("sensor offline", is_error=True)

    node.tools.add(definition("read_gauge", "Reads what a gauge shows now."), fail)

    _, steps = await complete(node)

    assert (steps[1].error_code, steps[1].result["text"]) == ("run.tool_failed", "sensor offline")


LIMITED = [
    ({"max_turns": 2}, [CALL, CALL], "run.turns"),
    ({"max_tool_calls": 1}, [CALL, json.dumps({"tool": "read_gauge", "arguments": {"sensor": "b"}})], "run.tool_calls"),
    ({"max_output_tokens": 4}, [CALL], "run.output_tokens"),
]


@pytest.mark.parametrize(("limits", "turns", "code"), LIMITED)
async def test_limit_ends_run_with_its_code(
    storage: Storage, limits: dict[str, int], turns: list[str], code: str
) -> None:
    """Every limit ends the run as LIMITED and says which it was."""
    node = make_node(storage, turns, tools=["plant"], tool_choice=MODEL, limits=Limits())
    node.configuration.configuration.agents["helper"].limits.CopyFrom(resource.RunLimits(**limits))

    run, _ = await complete(node)

    assert (run.state, run.error_code) == (site.RUN_STATE_LIMITED, code)


async def test_ceiling_lowers_limit_of_agent(storage: Storage) -> None:
    """The site has the last word, whatever the cloud declares."""
    node = make_node(storage, [CALL], limits=Limits(max_turns=1), tools=["plant"], tool_choice=MODEL)
    node.configuration.configuration.agents["helper"].limits.max_turns = 12

    run, steps = await complete(node)

    assert (run.error_code, kinds(steps)) == ("run.turns", ["MODEL", "TOOL"])


async def test_answer_cut_by_output_tokens_is_limited_and_kept(storage: Storage) -> None:
    """A user must see that an answer was cut, and what there is of it."""
    node = make_node(storage, ["one two three four"])
    node.configuration.configuration.agents["helper"].limits.max_output_tokens = 2

    run, _ = await complete(node)

    assert (run.state, run.output, run.error_code) == (site.RUN_STATE_LIMITED, "one two", "run.output_tokens")


async def test_seconds_end_run_between_steps(storage: Storage) -> None:
    """Time is over also when no single step was long."""
    node = make_node(storage, [GAUGE], tools=["plant"], tool_choice=REQUIRED)

    async def slow(arguments: Mapping[str, Any], idempotency_key: str) -> ToolResult:
        node.clock.advance(301)
        return ToolResult("late")

    node.tools.add(definition("read_gauge", "Reads what a gauge shows now."), slow)

    run, steps = await complete(node)

    assert (run.state, run.error_code) == (site.RUN_STATE_LIMITED, "run.seconds")
    assert steps[-1].result["text"] == "late"


@pytest.mark.parametrize("by_s", [86_400, -86_400])
async def test_seconds_are_not_those_of_a_clock_that_is_set(storage: Storage, by_s: float) -> None:
    """A date that is corrected by a day must not end a run that began a second ago, nor give it a day more."""
    node = make_node(storage, [GAUGE, "It reads 41872."], tools=["plant"], tool_choice=REQUIRED)
    lasts_s = 1.0 if by_s > 0 else 301.0

    async def read(arguments: Mapping[str, Any], idempotency_key: str) -> ToolResult:
        node.clock.set_wall(by_s)
        node.clock.advance(lasts_s)
        return ToolResult("41872")

    node.tools.add(definition("read_gauge", "Reads what a gauge shows now."), read)

    run, _ = await complete(node)

    assert run.error_code == ("" if by_s > 0 else "run.seconds")


async def test_seconds_end_step_that_hangs(storage: Storage) -> None:
    """A step that never ends must not hold the run for ever, and must not stay open in the journal."""
    node = make_node(storage, [GAUGE, CALL], tools=["plant"], tool_choice=REQUIRED)

    async def hang(arguments: Mapping[str, Any], idempotency_key: str) -> ToolResult:
        await asyncio.Event().wait()
        raise AssertionError

    node.tools.add(definition("read_gauge", "Reads what a gauge shows now."), hang)
    node.model = ScriptedLate(node)

    run, steps = await complete(node)

    assert (run.state, run.error_code) == (site.RUN_STATE_LIMITED, "run.seconds")
    assert steps[-1].error_code == "run.seconds"


class ScriptedLate:
    """Fills in arguments and leaves the run 10 ms of its time."""

    def __init__(self, node: Any) -> None:
        self._inner, self._node = node.model, node

    async def chat(self, *arguments: Any, **options: Any) -> Any:
        self._node.clock.advance(299.99)
        async for item in self._inner.chat(*arguments, **options):
            yield item


async def test_third_identical_call_stops_run(storage: Storage) -> None:
    """A model that goes in a circle is stopped and explained before the third call is made."""
    node = make_node(storage, [CALL] * 3, tools=["plant"], tool_choice=MODEL)

    run, _ = await complete(node)

    assert (run.state, run.error_code) == (site.RUN_STATE_LIMITED, "run.identical_calls")
    assert len(node.tools.calls) == 2


async def test_passages_are_dropped_when_prompt_does_not_fit(storage: Storage) -> None:
    """A long document must cost a passage, not the answer."""
    from tests.fakes.model import ScriptedModel

    model = ScriptedModel(["Cabinet 73519."], context_tokens=40)
    node = make_node(storage, model=model, knowledge=["manual"])
    node.documents.documents["manual"].append("spare valve " * 20)

    run, steps = await complete(node, "Where is the valve?")

    assert run.state == site.RUN_STATE_SUCCEEDED
    assert [step.error_code != "" for step in steps] == [False, True, True, False]


async def test_second_start_with_same_key_follows_first_run(storage: Storage) -> None:
    """A client that retries a lost request must not run the agent twice."""
    node = make_node(storage, ["Hello."])

    async with node.running() as runs:
        first, second = await asyncio.gather(
            runs.start("helper", "Hi", idempotency_key="k"), runs.start("helper", "Hi", idempotency_key="k")
        )
        await finished(runs, first)
        third = await runs.start("helper", "Hi", idempotency_key="k")

    assert first == second == third
    assert len(node.model.seen) == 1


async def test_start_refuses_more_runs_than_ceiling_allows(storage: Storage) -> None:
    """A node that takes more than it can hold serves nobody."""
    release = asyncio.Event()
    node = make_node(storage, [GAUGE, "ok"], limits=Limits(concurrent_runs=1), tools=["plant"], tool_choice=REQUIRED)

    async def wait(arguments: Mapping[str, Any], idempotency_key: str) -> ToolResult:
        await release.wait()
        return ToolResult("1")

    node.tools.add(definition("read_gauge", "Reads what a gauge shows now."), wait)

    async with node.running() as runs:
        first = await runs.start("helper", "a")
        with pytest.raises(LimitError) as refused:
            await runs.start("helper", "b")
        active = runs.counts().active
        release.set()
        await finished(runs, first)

    assert refused.value.code.code == "run.too_many"
    assert active == 1


async def test_start_refuses_unknown_agent(storage: Storage) -> None:
    """A typo in the agent's name is the caller's to fix, before anything is recorded."""
    node = make_node(storage)

    async with node.running() as runs:
        with pytest.raises(NotFoundError):
            await runs.start("nobody", "Hi")
        found, _ = await runs.list(page_size=0, page_token="")

    assert found == []


async def test_failing_model_fails_run_with_its_code(storage: Storage) -> None:
    """Without a model the run cannot go on, and says so."""
    run, steps = await complete(make_node(storage, []), "Hi")

    assert (run.state, run.error_code) == (site.RUN_STATE_FAILED, "test.script_ended")
    assert steps[0].error_code == "test.script_ended"


async def test_defect_ends_its_run_and_no_other(storage: Storage, caplog: pytest.LogCaptureFixture) -> None:
    """One run's defect must not take the node's other runs with it."""

    def crash(*_: object) -> str:
        raise RuntimeError("customer words")

    node = make_node(storage, [crash, "Fine."])

    async with node.running() as runs:
        broken = await runs.start("helper", "a")
        await finished(runs, broken)
        fine = await runs.start("helper", "b")
        await finished(runs, fine)
        states = [(await runs.get(run_id))[0].error_code for run_id in (broken, fine)]

    assert states == ["run.defect", ""]


async def test_watch_numbers_events_and_streams_answer(storage: Storage) -> None:
    """Clients resume by these numbers: each recorded event has its own, deltas that of their step."""
    node = make_node(storage, ["It reads 41872."])

    async with node.running() as runs:
        run_id = await runs.start("helper", "Hi")
        events = await finished(runs, run_id)
        again = await finished(runs, run_id)

    recorded = [event for event in events if not event.HasField("text_delta")]
    assert [event.sequence for event in recorded] == [1, 2, 3, 4]
    deltas = [event for event in events if event.HasField("text_delta")]
    assert "".join(event.text_delta.text for event in deltas) in ("It reads 41872.", "")
    assert {event.sequence for event in deltas} <= {2}
    assert again == recorded


async def test_watch_resumes_after_sequence(storage: Storage) -> None:
    """A client that lost its stream gets the rest and nothing twice."""
    node = make_node(storage, ["Hello."])

    async with node.running() as runs:
        run_id = await runs.start("helper", "Hi")
        await finished(runs, run_id)
        rest = [event.sequence async for event in runs.watch(run_id, after_sequence=2)]

    assert rest == [3, 4]


async def test_late_watcher_gets_text_of_step_from_its_first_word(storage: Storage) -> None:
    """An answer that begins in the middle of a word is worse than one that comes late."""
    node = make_node(storage, model=Paused(["one ", "two"]))

    async with node.running() as runs:
        run_id = await runs.start("helper", "Hi")
        await node.model.said.wait()
        watching = runs.watch(run_id)
        first = [await anext(watching) for _ in range(3)]
        node.model.go_on.set()
        rest = [event async for event in watching]

    assert [event.WhichOneof("event") for event in first] == ["started", "step_started", "text_delta"]
    texts = [event.text_delta.text for event in (*first, *rest) if event.HasField("text_delta")]
    assert texts == ["one ", "two"]


async def test_watcher_who_resumes_within_step_gets_no_half_text(storage: Storage) -> None:
    """Deltas follow their StepStarted in the same stream or not at all; the finished step has the whole text."""
    node = make_node(storage, model=Paused(["one ", "two"]))

    async with node.running() as runs:
        run_id = await runs.start("helper", "Hi")
        await node.model.said.wait()
        watching = runs.watch(run_id, after_sequence=2)
        pending = asyncio.ensure_future(anext(watching))
        await asyncio.sleep(0)
        node.model.go_on.set()
        events = [await pending] + [event async for event in watching]

    assert [event.WhichOneof("event") for event in events] == ["step_finished", "finished"]
    assert events[0].step_finished.step.result["text"] == "one two"


class Paused:
    """Says its first piece, waits to be told, says the rest."""

    def __init__(self, pieces: list[str]) -> None:
        self._pieces = pieces
        self.said, self.go_on = asyncio.Event(), asyncio.Event()

    async def chat(self, *arguments: Any, **options: Any) -> Any:
        from data_plane.models.interfaces import FinishReason, TextDelta, TurnEnd

        first, *rest = self._pieces
        yield TextDelta(first)
        self.said.set()
        await self.go_on.wait()
        for piece in rest:
            yield TextDelta(piece)
        yield TurnEnd("".join(self._pieces), 1, len(self._pieces), FinishReason.STOP)


async def test_watch_refuses_unknown_run(storage: Storage) -> None:
    """A wrong run id is said, not waited for."""
    async with make_node(storage).running() as runs:
        with pytest.raises(NotFoundError):
            await anext(runs.watch("run-none"))  # type: ignore[arg-type]  # a plain string on purpose


async def test_list_pages_newest_first(storage: Storage) -> None:
    """Pages must neither lose nor repeat a run."""
    node = make_node(storage, ["a", "b", "c"])

    async with node.running() as runs:
        started = []
        for _ in range(3):
            started.append(await runs.start("helper", "Hi"))
            await finished(runs, started[-1])
        first, token = await runs.list(page_size=2, page_token="")
        second, end = await runs.list(page_size=2, page_token=token)

    assert sorted(started) == sorted(run.run_id for run in (*first, *second))
    assert (len(first), len(second), end) == (2, 1, "")


async def test_stopped_service_leaves_run_for_next_start(storage: Storage) -> None:
    """A restart is not a failure: what was in progress goes on, with its step counted as begun twice."""
    node = make_node(storage, model=Paused(["one ", "two"]))
    async with node.running() as runs:
        run_id = await runs.start("helper", "Hi")
        await node.model.said.wait()

    node.model = Paused(["one ", "two"])
    node.model.go_on.set()
    async with node.running() as runs:
        resumed = await runs.resume_all()
        events = await finished(runs, run_id)
        run, steps = await runs.get(run_id)

    assert resumed == 1
    assert (run.state, steps[0].attempts) == (site.RUN_STATE_SUCCEEDED, 2)
    assert events[-1].finished.output == "one two"


async def test_resumed_run_says_that_it_goes_on_under_another_revision(storage: Storage) -> None:
    """After a restart there is only the running revision; the timeline must not hide the change."""
    node = make_node(storage, [GAUGE], tools=["plant"], tool_choice=REQUIRED)
    reached = asyncio.Event()

    async def hang(arguments: Mapping[str, Any], idempotency_key: str) -> ToolResult:
        reached.set()
        await asyncio.Event().wait()
        raise AssertionError

    reading = node.tools.tools["read_gauge"][1]
    node.tools.add(definition("read_gauge", "Reads what a gauge shows now."), hang)
    async with node.running() as runs:
        run_id = await runs.start("helper", "Hi")
        await reached.wait()

    later = make_node(storage, ["It reads 41872."], tools=["plant"], tool_choice=REQUIRED)
    later.tools.add(definition("read_gauge", "Reads what a gauge shows now."), reading)
    object.__setattr__(later.configuration.configuration, "revision", 2)
    async with later.running() as runs:
        await runs.resume_all()
        await finished(runs, run_id)
        run, steps = await runs.get(run_id)

    assert run.revision == 1
    assert [dict(step.request).get("revision") for step in steps] == [None, None, 2]


async def test_resumed_run_whose_agent_is_gone_fails(storage: Storage) -> None:
    """A run that nothing defines any more must end, not wait for ever."""
    node = make_node(storage, model=Paused(["one"]))
    async with node.running() as runs:
        run_id = await runs.start("helper", "Hi")
        await node.model.said.wait()
    object.__setattr__(node.configuration.configuration, "agents", {})

    async with node.running() as runs:
        await runs.resume_all()
        events = await finished(runs, run_id)

    assert events[-1].finished.error_code == "run.agent_gone"


async def test_withdrawn_tool_is_denied_in_run_that_began_before(storage: Storage) -> None:
    """What was taken away is gone at once: a run keeps its definition, not its permissions."""
    node = make_node(storage, [GAUGE, "I may not."], tools=["plant"], tool_choice=REQUIRED)

    class Withdrawing:
        async def chat(self, *arguments: Any, **options: Any) -> Any:
            node.configuration.configuration.agents["helper"].ClearField("tools")
            async for item in node_model.chat(*arguments, **options):
                yield item

    node_model, node.model = node.model, Withdrawing()

    _, steps = await complete(node)

    assert steps[1].error_code == "run.tool_withdrawn"
    assert node.tools.calls == []


async def test_cancelled_start_still_runs_what_it_recorded(storage: Storage) -> None:
    """A client that goes away between asking and being answered must not leave a run that nobody drives."""
    node = make_node(storage, ["Hello."])

    async with node.running() as runs:
        asking = asyncio.create_task(runs.start("helper", "Hi", idempotency_key="k"))
        await asyncio.sleep(0)
        asking.cancel()
        run_id = await runs.start("helper", "Hi", idempotency_key="k")
        events = await finished(runs, run_id)

    assert events[-1].finished.output == "Hello."
    assert len(node.model.seen) == 1


async def test_what_fails_for_a_caller_that_went_away_ends_nothing_else(storage: Storage) -> None:
    """All runs hang on one group: an error that nobody waits for any more must not take them along."""
    node = make_node(storage, ["Hello."])

    async with node.running() as runs:
        asking = asyncio.create_task(runs.cancel(RunId("run-none")))
        await asyncio.sleep(0)
        asking.cancel()
        events = await finished(runs, await runs.start("helper", "Hi"))

    assert asking.cancelled()
    assert events[-1].finished.output == "Hello."


async def test_start_is_refused_while_service_does_not_run(storage: Storage) -> None:
    """A run that nobody owns would be lost without a word."""
    with pytest.raises(UnavailableError):
        await make_node(storage, ["Hello."]).runs().start("helper", "Hi")
