"""How long from the command to an agent's first token, environment and models present?

    python benchmarks/bench_first_answer.py [--runs 5] [--command make|faos]

Each run is `make up ONCE=1` as a user types it, in a data folder of its own (new node, new enrolment, documents
embedded anew: "fresh"), then once more in the same folder ("again"). Seconds count from before make starts to the
first token of the first answer, which the command itself wrote down. Promised: at most 10 s on 2 cores.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.report import Headline, keep
from faos_cli.up.ports import any_free

ROOT = Path(__file__).resolve().parents[1]
FIRST_TOKEN_TARGET_S = 10.0


@dataclass(frozen=True, slots=True)
class Measure:
    what: str
    first_token_s: float
    total_s: float  # until both answers were checked and everything was stopped
    steps_s: dict[str, float]
    load_1m: float  # when it began


def commands(data: Path, file: Path) -> dict[str, list[str]]:
    tunnel = any_free()
    ports = ["--tunnel-port", str(tunnel), "--admin-port", str(any_free(tunnel))]
    arguments = ["--data", str(data), "--json", str(file), *ports]
    return {
        "make": ["make", "--silent", "up", "ONCE=1", f"ARGS={' '.join(arguments)}"],
        "faos": [sys.executable, "-m", "faos_cli", "up", "--once", *arguments],
    }


def measure(what: str, command: list[str], file: Path) -> Measure:
    """One run. Raises RuntimeError with what it said when it fails."""
    load_1m, began_at = round(os.getloadavg()[0], 1), time.time()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    total_s = time.time() - began_at
    if done.returncode != 0:
        raise RuntimeError(done.stdout + done.stderr)
    facts = json.loads(file.read_text())
    first_token_s = facts["began_at"] + facts["first_token_s"] - began_at
    steps_s = {title: round(took_s, 2) for title, took_s in facts["steps_s"].items()}
    return Measure(what, round(first_token_s, 2), round(total_s, 2), steps_s, load_1m)


def run(runs: int, which: str) -> list[Measure]:
    measures = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(runs):
            file = Path(folder) / "up.json"
            command = commands(Path(folder) / str(number), file)[which]
            for what in ("fresh", "again"):
                measures.append(measure(what, command, file))
                show(measures[-1])
    return measures


def show(row: Measure) -> None:
    steps = "  ".join(f"{title} {took_s:.1f}" for title, took_s in row.steps_s.items())
    print(f"{row.what:<7}{row.first_token_s:>14.2f}{row.total_s:>9.2f}{row.load_1m:>7.1f}  {steps}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="fresh data folders")
    parser.add_argument("--command", choices=("make", "faos"), default="make")
    options = parser.parse_args()
    print(f"{'':<7}{'first token s':>14}{'total s':>9}{'load':>7}  steps (s)")
    measures = run(options.runs, options.command)
    headlines = []
    for what in ("fresh", "again"):
        times_s = [row.first_token_s for row in measures if row.what == what]
        print(f"{what}: first token median {statistics.median(times_s):.2f} s, slowest {max(times_s):.2f} s")
        headlines.append(Headline(f"first token, {what}, slowest", max(times_s), "s", must=FIRST_TOKEN_TARGET_S))
    keep("bench_first_answer", headlines, command=options.command, runs=[asdict(row) for row in measures])


if __name__ == "__main__":
    main()
