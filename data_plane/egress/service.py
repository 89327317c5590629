"""The node's egress side, put together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data_plane.ceiling.models import Ceiling, Endpoint
from data_plane.egress.authorities import Authorities, load_authorities
from data_plane.egress.doors import PROXY
from data_plane.egress.errors import PROXY_MISSING
from data_plane.egress.gate import EgressGate
from data_plane.egress.identifiers import KnownIdentifiers
from data_plane.egress.interfaces import Gate, Identifiers
from data_plane.egress.ledger import Entry, Ledger, open_ledger
from data_plane.egress.proxy import ProxyRequest, open_proxy
from data_plane.egress.relay import Relay
from data_plane.egress.route import TunnelRoute
from data_plane.network import Network
from faos_core.clock import Clock, SystemClock
from faos_core.errors import SetupError

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
    route: TunnelRoute
    authorities: Authorities
    relay: Relay | None = None  # None: nothing goes through a proxy

    def http_door(self, door: str, endpoint: Endpoint) -> "HttpDoor":
        """Not entered yet. Raises DeniedError for a door that is not registered."""
        from data_plane.egress.http_door import HttpDoor  # a site without endpoints need not pay for it at its start

        return HttpDoor(
            door,
            endpoint,
            doors=self.ceiling.doors,
            ledger=self.ledger,
            clock=self.clock,
            authorities=self.authorities,
            relay=self.relay,
        )


def ledger_folder(data_dir: Path) -> Path:
    return data_dir / LEDGER_FOLDER


@asynccontextmanager
async def open_egress(
    data_dir: Path, ceiling: Ceiling, *, clock: Clock | None = None, network: Network | None = None
) -> AsyncIterator[Egress]:
    """Gate over the ledger of a node. Leave it after everything that sends has stopped.

    Raises: ConflictError (another node writes this ledger), IntegrityError (the ledger is damaged), SetupError (the
    network's proxy or authorities), StopError.
    """
    identifiers, clock, network = KnownIdentifiers(), clock or SystemClock(), network or Network()
    refuse_without_proxy(ceiling, network)
    authorities = await asyncio.to_thread(load_authorities, network.ca_dir, clock.now())
    async with AsyncExitStack() as stack:
        ledger = await stack.enter_async_context(open_ledger(ledger_folder(data_dir)))
        gate = EgressGate(ledger, identifiers, doors=ceiling.doors, clock=clock)
        proxy = open_proxy(network, authorities, ProxyLeaves(ledger, clock))
        relay = await stack.enter_async_context(Relay(data_dir, proxy)) if proxy else None
        yield Egress(gate, identifiers, ledger, ceiling, clock, TunnelRoute(clock, relay), authorities, relay)


def refuse_without_proxy(ceiling: Ceiling, network: Network) -> None:
    """Raises SetupError for an endpoint that would never be reached."""
    for endpoint in ceiling.endpoints.values():
        if endpoint.through_proxy and not network.proxy:
            raise SetupError(PROXY_MISSING, endpoint=endpoint.name)


@dataclass(frozen=True, slots=True)
class ProxyLeaves:
    """Records what the proxy is asked."""

    ledger: Ledger
    clock: Clock

    async def __call__(self, request: ProxyRequest) -> None:
        entry = Entry(
            at=self.clock.now(),
            door=PROXY.name,
            destination=str(request.proxy),
            method=f"CONNECT {request.destination}",
            message="http.request",
            fields_by_class={"IDENTIFIER": 1},
            body=request.wire,
            keep_body=not request.is_secret,
        )
        await self.ledger.append(entry)
