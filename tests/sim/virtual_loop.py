"""An asyncio event loop on virtual time: no thread, no socket, no clock. What runs on it runs the same every time.

Tasks belong to an `Owner` (one start of a node). When the owner dies, its threads never finish what they had not
begun, and its tasks unwind without touching anything.
"""

import asyncio
import heapq
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

THREAD_S = 0.02  # mean time that a thread's step takes
BUSY = 5000  # callbacks at one moment; more is a loop without end
MOST_UNWINDS = 100
DAY_0 = datetime(2026, 1, 1, tzinfo=UTC)


class PowerCutError(BaseException):
    """The machine, or the process, stops here. Not an Exception: no handler of the product may see it."""


class Owner:
    """One life of a process. on_cut: called when one of its threads dies of a PowerCutError."""

    def __init__(self, on_cut: Callable[[], None]) -> None:
        self.is_dead = False
        self.on_cut = on_cut
        self.futures: set[asyncio.Future[Any]] = set()

    def die(self) -> None:
        self.is_dead = True
        for future in list(self.futures):
            if not future.done():
                future.set_exception(PowerCutError())
        self.futures.clear()


OWNER: ContextVar[Owner | None] = ContextVar("owner", default=None)


class VirtualLoop(asyncio.AbstractEventLoop):
    """`run` performs everything that is due, in order of time and then of asking, until told to stop."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._now_s = 0.0
        self._asked = 0
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, Any, tuple[Any, ...] | None]] = []
        self._unwinds = 0
        self.failures: list[str] = []

    # ---- what the simulator uses

    def after(self, delay_s: float, callback: Callable[..., object], *args: Any) -> None:
        """A plain event, cheaper than call_later and not to be cancelled."""
        self.at(self._now_s + delay_s, callback, *args)

    def at(self, when_s: float, callback: Callable[..., object], *args: Any) -> None:
        """Exactly then; after what was asked for the same moment before."""
        self._asked += 1
        heapq.heappush(self._timers, (when_s, self._asked, callback, args))

    def run(self, until: Callable[[], bool], after_each: Callable[[], None], *, at_most_s: float) -> None:
        """Events one by one until `until()`; it is asked after each event, as `after_each` is called."""
        events._set_running_loop(self)
        try:
            while self._timers and not until():
                at_s, _, callback, args = heapq.heappop(self._timers)
                if at_s > at_most_s:
                    return
                self._now_s = max(self._now_s, at_s)
                if args is None:
                    if callback._cancelled:
                        continue
                    callback._run()
                else:
                    callback(*args)
                self._drain()
                after_each()
        finally:
            events._set_running_loop(None)

    def unwind(self) -> None:
        """After the owners died: let their tasks end."""
        events._set_running_loop(self)
        try:
            while self._ready and self._unwinds < MOST_UNWINDS:
                self._unwinds += 1
                self._drain()
        finally:
            events._set_running_loop(None)

    def _drain(self) -> None:
        ready, left = self._ready, BUSY
        while ready:
            left -= 1
            if left < 0:
                self.failures.append(f"no end of work at {self._now_s:.3f} s")
                return
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()

    # ---- what asyncio asks of a loop

    def time(self) -> float:
        return self._now_s

    def get_debug(self) -> bool:
        return False

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_at(self, when: float, callback: Any, *args: Any, context: Context | None = None) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._asked += 1
        heapq.heappush(self._timers, (when, self._asked, handle, None))
        return handle

    def call_later(
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now_s + delay, callback, *args, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        task._log_destroy_pending = False  # the end of a simulation is no leak
        return task

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """A thread: its step happens at one moment, some time later, whoever still waits for it."""
        future = self.create_future()
        owner = OWNER.get()
        if owner:
            if owner.is_dead:
                future.set_exception(PowerCutError())
                return future
            owner.futures.add(future)
        self.after(self._rng.expovariate(1 / THREAD_S), self._thread, owner, future, func, args)
        return future

    def _thread(self, owner: Owner | None, future: asyncio.Future[Any], func: Any, args: tuple[Any, ...]) -> None:
        if owner and owner.is_dead:
            return
        try:
            result = func(*args)
        except PowerCutError:
            assert owner is not None
            owner.on_cut()
            return
        except Exception as error:  # noqa: BLE001  # it belongs to whoever awaits the thread
            if not future.done():
                future.set_exception(error)
        else:
            if not future.done():
                future.set_result(result)
        if owner:
            owner.futures.discard(future)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not _is_cut(error):
            self.failures.append(f"{context.get('message')}: {error!r}")

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False


def _is_cut(error: BaseException | None) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_is_cut(each) for each in error.exceptions)
    return isinstance(error, PowerCutError)


class VirtualClock:
    """Implements faos_core.clock.Clock on a loop; `offset_s` is how far the wall clock is off."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.offset_s = 0.0

    def now(self) -> datetime:
        return DAY_0 + timedelta(seconds=self.wall_s())

    def wall_s(self) -> float:
        """Seconds since DAY_0, as this machine believes."""
        return self._loop.time() + self.offset_s

    def monotonic_s(self) -> float:
        return self._loop.time()

    async def sleep(self, duration_s: float) -> None:
        await asyncio.sleep(duration_s)
