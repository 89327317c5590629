"""Every benchmark, one after the other, and one table of what they came to.

    python benchmarks/run_all.py [NAME …]      for example: first_answer ledger

Exit code 1 when one failed or missed what is promised. Figures and machine: benchmarks/results/*.json.
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.report import RESULTS

FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Outcome:
    name: str
    is_right: bool  # it ran to its end
    took_s: float
    headlines: list[dict[str, Any]]


def run(program: Path) -> Outcome:
    print(f"\n== {program.stem}", flush=True)
    began_s = time.monotonic()
    status = subprocess.run([sys.executable, str(program)], cwd=FOLDER.parent).returncode
    file = RESULTS / f"{program.stem}.json"
    headlines = json.loads(file.read_text()).get("headlines", []) if status == 0 and file.exists() else []
    return Outcome(program.stem, status == 0, time.monotonic() - began_s, headlines)


def show(outcomes: Sequence[Outcome]) -> None:
    print(f"\n{'benchmark':<22}{'took':>7}  {'figure':<40}{'value':>12}  promised")
    for outcome in outcomes:
        took = f"{outcome.took_s:.0f} s"
        if not outcome.headlines:
            print(f"{outcome.name:<22}{took:>7}  {'see above' if outcome.is_right else 'FAILED'}")
        for index, figure in enumerate(outcome.headlines):
            first = f"{outcome.name:<22}{took:>7}" if index == 0 else " " * 29
            print(f"{first}  {figure['what']:<40}{figure['value']:>12,.2f}  {promise(figure)}")


def promise(figure: dict[str, Any]) -> str:
    if figure["target"] is None:
        return str(figure["unit"])
    return f"{figure['unit']}, at most {figure['target']:g}: {'met' if figure['met'] else 'MISSED'}"


def main(names: Sequence[str]) -> int:
    wanted = [FOLDER / f"bench_{name.removeprefix('bench_')}.py" for name in names]
    outcomes = [run(program) for program in wanted or sorted(FOLDER.glob("bench_*.py"))]
    show(outcomes)
    all_met = all(figure["met"] for outcome in outcomes for figure in outcome.headlines)
    return 0 if all_met and all(outcome.is_right for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
