"""Turns `@pytest.mark.needs(part)` into a skip that names the part, or into a failure where all are required."""

import os
import signal
import sys
from pathlib import Path

from faos_core.grpc_environment import SETTINGS

# Bytecode is kept whatever the environment says, and out of the sources: hundreds of processes start here, and without
# it the suite spends most of its time on compiling the same modules again.
os.environ.setdefault("PYTHONPYCACHEPREFIX", str(Path(__file__).resolve().parents[1] / ".cache" / "bytecode"))
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Before anything imports grpc: its servers here are to be those of the product, and its fork handlers run in the child
# between fork and exec, and have killed it (SIGBUS).
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", SETTINGS["GRPC_ENABLE_FORK_SUPPORT"])
os.environ.setdefault("GRPC_EXPERIMENTS", SETTINGS["GRPC_EXPERIMENTS"])

import pytest
from hypothesis import HealthCheck, settings

from tests.parts import have

sys.dont_write_bytecode, sys.pycache_prefix = False, os.environ["PYTHONPYCACHEPREFIX"]
pytest_plugins = ("tests.servers.databases",)
MISSING = pytest.StashKey[set[str]]()

# How fast examples are made says how busy the machine is, not what is wrong.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


def pytest_configure(config: pytest.Config) -> None:
    # A shell starts what is in its background deaf to Ctrl-C, and so would be every process that a test interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.stash[MISSING] = set()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests first, so that none is left alone at the end. Of several workers each begins with its share of the
    list (xdist's worksteal), so each share begins with slow ones."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    slow = sorted((item for item in items if item.get_closest_marker("slow")), key=longest_first)
    rest = [item for item in items if not item.get_closest_marker("slow")]
    dealt = []
    for worker in range(workers):
        share = slow[worker::workers]
        size = (len(items) - len(dealt)) // (workers - worker)
        fill = max(0, size - len(share))
        dealt += share + rest[:fill]
        del rest[:fill]
    items[:] = dealt


def longest_first(item: pytest.Item) -> float:
    """Those that say how long they may take."""
    mark = item.get_closest_marker("timeout")
    return -float(mark.args[0]) if mark else 0.0


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs"):
        for part in mark.args:
            if not have(part):
                item.config.stash[MISSING].add(part)
                missing(part)


def missing(part: str) -> None:
    if os.environ.get("FAOS_TEST_REQUIRE") == "all":
        pytest.fail(f"{part} is required here (FAOS_TEST_REQUIRE=all) and missing", pytrace=False)
    pytest.skip(f"needs {part}, which this machine does not have")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if parts := config.stash[MISSING]:
        terminalreporter.write_line(f"tests did without: {', '.join(sorted(parts))}", yellow=True)
