"""What came of it: a line per fault, a table by kind, a file of JSON."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.schedule import Fault


@dataclass(frozen=True, slots=True)
class Struck:
    """One fault and what came of it. recovery_s: from its end until everything had converged."""

    fault: Fault
    at_s: float
    lasted_s: float
    recovery_s: float
    note: str
    violations: Sequence[str] = field(default=())

    def line(self) -> str:
        fault = self.fault
        where = f"{fault.kind} ({fault.node})"
        text = f"{self.at_s:7.1f} s  {fault.number:>4}  {where:<46} recovered in {self.recovery_s:5.1f} s  {self.note}"
        wrong = [
            f"           VIOLATION {violation}\n           replay: {fault.replay}" for violation in self.violations
        ]
        return "\n".join([text.rstrip(), *wrong])


def table(struck: Sequence[Struck]) -> str:
    """By kind: how often, and how long until everything had converged."""
    lines = [f"{'fault':<44}{'times':>6}{'p50 s':>8}{'max s':>8}{'violations':>12}"]
    for kind in sorted({each.fault.kind for each in struck}):
        those = [each for each in struck if each.fault.kind == kind]
        times = [each.recovery_s for each in those]
        wrong = sum(len(each.violations) for each in those)
        lines.append(f"{kind:<44}{len(those):>6}{statistics.median(times):>8.1f}{max(times):>8.1f}{wrong:>12}")
    return "\n".join(lines)


def write(file: Path, *, summary: dict[str, Any], struck: Sequence[Struck]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(summary | {"struck": [asdict(each) for each in struck]}, indent=1) + "\n")
