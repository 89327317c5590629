"""`make chaos`: real processes, real faults, one after the other by seed. See docs/ops/faults.md.

make chaos FAULTS=n SEED=k MINUTES=m   n faults by the schedule of seed k, no more than m minutes
make chaos SEED=k FIRST=i FAULTS=1     fault number i of that schedule alone

Everything runs in namespaces of an ordinary user, processes too: nothing is left of it, however it ends, but what a
violation leaves to look at.
"""

# ruff: noqa: T201  # a program that people start

import argparse
import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.chaos import report
from tests.chaos.faults import ViolatedError, strike
from tests.chaos.fleet import PATH, DiedError, Fleet, fleet
from tests.chaos.judge import Judge
from tests.chaos.load import Load
from tests.chaos.report import Struck
from tests.chaos.schedule import CLOCK, Fault, Kind, schedule
from tests.parts import ROOT, have

INSIDE = "FAOS_CHAOS_INSIDE"
NEEDED = ("namespaces", "postgres", "model", "embedder")
RESULTS = ROOT / ".cache" / "chaos"


def main() -> int:
    options = parse()
    if not os.environ.get(INSIDE):
        if missing := [part for part in NEEDED if not have(part)]:
            print(f"make chaos needs {', '.join(missing)}: scripts/provision.sh all")
            return 2
        own = [
            "unshare",
            "--user",
            "--map-root-user",
            "--net",
            "--mount",
            "--pid",
            "--mount-proc",
            "--fork",
            "--kill-child",
        ]
        command = [*own, sys.executable, "-m", "tests.chaos", *sys.argv[1:]]
        os.execvpe(own[0], command, os.environ | {INSIDE: "1"})
    return run(options)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--faults", type=int, default=150)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--bound", type=float, default=120.0, help="seconds to converge after a fault")
    parser.add_argument("--kinds", default="", help="names of schedule.Kind, comma-separated; all of them")
    parser.add_argument("--json", type=Path, help="where the result goes")
    return parser.parse_args()


def kinds_of(names: str) -> list[Kind]:
    """Those of the schedule. Without libfaketime clocks stay as they are, and that is said."""
    wanted = [Kind[name] for name in names.split(",")] if names else list(Kind)
    if not have("faketime") and CLOCK & set(wanted):
        print("· chaos will do without clock jumps: install the package faketime (scripts/provision.sh all)")
        wanted = [kind for kind in wanted if kind not in CLOCK]
    return wanted


def run(options: argparse.Namespace) -> int:
    folder = Path(tempfile.mkdtemp(prefix="faos-chaos-"))
    faults = schedule(
        options.seed, first=options.first, count=options.faults, nodes=options.nodes, kinds=kinds_of(options.kinds)
    )
    chaos = Chaos(folder, faults, options)
    print(f"chaos: {len(faults)} faults of seed {options.seed}, {options.minutes:.0f} minutes at most; logs: {folder}")
    began_s = time.monotonic()
    for number in (signal.SIGINT, signal.SIGTERM):  # one of a background job is ignored otherwise
        signal.signal(number, signal.default_int_handler)
    try:
        asyncio.run(chaos.run())
    except KeyboardInterrupt:
        print("interrupted")
    took_s = time.monotonic() - began_s
    return close(chaos, options, took_s)


def close(chaos: "Chaos", options: argparse.Namespace, took_s: float) -> int:
    """The table, the file, the last line; the exit code."""
    violations = [*(violation for each in chaos.struck for violation in each.violations), *chaos.at_the_end]
    summary = {"seed": options.seed, "faults": len(chaos.struck), "violations": violations, "seconds": round(took_s, 1)}
    file = options.json or RESULTS / f"{options.seed}.json"
    report.write(file, summary=summary | chaos.facts, struck=chaos.struck)
    if chaos.struck:
        print(report.table(chaos.struck))
    for violation in chaos.at_the_end:
        print(f"VIOLATION at the end: {violation}")
    print("; ".join(f"{value} {name}" for name, value in chaos.facts.items()))
    if violations:
        keep_disks(chaos.folder)
        print(f"what the processes said: {chaos.folder}")
    else:
        for disk in chaos.folder.glob("node-*/disk"):
            subprocess.run(["umount", "--lazy", str(disk)], env=os.environ | {"PATH": PATH}, check=False)
        shutil.rmtree(chaos.folder, ignore_errors=True)
    per_fault_s = took_s / max(1, len(chaos.struck))
    print(f"seed {options.seed}, {took_s:.0f} s, {per_fault_s:.1f} s for each fault")
    print(f"chaos: {len(chaos.struck)} faults, {len(violations)} violations")
    return 1 if violations or (len(chaos.struck) < len(chaos.faults) and took_s < options.minutes * 60) else 0


