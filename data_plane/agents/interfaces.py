"""What the local API needs from runs, and what runs need from the node."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from data_plane.link.interfaces import Configuration
from data_plane.models.interfaces import ModelRuntime
from faos.site.v1 import site_pb2 as site
from faos_core.ids import RunId

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from data_plane.agents.events import RunRecord


@dataclass(frozen=True, slots=True)
class RunCounts:
    active: int
    finished: int  # since the store was made


@dataclass(frozen=True, slots=True)
class RunEffort:
    """What a run took, in numbers."""

    turns: int = 0
    tool_calls: int = 0
    output_tokens: int = 0


class RunEnded(Protocol):
    """Hears of each run's end once, in the transaction that makes it durable: what it writes there is durable with it,
    or not at all. In the store's writer thread; may be called again where the transaction had to be tried again."""

    def __call__(self, connection: "Connection", run: "RunRecord", effort: RunEffort) -> None: ...


class RunService(Protocol):
    """Agent runs: durable, resumed after a crash. `site` protos are its values: one definition, not two."""

    async def start(self, agent: str, text: str, *, idempotency_key: str = "", subject: str = "") -> RunId:
        """Record a run durably and start it. The run goes on whoever listens.

        Raises: NotFoundError (no such agent in the running revision), LimitError (too many runs).
        """

    def watch(self, run_id: RunId, *, after_sequence: int = 0) -> AsyncIterator[site.RunEvent]:
        """Events of a run, recorded ones first, then live ones, ending with RunFinished. Raises NotFoundError."""

    async def cancel(self, run_id: RunId) -> site.Run:
        """Stop a run: no step begins any more, the one under way is abandoned (generation stops, a tool's server is
        told). Durable, then stopped: it has stopped, or is about to, when this returns. Idempotent.

        Returns the run as it stands: one that had ended is as it was. Raises NotFoundError.
        """

    async def get(self, run_id: RunId) -> tuple[site.Run, list[site.Step]]:
        """Raises NotFoundError."""

    async def list(self, *, page_size: int, page_token: str) -> tuple[list[site.Run], str]:
        """Newest first, and the token of the next page ("" at the end)."""

    async def resume_all(self) -> int:
        """Take up every run that a crash cut off; how many. Called once after the first activation."""

    def counts(self) -> RunCounts: ...


class LoadedModels(Protocol):
    """The models of the running configuration."""

    def runtime(self, name: str) -> ModelRuntime:
        """The loaded Model of this name. Raises NotFoundError."""


class RunningConfiguration(Protocol):
    """The part of `Activation` that runs look at."""

    def running(self) -> Configuration:
        """The active configuration; an empty one of revision 0 before the first."""
