"""Checks side by side: one that hangs, breaks or refuses must not hide the others."""

import asyncio
import threading
import time

import pytest

from faos_core.checkup import Check, Finding, Result, Verdict, examine, in_thread, passed
from faos_core.errors import SetupError, define
from tests.patience import PATIENCE_S

BROKEN = define("test.broken", what="{it} is broken.", why="It fell.", next_step="Mend {it}.")


async def all_of(*checks: Check) -> list[Result]:
    return await examine(checks)


async def test_results_come_as_they_are_there() -> None:
    """Who waits for a slow disk sees the wrong clock at once."""
    gate = asyncio.Event()

    async def slow() -> Finding:
        await gate.wait()
        return passed("slow")

    async def quick() -> Finding:
        return passed("quick")

    told = []

    def tell(result: Result) -> None:
        told.append(result.finding.what)
        gate.set()

    results = await examine([Check("slow", slow), Check("quick", quick)], tell)
    assert told == ["quick", "slow"]
    assert [result.check.name for result in results] == ["slow", "quick"]


async def test_hanging_check_ends_with_its_time() -> None:
    """A doctor that hangs is no help."""

    async def hang() -> Finding:
        await asyncio.Event().wait()
        raise AssertionError

    [result] = await all_of(Check("hang", hang, time_limit_s=0.05))
    assert (result.finding.verdict, result.finding.what) == (Verdict.FAIL, "No answer within 0.05 s.")


async def test_error_says_what_why_and_next() -> None:
    """The registry's words are the finding."""

    async def refuse() -> Finding:
        raise SetupError(BROKEN, it="the cup")

    async def crash() -> Finding:
        raise ZeroDivisionError

    first, second = sorted(await all_of(Check("a", refuse), Check("b", crash)), key=lambda each: each.check.name)
    assert first.finding == Finding(Verdict.FAIL, "the cup is broken.", "It fell.", "Mend the cup.")
    assert second.finding.verdict is Verdict.FAIL
    assert "ZeroDivisionError" in second.finding.what


async def test_leaving_early_ends_what_is_under_way() -> None:
    """Ctrl-C ends the command."""
    begun, ended = asyncio.Event(), asyncio.Event()

    async def wait() -> Finding:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    async def quick() -> Finding:
        return passed("")

    under_way = asyncio.ensure_future(examine([Check("wait", wait), Check("quick", quick)]))
    await begun.wait()
    under_way.cancel()
    with pytest.raises(asyncio.CancelledError):
        await under_way
    assert ended.is_set()


async def test_errors_of_a_thread_come_back() -> None:
    """Files are read beside the loop."""
    try:
        await in_thread(lambda: 1 // 0)
    except ZeroDivisionError:
        return
    raise AssertionError


def test_look_that_never_returns_does_not_keep_the_process() -> None:
    """A dead network disk answers nobody, and cannot be interrupted."""
    release = threading.Event()

    async def main() -> list[Result]:
        return await all_of(Check("disk", lambda: in_thread(lambda: passed(str(release.wait(600)))), time_limit_s=0.05))

    began_s = time.monotonic()
    [result] = asyncio.run(main())
    release.set()

    assert result.finding.verdict is Verdict.FAIL
    assert time.monotonic() - began_s < PATIENCE_S


async def test_reader_who_is_gone_ends_it_as_itself() -> None:
    """`faos doctor | head` is no defect: the pipe that broke must arrive as that, and not in a group."""

    def tell(result: Result) -> None:
        raise BrokenPipeError

    async def look() -> Finding:
        return passed("")

    with pytest.raises(BrokenPipeError):
        await examine([Check("one", look)], tell)