def keep_disks(folder: Path) -> None:
    """Beside where they are mounted: the mounts end with this process."""
    for disk in folder.glob("node-*/disk"):
        shutil.copytree(disk, disk.with_name("disk-in-the-end"), ignore=sockets_of, dirs_exist_ok=True)


def sockets_of(folder: str, found: list[str]) -> list[str]:
    return [name for name in found if (Path(folder) / name).is_socket()]


class Chaos:
    """One run of a schedule."""

    def __init__(self, folder: Path, faults: Sequence[Fault], options: argparse.Namespace) -> None:
        self.folder = folder
        self.faults = faults
        self.options = options
        self.struck: list[Struck] = []
        self.at_the_end: list[str] = []
        self.facts: dict[str, Any] = {}
        self._began_s = time.monotonic()

    async def run(self) -> None:
        async with fleet(self.folder, nodes=self.options.nodes) as made:
            load = Load(self.options.seed, made)
            judge = Judge(made, load, self.options.bound)
            await load.begin()
            self.at_the_end += await judge.converged()
            print(
                f"{time.monotonic() - self._began_s:7.1f} s        {len(made.nodes)} nodes run revision 1", flush=True
            )
            async with asyncio.TaskGroup() as group:
                for node in made.nodes:
                    group.create_task(load.ask_on(node))
                await self._strike_all(made, load, judge)
                load.stopping.set()
            self.at_the_end += [wrong async for wrong in judge.end()]
            self.facts = facts_of(load)

    async def _strike_all(self, made: Fleet, load: Load, judge: Judge) -> None:
        for fault in self.faults:
            if time.monotonic() - self._began_s > self.options.minutes * 60:
                return
            struck = await self._strike(made, load, judge, fault)
            self.struck.append(struck)
            print(struck.line(), flush=True)

    async def _strike(self, made: Fleet, load: Load, judge: Judge, fault: Fault) -> Struck:
        """A revision is on its way while the fault strikes."""
        chance, began_s = random.Random(f"{fault.seed}/{fault.number}/moment"), time.monotonic()
        note, wrong = "", []
        async with asyncio.TaskGroup() as group:
            group.create_task(publish_later(load, f"rule-{fault.number}", chance.uniform(0.0, 2.0)))
            await asyncio.sleep(chance.uniform(0.0, 1.0))
            struck_s = time.monotonic()
            try:
                note = await strike(made, fault)
            except (ViolatedError, DiedError, AssertionError) as error:
                wrong.append(str(error))
            over_s = time.monotonic()
        try:
            wrong += await judge.converged()
            recovered_s = time.monotonic()
            wrong += [] if wrong else [each async for each in judge.standing()]
        except DiedError as error:
            recovered_s = time.monotonic()
            wrong.append(str(error))
        if wrong:
            await restore(made)
        return Struck(fault, began_s - self._began_s, over_s - struck_s, recovered_s - over_s, note, wrong)


async def publish_later(load: Load, name: str, delay_s: float) -> None:
    await asyncio.sleep(delay_s)
    await load.publish(name)


async def restore(made: Fleet) -> None:
    """After a fault that went wrong: what can be had back, so that the next one strikes something."""
    for node in made.nodes:
        node.disk.free()
        for end in ("node", "cloud"):
            node.set_cable(end=end, is_up=True)
    for process in made.processes():
        process.set_clock("+0")
        if process.life and process.life.process.poll() is not None:
            await process.ended()
        if process.life is None:
            process.launch()


def facts_of(load: Load) -> dict[str, Any]:
    return {
        "revisions acknowledged": len(load.revisions),
        "runs acknowledged": len(load.runs),
        "steps recorded": sum(len(run.steps) for run in load.runs),
        "calls tried again": load.retries,
        "starts of processes": sum(process.lives for process in load.fleet.processes()),
    }


if __name__ == "__main__":
    sys.exit(main())
