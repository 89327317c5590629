"""What processes take, as the kernel says it."""

import subprocess
import sys

from data_plane.telemetry.processes import family

SECRET = "--token=4711"  # what a careless command line holds
CHILD = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'input()']).wait()"


def test_family_is_the_process_its_children_and_theirs() -> None:
    """A tool server's own child that eats the machine must be seen."""
    with subprocess.Popen([sys.executable, "-c", CHILD, SECRET], stdin=subprocess.PIPE, text=True) as child:
        found = family()
        while len(below := family(child.pid)) < 2:
            assert child.poll() is None
        found = family()
        assert child.stdin
        child.stdin.write("\n")

    pids = [use.pid for use in found]
    assert found[0].rss_bytes > 1_000_000
    assert found[0].cpu_s > 0
    assert pids.index(child.pid) < pids.index(below[1].pid)


def test_arguments_of_a_program_are_never_told() -> None:
    """Command lines hold paths and, against all advice, passwords."""
    with subprocess.Popen([sys.executable, "-c", "input()", SECRET], stdin=subprocess.PIPE, text=True) as child:
        found = family(child.pid)
        assert child.stdin
        child.stdin.write("\n")

    assert SECRET not in str(found)
    assert len(found) == 1


def test_process_that_is_gone_is_nobody() -> None:
    """Between two looks a child may end; that must not break the picture."""
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        pass

    assert family(child.pid) == []
