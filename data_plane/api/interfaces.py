"""What the local API asks of the rest of the node, besides its runs."""

from dataclasses import dataclass
from typing import Protocol

from data_plane.egress.interfaces import LedgerHead
from data_plane.link.interfaces import Configuration
from data_plane.tools.errors import SERVER_UNKNOWN
from data_plane.tools.interfaces import ToolState
from faos_core.errors import FaosError, NotFoundError


@dataclass(frozen=True, slots=True)
class LinkState:
    """The tunnel and the configuration as the link sees them now."""

    spiffe_id: str
    connected: bool = False
    attempted_revision: int = 0
    healthy_revision: int = 0
    alarms: tuple[str, ...] = ()  # codes of what needs somebody's attention
    problem: FaosError | None = None  # why it is not connected, as far as that is known


class Link(Protocol):
    def state(self) -> LinkState: ...


class Running(Protocol):
    """The part of `Activation` that the API shows."""

    def running(self) -> Configuration: ...


class Ledger(Protocol):
    """The part of `Gate` that the API shows."""

    def head(self) -> LedgerHead: ...


class Tools(Protocol):
    """The part of `ToolServers` that a person at the site sees and decides about."""

    def states(self) -> list[ToolState]: ...

    async def repin(self, server: str, tool: str = "") -> list[str]: ...


class NoTools:
    """Where no tool server runs."""

    def states(self) -> list[ToolState]:
        return []

    async def repin(self, server: str, tool: str = "") -> list[str]:
        raise NotFoundError(SERVER_UNKNOWN, server=server[:80])


@dataclass(frozen=True, slots=True)
class Facts:
    """Where GetStatus looks."""

    link: Link
    configuration: Running
    ledger: Ledger
