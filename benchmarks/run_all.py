"""Every benchmark, one after the other, and one table of what they came to.

    python benchmarks/run_all.py [NAME …]      for example: agent_run push

All take about ten minutes on two idle cores; one that takes longer than eight is stopped and FAILED.
must: promised. aim: wanted. peer: somebody else's program in the same run; ratio: ours over theirs.
Exit code 1 when one failed or missed what is promised. Figures and machine: benchmarks/results/*.json, all of them in
benchmarks/results/all.json. How to read them: docs/dev/benchmarks.md.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.report import RESULTS, machine

FOLDER = Path(__file__).resolve().parent
LIMIT_S = 480.0  # of one benchmark
STOP_S = 10.0


@dataclass(frozen=True, slots=True)
class Outcome:
    name: str
    is_right: bool  # it ran to its end
    took_s: float
    headlines: list[dict[str, Any]]
    missing: list[str]  # what was not measured, and why


def run(program: Path) -> Outcome:
    print(f"\n== {program.stem}", flush=True)
    began_s = time.monotonic()
    status = status_of(program)
    file = RESULTS / f"{program.stem}.json"
    facts = json.loads(file.read_text()) if status == 0 and file.exists() else {}
    took_s = round(time.monotonic() - began_s, 1)
    return Outcome(program.stem, status == 0, took_s, facts.get("headlines", []), facts.get("missing", []))


def status_of(program: Path) -> int:
    """Of its process. What it started goes with it when it takes too long, or when we are interrupted."""
    process = subprocess.Popen([sys.executable, str(program)], cwd=FOLDER.parent, start_new_session=True)
    try:
        return process.wait(LIMIT_S)
    except subprocess.TimeoutExpired:
        print(f"{program.stem}: stopped after {LIMIT_S:.0f} s", file=sys.stderr)
        return 1
    finally:
        if process.poll() is None:
            stop(process)


def stop(process: "subprocess.Popen[bytes]") -> None:
    """It and all of its session: asked, then killed."""
    os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def show(outcomes: Sequence[Outcome]) -> None:
    columns = "".join(f"{title:>12}" for title in ("measured", "must", "aim", "peer", "ratio"))
    print(f"\n{'benchmark':<20}{'took':>7}  {'figure':<46}{columns}")
    for outcome in outcomes:
        first = f"{outcome.name:<20}{outcome.took_s:>5.0f} s"
        if not outcome.headlines:
            print(f"{first}  {'see above' if outcome.is_right else 'FAILED'}")
        for figure in outcome.headlines:
            print(f"{first}  {line_of(figure)}")
            first = " " * 27
        for reason in outcome.missing:
            print(f"{first}  not measured: {reason}")


def line_of(figure: dict[str, Any]) -> str:
    values = "".join(f"{shown(figure[key]):>12}" for key in ("value", "must", "aim", "peer", "ratio"))
    return f"{figure['what'] + ', ' + figure['unit']:<46}{values}  {verdict(figure)}"


def shown(value: float | None) -> str:
    return "-" if value is None else f"{value:,.2f}" if abs(value) < 100 else f"{value:,.0f}"


def verdict(figure: dict[str, Any]) -> str:
    if not figure["met"]:
        return "MISSED"
    if figure["aim"] is not None:
        return "aim reached" if figure["aim_reached"] else "met" if figure["must"] is not None else "aim not reached"
    return "met" if figure["must"] is not None else ""


def keep_all(outcomes: Sequence[Outcome]) -> None:
    RESULTS.mkdir(exist_ok=True)
    facts = {"machine": machine(), "benchmarks": [asdict(outcome) for outcome in outcomes]}
    (RESULTS / "all.json").write_text(json.dumps(facts, indent=2) + "\n")


def main(names: Sequence[str]) -> int:
    """Raises SystemExit for a name that no benchmark has."""
    found = {program.stem.removeprefix("bench_"): program for program in sorted(FOLDER.glob("bench_*.py"))}
    wanted = [name.removeprefix("bench_") for name in names] or list(found)
    if unknown := sorted(set(wanted) - set(found)):
        raise SystemExit(f"No such benchmark: {', '.join(unknown)}. There are: {', '.join(found)}.")
    outcomes = [run(found[name]) for name in wanted]
    show(outcomes)
    keep_all(outcomes)
    all_met = all(figure["met"] for outcome in outcomes for figure in outcome.headlines)
    return 0 if all_met and all(outcome.is_right for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
