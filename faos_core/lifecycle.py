"""Supervised services: one way to start them, know that they are ready, and stop them in order."""

import asyncio
import contextlib
import gc
import logging
import signal
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar

from faos_core import names

log = logging.getLogger(__name__)
T = TypeVar("T")

YOUNG_OBJECTS = 10_000  # between two looks for garbage among new objects; the library's 700 cost a tenth of the CPU


class Service(Protocol):
    """Something that runs until it is cancelled.

    Order: `run()` once; `ready` is set when others may rely on it. Cancelling `run()` is the only way to stop it;
    it cleans up within a bounded time and re-raises CancelledError. An exception out of `run()` ends the process.
    """

    name: str
    ready: asyncio.Event

    async def run(self) -> None: ...


@asynccontextmanager
async def running(services: Sequence[Service]) -> AsyncIterator[None]:
    """Run all services in one task group; each starts when the one before is ready; leave in reverse order.

    Raises what ended a service; a group only where several things went wrong.
    """
    with one_by_one():
        async with asyncio.TaskGroup() as group:
            tasks: list[asyncio.Task[None]] = []
            try:
                for service in services:
                    tasks.append(group.create_task(uncancelled(service), name=service.name))
                    await until_ready(service, tasks[-1])
                    log.info("service.ready", extra={names.SERVICE: service.name})
                yield
            finally:
                for task in reversed(tasks):
                    task.cancel()
                    await asyncio.wait([task])


async def uncancelled(service: Service) -> None:
    """A service that is cancelled by nobody, because a library raised CancelledError in it, would be gone without a
    word: that is a defect, and ends the process as every other."""
    try:
        await service.run()
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise RuntimeError(f"service {service.name} was cancelled by nobody") from error


def settle_memory() -> None:
    """For a process that is up: what was made until now stays, and the garbage collector need not look at it again. A
    collection of it all takes a tenth of a second, in which nothing else happens."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)


@contextlib.contextmanager
def one_by_one() -> Iterator[None]:
    """A group of one error, however deep, is raised as that error: it is what a person is told."""
    try:
        yield
    except BaseExceptionGroup as group:
        causes = {id(cause): cause for cause in causes_of(group)}
        if len(causes) > 1:
            raise
        (cause,) = causes.values()
        raise cause from None


def causes_of(group: BaseExceptionGroup[Any]) -> Iterator[BaseException]:
    """What a group, and the groups in it, hold."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from causes_of(error)
        else:
            yield error


async def until_ready(service: Service, task: asyncio.Task[None]) -> None:
    """Return when the service is ready; when its task ends first, raise what ended it."""
    waiter = asyncio.ensure_future(service.ready.wait())
    try:
        await asyncio.wait([waiter, task], return_when=asyncio.FIRST_COMPLETED)
        if task.done() and not service.ready.is_set():
            await task
    finally:
        waiter.cancel()


async def undivided(work: Coroutine[Any, Any, T]) -> T:
    """Await work that must not stop in the middle: a cancellation, however often it comes, is passed on when it is
    done. The work must be bounded: a thread's durable step, a transaction."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()):
            log.warning("undivided.failed_when_cancelled", extra={names.ERROR: type(error).__name__})
        raise


async def until_signal() -> None:
    """Return at the first SIGINT or SIGTERM."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
