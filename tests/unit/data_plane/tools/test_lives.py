"""Lives of tool servers, before they begin."""

import subprocess
import sys

import pytest

from tests.patience import PATIENCE_S

AT_ONCE = """
import sys, threading
from data_plane.tools import lives
sys.setswitchinterval(1e-6)
failed = []
def run(make):
    try:
        make()
    except BaseException as error:
        failed.append(repr(error))
def made(make_life):
    return lambda: next(cell.cell_contents for cell in make_life.__closure__)(print)
of_program = made(lives.of_program("a", None, result_bytes=1))
of_endpoint = made(lives.of_endpoint("b", None, result_bytes=1))
threads = [threading.Thread(target=run, args=[make]) for make in (lives.preload, of_program, of_endpoint)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
sys.exit("; ".join(failed) or None)
"""


@pytest.mark.parametrize("attempt", range(2))
def test_servers_of_both_ways_begin_at_once_in_a_fresh_process(attempt: int) -> None:
    """Their imports run in threads and cross: one that sees half of a module would refuse a good configuration."""
    done = subprocess.run(
        [sys.executable, "-c", AT_ONCE], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
