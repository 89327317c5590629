"""What every benchmark writes: the figures, the machine that they are from, and the few that decide."""

import json
import os
import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True, slots=True)
class Headline:
    """A figure that somebody decides by. target: what it must not exceed; None where nothing is promised."""

    what: str
    value: float
    unit: str
    target: float | None = None

    @property
    def is_met(self) -> bool:
        return self.target is None or self.value <= self.target


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


def keep(name: str, headlines: list[Headline], **figures: Any) -> Path:
    """Write benchmarks/results/<name>.json; the file."""
    RESULTS.mkdir(exist_ok=True)
    facts = {
        "benchmark": name,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "headlines": [asdict(each) | {"met": each.is_met} for each in headlines],
        **figures,
    }
    file = RESULTS / f"{name}.json"
    file.write_text(json.dumps(facts, indent=2) + "\n")
    return file
