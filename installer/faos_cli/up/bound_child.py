"""python -m faos_cli.up.bound_child PARENT_PID PRELOAD ARGUMENTS… — a `faos` command that dies with its parent.

PRELOAD names a module of the node to import while waiting for the line "go" on standard input; "-" begins at once.
The end of standard input instead of that line means that the parent gave up.
"""

import ctypes
import importlib
import os
import signal
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1
GO = "go\n"


def die_with(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent ends, kill -9 included. See prctl(2).

    Both planes are built to survive a kill at any moment, so a signal that cannot be missed is the kinder one.
    """
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        sys.exit(0)  # it ended before the request was made


def main(arguments: Sequence[str]) -> None:
    parent_pid, preload, *command = arguments
    die_with(int(parent_pid))
    if preload != "-":
        importlib.import_module(f"data_plane.{preload.removeprefix('data_plane.')}")  # of ours, whatever it says
        if sys.stdin.readline() != GO:
            return
    from faos_cli.__main__ import main as faos

    faos(command)


if __name__ == "__main__":
    main(sys.argv[1:])
