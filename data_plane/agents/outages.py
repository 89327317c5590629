"""What stops a run for now and is no outcome of it: a database that is away, a disk without room."""

from data_plane.egress.errors import LEDGER_UNWRITABLE
from faos_core.errors import FaosError
from faos_core.store_errors import DISK_FULL, is_outage


def passes(error: FaosError) -> bool:
    """Whether a run that met this waits, and goes on from the journal when it is over: nobody asks again."""
    return is_outage(error) or error.code in (DISK_FULL, LEDGER_UNWRITABLE)
