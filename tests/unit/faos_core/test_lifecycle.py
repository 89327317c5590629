"""Services start and stop in order, and work that must not stop in the middle does not."""

import asyncio
import gc
import logging

import pytest

from faos_core.lifecycle import running, settle_memory, undivided
from tests.patience import PATIENCE_S


class Recorded:
    """A service that writes down what happens to it."""

    def __init__(self, name: str, history: list[str]) -> None:
        self.name = name
        self.ready = asyncio.Event()
        self._history = history

    async def run(self) -> None:
        self._history.append(f"{self.name} starts")
        self.ready.set()
        try:
            await asyncio.Event().wait()
        finally:
            self._history.append(f"{self.name} stops")


class Broken(Recorded):
    async def run(self) -> None:
        raise OSError("no such port")


async def test_services_stop_in_the_reverse_order_of_their_start() -> None:
    """What others rely on must be there first and go last."""
    history: list[str] = []

    async with running([Recorded("a", history), Recorded("b", history)]):
        history.append("open")

    assert history == ["a starts", "b starts", "open", "b stops", "a stops"]


class Vanishing(Recorded):
    """As where gRPC raises CancelledError for a channel that somebody closed."""

    async def run(self) -> None:
        self.ready.set()
        raise asyncio.CancelledError


async def test_service_that_vanishes_ends_the_process() -> None:
    """A node whose tunnel was gone without a word would look as if its cloud were."""
    history: list[str] = []

    with pytest.raises(RuntimeError, match="tunnel"):
        async with asyncio.timeout(PATIENCE_S), running([Recorded("a", history), Vanishing("tunnel", history)]):
            await asyncio.Event().wait()

    assert history == ["a starts", "a stops"]


async def test_service_that_cannot_start_ends_those_before_it() -> None:
    """Half a process must not stay up; and a person reads the one thing that went wrong, not a group of it."""
    history: list[str] = []

    with pytest.raises(OSError, match="no such port"):
        async with running([Recorded("a", history), Broken("b", history)]):
            history.append("open")

    assert history == ["a starts", "a stops"]


async def test_undivided_work_ends_before_its_waiter_however_often_it_is_cancelled() -> None:
    """A second Ctrl-C must not leave a half-made step behind a process that believes it is done."""
    may_end, history = asyncio.Event(), []

    async def work() -> None:
        history.append("begun")
        await may_end.wait()
        history.append("ended")

    waiter = asyncio.ensure_future(undivided(work()))
    for _ in range(3):
        await asyncio.sleep(0)
        waiter.cancel()
    await asyncio.sleep(0)
    assert not waiter.done()

    may_end.set()

    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert history == ["begun", "ended"]


async def test_undivided_gives_result_and_error() -> None:
    """Undisturbed, it is an await."""

    async def answer() -> int:
        return 7

    async def fail() -> None:
        raise OSError("full")

    assert await undivided(answer()) == 7
    with pytest.raises(OSError, match="full"):
        await undivided(fail())


async def test_failure_of_cancelled_work_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody is left to hear of it."""

    async def fail_late() -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        raise OSError("full")

    with caplog.at_level(logging.WARNING):
        waiter = asyncio.ensure_future(undivided(fail_late()))
        await asyncio.sleep(0)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter

    assert [record.getMessage() for record in caplog.records] == ["undivided.failed_when_cancelled"]


def test_settled_memory_is_not_looked_at_again() -> None:
    """A control plane that stops for 0.1 s now and then keeps a thousand nodes waiting; a node, every run."""
    thresholds = gc.get_threshold()
    try:
        settle_memory()
        assert gc.get_freeze_count() > 0
        assert gc.get_threshold()[0] > thresholds[0]
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)
