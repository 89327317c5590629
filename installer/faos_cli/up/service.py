"""`faos up`: from nothing to an agent's answers, on one machine, with the real parts.

The two children start first and load while the rest is prepared; what is heavy to import here is imported then.
"""

import asyncio
import json
import signal
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from faos_cli.assets import FetchedAssets, fetch
from faos_cli.up import hints
from faos_cli.up.children import Child, Command, stop_all
from faos_cli.up.errors import CHECK_FAILED
from faos_cli.up.layout import Layout, quickstart, told_by_path
from faos_cli.up.memory import Memory, enrolled_port, exclusive, recall, remember
from faos_cli.up.ports import HOST, choose_admin_port, choose_tunnel_port
from faos_cli.up.screen import Screen, Step, shown
from faos_cli.up.site_files import Numbers, write_ceiling, write_site
from faos_core.errors import FaosError, InternalError, RetryError

if TYPE_CHECKING:
    from faos_cli.admin_client import AdminClient
    from faos_cli.up.closing import Outcome

T = TypeVar("T")

SOAK_S = 0.5
SIGHT = ("--telemetry", "file")  # for faos trace
LAST_WORDS_S = 1.0  # that a process may take to end after its connections did
RESTART_AFTER_S = 5.0  # a process that lived shorter is not started again


@dataclass(frozen=True, slots=True)
class Options:
    """As the user gave them. Ports: 0 for none asked for."""

    data: Path
    assets: Path
    once: bool = False
    json_file: Path | None = None
    tunnel_port: int = 0
    admin_port: int = 0


async def up(options: Options, screen: Screen, *, began_s: float) -> None:
    """Bring everything up, ask, check, and stay until a signal comes.

    began_s: monotonic time at which the user typed the command. Raises FaosError, for a failed check too, and
    CancelledError for a signal before all was up. However it ends, every process is stopped then.
    """
    layout = Layout(options.data.absolute())
    layout.make()
    with exclusive(layout):
        await Up(options, layout, screen, began_s).run()


