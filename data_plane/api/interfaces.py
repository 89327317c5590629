"""What the local API asks of the rest of the node, besides its runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from data_plane.agents.interfaces import RunCounts
from data_plane.agents.sight import ActiveRun
from data_plane.agents.steps import RunState
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
class Standing:
    """Since when, with whom, and until when."""

    started_at: datetime
    connected_since: datetime | None  # None: no session is open
    control_plane: str  # host:port
    certificate_expires_at: datetime


@dataclass(frozen=True, slots=True)
class ServerHealth:
    """A tool server. problem: a code of the registry, "" while it is healthy."""

    name: str
    tools: int  # that agents are offered
    problem: str


class ClassTotal(Protocol):
    """Of the messages in the ledger with the same highest class."""

    leaves: int
    size_bytes: int


class Use(Protocol):
    """What a process takes. name: of the program, never its arguments."""

    @property
    def pid(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def cpu_s(self) -> float: ...
    @property
    def rss_bytes(self) -> int: ...


class Sight(Protocol):
    """What can be seen of the node at a glance."""

    def standing(self) -> Standing: ...
    def tool_servers(self) -> Sequence[ServerHealth]: ...
    def ledger_totals(self) -> Mapping[str, ClassTotal]: ...
    async def events_waiting(self) -> int: ...
    async def ended_runs(self) -> Mapping[RunState, int]: ...
    def counts(self) -> RunCounts: ...
    def most_runs(self) -> int: ...
    def active_runs(self) -> Sequence[ActiveRun]:
        """The longest first."""

    def output_tokens(self) -> int:
        """Since the process started."""

    async def processes(self) -> Sequence[Use]:
        """This one first, then what it started."""

    def metrics_text(self) -> str:
        """In Prometheus' text format."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Where GetStatus looks."""

    link: Link
    configuration: Running
    ledger: Ledger
    sight: Sight | None = None  # None where nobody looks
