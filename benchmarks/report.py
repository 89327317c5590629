"""What every benchmark writes: the figures, the machine that they are from, and the few that decide."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True, slots=True)
class Headline:
    """A figure that somebody decides by. must: promised; aim: wanted; None where nothing is."""

    what: str
    value: float
    unit: str
    must: float | None = None
    aim: float | None = None
    peer: float | None = None  # the same figure of somebody else's program, measured in the same run
    more_is_better: bool = False

    @property
    def is_met(self) -> bool:
        return self._reaches(self.must)

    @property
    def reaches_aim(self) -> bool:
        return self._reaches(self.aim)

    @property
    def ratio(self) -> float | None:
        """Ours over the peer's."""
        return round(self.value / self.peer, 3) if self.peer else None

    def _reaches(self, bound: float | None) -> bool:
        if bound is None:
            return True
        return self.value >= bound if self.more_is_better else self.value <= bound


def machine() -> dict[str, Any]:
    """What the figures depend on. load_1m: 1-minute load average; above the number of CPUs, others were at work."""
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "cpu_model": cpu_model(),
        "memory_mib": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "load_1m": round(os.getloadavg()[0], 1),
    }


def cpu_model() -> str:
    """As Linux names it; "" where it does not."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return ""


def keep(name: str, headlines: Sequence[Headline], *, missing: Sequence[str] = (), **figures: Any) -> Path:
    """Write benchmarks/results/<name>.json; the file. missing: what was not measured, and why, in words."""
    RESULTS.mkdir(exist_ok=True)
    facts = {
        "benchmark": name,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "headlines": [
            asdict(it) | {"ratio": it.ratio, "met": it.is_met, "aim_reached": it.reaches_aim} for it in headlines
        ],
        "missing": list(missing),
        **figures,
    }
    file = RESULTS / f"{name}.json"
    file.write_text(json.dumps(facts, indent=2) + "\n")
    return file