class Up:
    """One run of the command."""

    def __init__(self, options: Options, layout: Layout, screen: Screen, began_s: float) -> None:
        self._options = options
        self._layout = layout
        self._screen = screen
        self._began_s = began_s
        self._quickstart = quickstart()
        self._before = recall(layout)
        self._memory = choose_ports(options, layout, self._before)
        self._control_plane = Child(control_plane_command(layout, self._memory))
        self._node = Child(node_command(layout))
        self._gave_up = threading.Event()

    @property
    def _children(self) -> tuple[Child, Child]:
        """In the order in which they are stopped."""
        return self._node, self._control_plane

    async def run(self) -> None:
        with cancelled_by_signals() as signalled:
            self._greet()
            remember(self._layout, self._memory)
            try:
                for child in reversed(self._children):
                    await child.start()
                await unless_ended(self._bring_up(), self._children)
                if not self._options.once:
                    await self._stay_up()
            except asyncio.CancelledError:
                if not signalled.is_set() or not self._memory.finished:
                    raise
            finally:
                self._gave_up.set()
                await self._stop()

    def _greet(self) -> None:
        where = shown(self._layout.root)
        self._screen.line(f"A control plane, a site node and an agent on this machine. Data: {where}")
        if self._before.begun and not self._before.finished:
            self._screen.line("  An earlier run did not come to its end; this one goes on from what is there.")
        defaults = self._memory.tunnel_port, self._memory.admin_port
        if reason := hints.about_ports(*defaults, before=self._before, asked=bool(self._options.tunnel_port)):
            self._screen.line(f"  {reason}")

    async def _bring_up(self) -> None:
        from faos_cli.up import closing, planes
        from faos_cli.up.departures import moment

        since = moment(self._layout)
        numbers = self._write_site(await self._fetch_models())
        if was_joined := planes.is_joined(self._layout):
            await self._node.go()
        async with self._reach_control_plane() as client:
            name = await self._enrol(client, was_joined=was_joined)
            await self._configure(client, name)
        outcome = await closing.ask_and_check(self._layout, self._screen, numbers, since)
        self._conclude(outcome)

    async def _fetch_models(self) -> FetchedAssets:
        with self._screen.step("models") as step:
            assets = await asyncio.to_thread(fetch, self._options.assets.absolute(), self._progress(step))
            step.outcome = f"language model and sentence embedder in {shown(assets.model.parent)}"
        return assets

    def _progress(self, step: Step) -> Any:
        """The callback also ends a fetch that nobody waits for any more."""

        def on_progress(label: str, done: int, total: int) -> None:
            if self._gave_up.is_set():
                raise KeyboardInterrupt
            step.progress(label, done, total)

        return on_progress

    def _write_site(self, assets: FetchedAssets) -> Numbers:
        with self._screen.step("site") as step:
            numbers = write_site(self._layout, self._quickstart)
            written = self._before.ceiling_sha256
            digest, was_edited = write_ceiling(self._layout, self._quickstart, assets, written_sha256=written)
            self._memory = replace(self._memory, ceiling_sha256=digest)
            step.outcome = f"fresh numbers: {numbers.document} in a document, {numbers.tool} behind the tool"
        if was_edited:
            self._screen.line(f"  {shown(self._layout.ceiling)} was edited at this site: it stays as it is.")
        return numbers

    @asynccontextmanager
    async def _reach_control_plane(self) -> "AsyncIterator[AdminClient]":
        from faos_cli import admin_client
        from faos_cli.up import planes

        with self._screen.step("control plane") as step:
            await planes.until_control_plane_ready(self._layout, self._control_plane)
            step.outcome = f"admin API {HOST}:{self._memory.admin_port}, tunnel {HOST}:{self._memory.tunnel_port}"
        async with admin_client.connect(planes.save_context(self._layout, self._memory.admin_port)) as client:
            yield client

    async def _enrol(self, client: "AdminClient", *, was_joined: bool) -> str:
        """Name of the node, which runs then."""
        from faos_cli.up import planes

        with self._screen.step("node") as step:
            await planes.ensure_site(client)
            if not was_joined:
                await planes.enrol(client, self._layout, self._memory.tunnel_port)
                await self._node.go()
            member = planes.membership(self._layout)
            how = "is a member already" if was_joined else "joined"
            step.outcome = f"{member.identity.node} {how}; fingerprint {' '.join(member.words)}"
        return str(member.identity.node)

    async def _configure(self, client: "AdminClient", node: str) -> None:
        from faos_cli.up import planes

        with self._screen.step("configuration") as step:
            applied = await planes.apply_example(client, self._quickstart)
            log = self._node.command.log
            await planes.until_healthy(client, self._layout, node, applied.revision, say=step.say, log=log)
            step.outcome = f"revision {applied.revision} is HEALTHY ({applied})"

    def _conclude(self, outcome: "Outcome") -> None:
        """Tell the checks and the times. Raises InternalError for a failed check."""
        self._screen.heading("What the journal, the ledger and the control plane's files say")
        for check in outcome.checks:
            self._screen.mark(check.is_right, check.name, check.text)
        self._memory = replace(self._memory, finished=True)
        remember(self._layout, self._memory)
        times = self._times(outcome)
        self._write_json(outcome, times)
        if not self._options.once and not outcome.failed:
            hints.tell_what_next(self._screen, self._layout)
        self._screen.line()
        self._screen.line(f"First token after {times['first_token_s']:.1f} s, all after {times['total_s']:.1f} s.")
        if outcome.failed:
            raise check_failed(outcome)

    def _times(self, outcome: "Outcome") -> dict[str, float]:
        """Seconds since the command."""
        now_s = time.monotonic()
        first_s = outcome.answers[0].first_token_at_s or now_s
        return {"first_token_s": round(first_s - self._began_s, 3), "total_s": round(now_s - self._began_s, 3)}

    def _write_json(self, outcome: "Outcome", times: dict[str, float]) -> None:
        from faos_cli.up.closing import as_json

        if file := self._options.json_file:
            began_at = time.time() - (time.monotonic() - self._began_s)
            facts = {
                "ok": not outcome.failed,
                "began_at": began_at,
                **times,
                "steps_s": self._screen.times_s,
                **as_json(outcome),
            }
            facts |= {"ports": {"tunnel": self._memory.tunnel_port, "admin": self._memory.admin_port}}
            with told_by_path(file):
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(json.dumps(facts, indent=1) + "\n")

    async def _stay_up(self) -> None:
        """Until cancelled. A process that ends by itself is started again, unless it ends at once."""
        self._screen.line("Everything stays up until Ctrl-C.")
        try:
            async with asyncio.TaskGroup() as group:
                for child in self._children:
                    group.create_task(self._keep_up(child), name=child.command.title)
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _keep_up(self, child: Child) -> None:
        while True:
            failure = await child.ended()
            if child.age_s < RESTART_AFTER_S:
                raise failure
            self._screen.line(f"{failure.what} {failure.why} Starting it again.")
            await child.start()
            await child.go()

    async def _stop(self) -> None:
        running = [child for child in self._children if child.is_running]
        if running:
            killed = await stop_all(running)
            how = f" ({', '.join(child.command.title for child in killed)} had to be killed)" if killed else ""
            self._screen.line(f"Stopped: {', '.join(child.command.title for child in running)}{how}.")


