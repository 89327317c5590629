"""Checks of an installation, for `faos doctor`: side by side, each within its time, each with a finding in words.

A check looks and changes nothing. It answers with a Finding, or raises a FaosError, which says the same three things.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from faos_core import names
from faos_core.errors import FaosError
from faos_core.lifecycle import one_by_one

log = logging.getLogger(__name__)

T = TypeVar("T")

TIME_LIMIT_S = 15.0


class Verdict(StrEnum):
    """How a check came out."""

    PASS = "pass"  # noqa: S105  # no password
    WARN = "warn"  # works, and will not for ever
    FAIL = "fail"
    SKIPPED = "skipped"  # there was nothing to look at, or another check says why not


@dataclass(frozen=True, slots=True)
class Finding:
    """What a person reads. A pass needs neither cause nor next step."""

    verdict: Verdict
    what: str
    cause: str = ""
    next_step: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """One question. `name` is stable, so that scripts can ask for it; `subject` says what of several it is about."""

    name: str
    run: Callable[[], Awaitable[Finding]]
    subject: str = ""
    time_limit_s: float = TIME_LIMIT_S


@dataclass(frozen=True, slots=True)
class Result:
    check: Check
    finding: Finding
    took_s: float


async def examine(checks: Sequence[Check], tell: Callable[[Result], None] = lambda _: None) -> list[Result]:
    """All results, in the order of the checks. tell: is called with each as soon as it is there.

    Cancelling it ends what is under way. Raises what `tell` raises: whoever reads may be gone.
    """
    with one_by_one():
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_answer(check, tell), name=check.name) for check in checks]
    return [task.result() for task in tasks]


async def _answer(check: Check, tell: Callable[[Result], None]) -> Result:
    began_s = time.monotonic()
    finding = await _finding(check)
    result = Result(check, finding, time.monotonic() - began_s)
    tell(result)
    return result


async def _finding(check: Check) -> Finding:
    try:
        async with asyncio.timeout(check.time_limit_s):
            return await check.run()
    except TimeoutError:
        what = f"No answer within {check.time_limit_s:g} s."
        return Finding(Verdict.FAIL, what, "What was asked hangs, or this machine is very busy.", "Try again.")
    except FaosError as error:
        return failed(error)
    except Exception as error:  # noqa: BLE001  # the supervisor of the checks: one that breaks must not hide the others
        log.warning("check.crashed", extra={names.ERROR: type(error).__name__})
        return Finding(
            Verdict.FAIL,
            f"The check itself failed ({type(error).__name__}).",
            "A defect of ours.",
            "Please report it.",
        )


async def in_thread(look: Callable[[], T]) -> T:
    """As asyncio.to_thread, but a look that never returns, at a dead network disk, does not keep the process."""
    loop, answer = asyncio.get_running_loop(), asyncio.Future[T]()

    def tell(set_it: Callable[[Any], None], value: object) -> None:
        if not answer.done():
            set_it(value)

    def work() -> None:
        try:
            found: tuple[Callable[[Any], None], object] = answer.set_result, look()
        except Exception as error:  # noqa: BLE001  # handed to who waits
            found = answer.set_exception, error
        with suppress(RuntimeError):  # nobody waits any more: the loop is closed
            loop.call_soon_threadsafe(tell, *found)

    threading.Thread(target=work, daemon=True).start()
    return await answer


def failed(error: FaosError, verdict: Verdict = Verdict.FAIL) -> Finding:
    """What an error says, as a finding."""
    return Finding(verdict, error.what, error.why, error.next_step)


def passed(what: str) -> Finding:
    return Finding(Verdict.PASS, what)


def skipped(what: str) -> Finding:
    return Finding(Verdict.SKIPPED, what)
