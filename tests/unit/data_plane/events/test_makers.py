from datetime import UTC, datetime

from data_plane.agents.events import RunRecord
from data_plane.agents.interfaces import RunEffort
from data_plane.agents.steps import Ending, RunState
from data_plane.events.makers import run_ended
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core.ids import RunId

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_any_effort_can_be_told() -> None:
    """The event is written in the transaction that ends the run: one that cannot be made would keep it from ending."""
    run = RunRecord(RunId("run-x"), "nurse", 3, "4711", AT, Ending(RunState.SUCCEEDED, "4711"), AT)

    event = run_ended(run, RunEffort(turns=2, tool_calls=1, output_tokens=10**30))

    assert (event.turns, event.tool_calls, event.output_tokens) == (2, 1, 2**32 - 1)
    assert event.outcome == tunnel.RUN_OUTCOME_SUCCEEDED
    assert b"4711" not in event.SerializeToString(), "nothing that a customer said"
