import os
import subprocess
import sys

import pytest

from faos_core.grpc_environment import SETTINGS, settle
from tests.patience import PATIENCE_S

SERVE = """
import asyncio, grpc

async def main():
    server = grpc.aio.server()
    server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await server.stop(0)

asyncio.run(main())
"""


def test_what_somebody_has_set_stays() -> None:
    """Whoever looks for a fault in gRPC must be able to hear it."""
    environment = {"GRPC_VERBOSITY": "DEBUG"}

    settle(environment)

    assert environment == SETTINGS | {"GRPC_VERBOSITY": "DEBUG"}


@pytest.mark.parametrize(
    ("experiments", "is_known"), [(SETTINGS["GRPC_EXPERIMENTS"], True), ("-event_engine_of_nobody", False)]
)
def test_grpc_knows_the_experiments_that_we_turn_off(experiments: str, is_known: bool) -> None:
    """A version without them would pass over the word, and a push would cost a seventh more."""
    environment = os.environ | {"GRPC_VERBOSITY": "ERROR", "GRPC_EXPERIMENTS": experiments}

    done = subprocess.run(
        [sys.executable, "-c", SERVE], env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )

    assert ("Unknown experiment" not in done.stderr) == is_known
