from dataclasses import replace
from datetime import UTC, datetime

from data_plane.agents import events
from data_plane.agents.steps import RecordedStep, StepKind, StepOutcome, StepRequest
from faos.site.v1 import site_pb2 as site
from faos_core.ids import RunId
from faos_core.timestamps import timestamp

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
BEGUN = RecordedStep(
    2, StepRequest(StepKind.TOOL, "add", {"arguments": {"a": [1, None]}}), None, AT, None, 1, "run-x.2"
)


def test_step_that_is_under_way_has_a_request_and_no_result() -> None:
    """Whoever looks at a run must see what it is at, and nothing that has not happened."""
    message = events.step_message(BEGUN)

    assert message.HasField("request")
    assert message.request["arguments"]["a"][0] == 1
    assert [message.HasField(name) for name in ("result", "finished_at")] == [False, False]


def test_finished_step_is_whole_in_its_event() -> None:
    """Who follows a run and who asks for it afterwards see the same; an empty result is one all the same."""
    step = replace(BEGUN, outcome=StepOutcome({}, "tool.failed"), finished_at=AT)

    event = events.step_finished(RunId("run-x"), step)

    assert event == site.RunEvent(
        run_id="run-x",
        sequence=5,
        at=timestamp(AT),
        step_finished=site.StepFinished(step=events.step_message(step)),
    )
    assert event.step_finished.step.HasField("result")
    assert event.step_finished.step.error_code == "tool.failed"
