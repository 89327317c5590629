from contextlib import suppress

import pytest

from data_plane.agents.broadcast import DELTAS_WAITING, Broadcast
from faos.site.v1 import site_pb2 as site
from faos_core.errors import UnavailableError
from faos_core.ids import RunId
from tests.fakes.model import SCRIPT_ENDED

RUN = RunId("run-1")
DELTA = site.RunEvent(text_delta=site.TextDelta(text="x"))
STEP = site.RunEvent(step_finished=site.StepFinished())


async def test_slow_watcher_loses_deltas_and_no_step() -> None:
    """A client that does not read must neither fill the node's memory nor miss what happened."""
    broadcast = Broadcast()
    broadcast.open(RUN)
    watcher, _, _ = broadcast.subscribe(RUN)

    for _ in range(DELTAS_WAITING + 5):
        broadcast.delta(RUN, 1, "x", lambda: DELTA)
    broadcast.publish(RUN, lambda: STEP)
    watcher.close(UnavailableError(SCRIPT_ENDED))

    received = []
    with suppress(UnavailableError):
        while True:
            received.append(await watcher.next())
    assert (len(received), received[-1], watcher.lost_deltas) == (DELTAS_WAITING + 1, STEP, 5)


def test_nothing_is_kept_for_runs_that_nobody_watches_or_runs() -> None:
    """A node that lives for months must not keep a channel per run that somebody once looked at."""
    broadcast = Broadcast()
    watcher, _, _ = broadcast.subscribe(RUN)

    broadcast.unsubscribe(RUN, watcher)

    assert broadcast.channel_count == 0


def test_past_is_kept_only_of_runs_that_began_here() -> None:
    """A watcher of a fresh run needs no database; one of a resumed run must see what was before this process."""
    broadcast, resumed = Broadcast(), RunId("run-2")
    broadcast.open(RUN, [lambda: DELTA])
    broadcast.open(resumed)

    for run in (RUN, resumed):
        broadcast.publish(run, lambda: STEP)

    assert (broadcast.past(RUN), broadcast.past(resumed)) == ([DELTA, STEP], None)
    broadcast.close(RUN)
    assert broadcast.past(RUN) is None


def test_event_is_not_made_when_nobody_watches() -> None:
    """Making events costs more than the step's own bookkeeping; most runs have no watcher."""
    broadcast = Broadcast()
    broadcast.open(RUN)

    broadcast.publish(RUN, lambda: pytest.fail("made for nobody"))
