"""When this process began: what a user's waiting is counted from."""

import os
import time
from pathlib import Path

START_TIME = 19  # of the fields after the program's name in /proc/self/stat, see proc(5): in clock ticks since boot


def command_began_s() -> float:
    """On the clock of time.monotonic(). Without /proc: now."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return time.monotonic()
    age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[START_TIME]) / os.sysconf("SC_CLK_TCK")
    return time.monotonic() - age_s