def choose_ports(options: Options, layout: Layout, before: Memory) -> Memory:
    """What to remember from now on. Raises ConflictError."""
    enrolled = enrolled_port(layout)
    tunnel = choose_tunnel_port(options.tunnel_port, enrolled=enrolled, remembered=before.tunnel_port)
    admin = choose_admin_port(options.admin_port, remembered=before.admin_port, but=tunnel)
    return Memory(admin, tunnel, before.ceiling_sha256, begun=True, finished=False)


def control_plane_command(layout: Layout, memory: Memory) -> Command:
    tunnel, admin = f"{HOST}:{memory.tunnel_port}", f"{HOST}:{memory.admin_port}"
    listen = ("--tunnel-listen", tunnel, "--admin-listen", admin, "--public-address", tunnel)
    where = ("--data", str(layout.control_plane), "--record-frames", str(layout.frames))
    arguments = ("control-plane", "run", *where, *listen, *SIGHT)
    return Command("control plane", arguments, layout.logs / "control-plane.log")


def node_command(layout: Layout) -> Command:
    where = ("--data", str(layout.node), "--site-file", str(layout.ceiling))
    arguments = ("node", "run", *where, "--soak", str(SOAK_S), *SIGHT)
    return Command("node", arguments, layout.logs / "node.log", preload="data_plane.app")


def check_failed(outcome: "Outcome") -> FaosError:
    first = outcome.failed[0]
    failed = ", ".join(check.name for check in outcome.failed)
    run_id = first.run_id or outcome.answers[0].run_id
    return InternalError(CHECK_FAILED, failed=failed, why=first.text, run_id=run_id, command=hints.program())


async def unless_ended(work: Awaitable[T], children: Sequence[Child]) -> T:
    """The work's result; when a process ends before, its own error, which says more than a broken connection."""
    task = asyncio.ensure_future(work)
    watchers = [asyncio.ensure_future(child.ended()) for child in children]
    try:
        await asyncio.wait([task, *watchers], return_when=asyncio.FIRST_COMPLETED)
        if task.done() and isinstance(task.exception(), RetryError):
            await asyncio.wait(watchers, timeout=LAST_WORDS_S, return_when=asyncio.FIRST_COMPLETED)
        for watcher in watchers:
            if watcher.done() and not (task.done() and task.exception() is None):
                raise watcher.result()
        return await task
    finally:
        for each in (task, *watchers):
            each.cancel()
        await asyncio.gather(task, *watchers, return_exceptions=True)


@contextmanager
def cancelled_by_signals() -> Iterator[asyncio.Event]:
    """The first SIGINT, SIGTERM or SIGHUP cancels the current task; further ones do nothing while it stops."""
    loop, task, signalled = asyncio.get_running_loop(), asyncio.current_task(), asyncio.Event()
    assert task

    def stop() -> None:
        if not signalled.is_set():
            signalled.set()
            task.cancel()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, stop)
    try:
        yield signalled
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
