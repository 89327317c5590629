"""What the local API needs from runs."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from faos.site.v1 import site_pb2 as site

from faos_core.ids import RunId


@dataclass(frozen=True, slots=True)
class RunCounts:
    active: int
    finished: int  # since the store was made


class RunService(Protocol):
    """Agent runs: durable, resumed after a crash. `site` protos are its values: one definition, not two."""

    async def start(self, agent: str, text: str, *, idempotency_key: str = "", subject: str = "") -> RunId:
        """Record a run durably and start it. The run goes on whoever listens.

        Raises: NotFoundError (no such agent in the running revision), LimitError (too many runs).
        """

    def watch(self, run_id: RunId, *, after_sequence: int = 0) -> AsyncIterator[site.RunEvent]:
        """Events of a run, recorded ones first, then live ones, ending with RunFinished. Raises NotFoundError."""

    async def get(self, run_id: RunId) -> tuple[site.Run, list[site.Step]]:
        """Raises NotFoundError."""

    async def list(self, *, page_size: int, page_token: str) -> tuple[list[site.Run], str]:
        """Newest first, and the token of the next page ("" at the end)."""

    async def resume_all(self) -> int:
        """Take up every run that a crash cut off; how many. Called once after the first activation."""

    def counts(self) -> RunCounts: ...
