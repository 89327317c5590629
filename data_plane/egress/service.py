"""The node's egress side, put together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data_plane.ceiling.models import Ceiling, Endpoint
from data_plane.egress.gate import EgressGate
from data_plane.egress.identifiers import KnownIdentifiers
from data_plane.egress.interfaces import Gate, Identifiers
from data_plane.egress.ledger import Ledger, open_ledger
from faos_core.clock import Clock, SystemClock

if TYPE_CHECKING:
    from data_plane.egress.http_door import HttpDoor

LEDGER_FOLDER = "ledger"


@dataclass(frozen=True, slots=True)
class Egress:
    """What the composition root hands around."""

    gate: Gate
    identifiers: Identifiers
    ledger: Ledger
    ceiling: Ceiling
    clock: Clock

    def http_door(self, door: str, endpoint: Endpoint) -> "HttpDoor":
        """Not entered yet. Raises DeniedError for a door that is not registered."""
        from data_plane.egress.http_door import HttpDoor  # a site without endpoints need not pay for it at its start

        return HttpDoor(door, endpoint, doors=self.ceiling.doors, ledger=self.ledger, clock=self.clock)


def ledger_folder(data_dir: Path) -> Path:
    return data_dir / LEDGER_FOLDER


@asynccontextmanager
async def open_egress(data_dir: Path, ceiling: Ceiling, *, clock: Clock | None = None) -> AsyncIterator[Egress]:
    """Gate over the ledger of a node. Leave it after everything that sends has stopped.

    Raises: ConflictError (another node writes this ledger), IntegrityError (the ledger is damaged), StopError.
    """
    identifiers, clock = KnownIdentifiers(), clock or SystemClock()
    async with open_ledger(ledger_folder(data_dir)) as ledger:
        gate = EgressGate(ledger, identifiers, doors=ceiling.doors, clock=clock)
        yield Egress(gate, identifiers, ledger, ceiling, clock)
