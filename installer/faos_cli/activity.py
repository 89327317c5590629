"""What both sides are busy with: samples, what happened between two of them, and the lines that show it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from faos.admin.v1 import admin_pb2 as admin
from faos.site.v1 import site_pb2 as site
from faos_cli import admin_client, site_client
from faos_cli.context import Context
from faos_cli.errors import NO_ANSWER
from faos_cli.glance import PATIENCE_S
from faos_cli.output import as_json
from faos_core.errors import FaosError, UnavailableError

C = TypeVar("C")
A = TypeVar("A")


@dataclass(frozen=True, slots=True)
class CloudActivity:
    """What the control plane says. metrics: of the process that answered."""

    nodes: Sequence[admin.Node]
    metrics: admin.GetMetricsResponse


@dataclass(frozen=True, slots=True)
class Sample:
    """Both sides at one moment. None: not in this context. FaosError: why it does not answer."""

    taken_s: float  # monotonic
    node: site.GetActivityResponse | FaosError | None
    cloud: CloudActivity | FaosError | None

    @property
    def is_well(self) -> bool:
        return not isinstance(self.node, FaosError) and not isinstance(self.cloud, FaosError)


@dataclass(frozen=True, slots=True)
class Rates:
    """Per second, between two samples. What shrank, because the node was started anew meanwhile, counts as 0."""

    ledger_messages: float = 0.0
    ledger_bytes: float = 0.0
    tokens: float = 0.0
    runs: float = 0.0
    cpu: tuple[tuple[int, float], ...] = ()  # by pid: processors in use, 1.0 is a whole one


def rates(before: Sample | None, after: Sample) -> Rates:
    if before is None or not isinstance(before.node, site.GetActivityResponse):
        return Rates()
    if not isinstance(after.node, site.GetActivityResponse) or after.taken_s <= before.taken_s:
        return Rates()
    passed_s, old, new = after.taken_s - before.taken_s, before.node, after.node
    used = {each.pid: each.cpu_seconds for each in old.processes}
    cpu = [
        (each.pid, max(0.0, each.cpu_seconds - used[each.pid]) / passed_s) for each in new.processes if each.pid in used
    ]
    return Rates(
        ledger_messages=max(0, new.ledger_leaves - old.ledger_leaves) / passed_s,
        ledger_bytes=max(0, new.ledger_bytes - old.ledger_bytes) / passed_s,
        tokens=max(0, tokens_of(new) - tokens_of(old)) / passed_s,
        runs=max(0, new.ended_runs - old.ended_runs) / passed_s,
        cpu=tuple(cpu),
    )


def tokens_of(activity: site.GetActivityResponse) -> int:
    """Of the turns that are over; those of a turn under way come with its end."""
    return activity.output_tokens


class Side(Generic[C, A]):
    """One side, asked again and again over one connection, which is made anew after a failure. `async with`."""

    def __init__(
        self, name: str, open_client: Callable[[], AbstractAsyncContextManager[C]], ask: Callable[[C], Awaitable[A]]
    ) -> None:
        self._name = name
        self._open = open_client
        self._ask = ask
        self._stack = AsyncExitStack()
        self._client: C | None = None

    async def look(self) -> A | FaosError:
        """Within five seconds. Raises nothing of ours: why it does not answer is an answer."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                if self._client is None:
                    self._client = await self._stack.enter_async_context(self._open())
                return await self._ask(self._client)
        except TimeoutError:
            await self.aclose()
            return UnavailableError(NO_ANSWER, whom=self._name, seconds=round(PATIENCE_S))
        except FaosError as error:
            await self.aclose()
            return error

    async def aclose(self) -> None:
        """Idempotent; `look` may follow."""
        self._client = None
        await self._stack.aclose()


class Sampler:
    """Takes samples of a context. `async with`. Raises SetupError where it names neither side."""

    def __init__(self, context: Context) -> None:
        self._cloud: Side[Any, CloudActivity] | None = None
        self._node: Side[Any, site.GetActivityResponse] | None = None
        if context.admin_address is None or context.node_data_dir:
            folder = context.require_node()
            ask_node = site_client.SiteClient.get_activity
            self._node = Side(str(folder), lambda: site_client.connect(folder), ask_node)
        if context.admin_address is not None:
            tenant = context.tenant or ""
            self._cloud = Side(
                context.admin_address, lambda: admin_client.connect(context), lambda client: activity_of(client, tenant)
            )

    async def __aenter__(self) -> "Sampler":
        return self

    async def __aexit__(self, *_: object) -> None:
        for side in (self._node, self._cloud):
            if side is not None:
                await side.aclose()

    async def sample(self) -> Sample:
        of_node, of_cloud = looked(self._node), looked(self._cloud)
        node, cloud = await asyncio.gather(of_node, of_cloud)
        return Sample(time.monotonic(), node, cloud)


async def looked(side: Side[Any, A] | None) -> A | FaosError | None:
    return None if side is None else await side.look()


async def activity_of(client: admin_client.AdminClient, tenant: str) -> CloudActivity:
    nodes, metrics = await asyncio.gather(admin_client.list_nodes(client, tenant), admin_client.get_metrics(client))
    return CloudActivity(nodes, metrics)


def document(sample: Sample, rate: Rates) -> dict[str, Any]:
    """For programs."""
    found: dict[str, Any] = {"node": None, "controlPlane": None}
    if isinstance(sample.node, FaosError):
        found["node"] = failure(sample.node)
    elif sample.node is not None:
        per_second = {
            "ledgerMessages": rate.ledger_messages,
            "ledgerBytes": rate.ledger_bytes,
            "outputTokens": rate.tokens,
            "endedRuns": rate.runs,
        }
        found["node"] = {"state": "UP", **as_json(sample.node), "perSecond": per_second}
    if isinstance(sample.cloud, FaosError):
        found["controlPlane"] = failure(sample.cloud)
    elif sample.cloud is not None:
        metrics = as_json(sample.cloud.metrics)
        del metrics["text"]
        found["controlPlane"] = {"state": "UP", **metrics, "nodes": [as_json(node) for node in sample.cloud.nodes]}
    return found


def failure(error: FaosError) -> dict[str, str]:
    told = {"what": error.what, "why": error.why, "next": error.next_step}
    return {"state": "DOWN", "code": error.code.code, **told}
