"""`make sim`: simulate seeds, or show that the simulator finds defects. See world.py, judge.py and mutations.py.

make sim SEEDS=n FIRST=k        seeds k to k+n-1; exit 1 when anything that must hold did not
make sim SEEDS=1 FIRST=k TRACE=1   one of them, event by event
make sim MUTANTS=1              each mutation with the first seed that catches it
"""

# ruff: noqa: T201  # a program that people start

import argparse
import sys
import time

from tests.sim.mutations import MUTATIONS, SEEDS, caught_by
from tests.sim.world import simulate


def main() -> int:
    parser = argparse.ArgumentParser(prog="make sim")
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--trace", action="store_true")
    parser.add_argument("--mutants", action="store_true")
    options = parser.parse_args()
    if options.mutants:
        return show_mutants(options.first)
    return simulate_all(options.first, options.seeds, trace=options.trace)


def simulate_all(first: int, seeds: int, *, trace: bool) -> int:
    began_s, violations, faults, virtual_s = time.process_time(), 0, 0, 0.0
    for seed in range(first, first + seeds):
        outcome = simulate(seed)
        violations += len(outcome.violations)
        faults += outcome.faults
        virtual_s += outcome.virtual_s
        if trace:
            print("\n".join(outcome.trace), f"\ntrace sha256 {outcome.trace_sha256}")
        for violation in outcome.violations:
            print(f"seed {seed}: {violation}\n  replay: make sim SEEDS=1 FIRST={seed} TRACE=1")
    rate = seeds / (time.process_time() - began_s)
    print(f"{faults} faults in {virtual_s / 3600:.1f} virtual hours; {rate:.0f} seeds per second of CPU")
    print(f"sim: {seeds} seeds, {violations} violations")
    return 1 if violations else 0


def show_mutants(first: int) -> int:
    missed = 0
    for mutation in MUTATIONS:
        outcome = caught_by(mutation, first=first)
        missed += outcome is None
        how = f"seed {outcome.seed}: {outcome.violations[0]}" if outcome else f"not within {SEEDS} seeds"
        print(f"{mutation.owner.__name__}.{mutation.method}: {mutation.name}\n    {how}", flush=True)
    print(f"sim: {len(MUTATIONS)} mutants, {missed} missed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
