"""A client of a node's local API, over the Unix socket in its data folder."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from faos.site.v1 import site_pb2 as site
from faos.site.v1 import site_pb2_grpc as site_grpc
from faos_cli import errors
from faos_core.errors import FaosError, UnavailableError
from faos_core.site_socket import CLIENT_OPTIONS, SOCKET_FILE, socket_path
from tunnel.error_mapping import DETAIL_KEY, from_rpc_error

if TYPE_CHECKING:
    from grpc.aio import UnaryUnaryMultiCallable

Q = TypeVar("Q")
A = TypeVar("A")

CALL_TIMEOUT_S = 30.0
PATIENCE_S = 90.0  # that a node may take to come back in the middle of a run
RETRY_S = 0.2
PAGE_SIZE = 200
OPTIONS: tuple[tuple[str, Any], ...] = (
    *CLIENT_OPTIONS,
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
)


class SiteClient:
    """Calls of one node. For concurrent use on one event loop."""

    def __init__(self, channel: grpc.aio.Channel, folder: Path) -> None:
        self.stub = site_grpc.SiteServiceStub(channel)
        self._folder = folder

    async def get_status(self) -> site.GetStatusResponse:
        return await self._call(self.stub.GetStatus, site.GetStatusRequest())

    async def get_activity(self) -> site.GetActivityResponse:
        return await self._call(self.stub.GetActivity, site.GetActivityRequest())

    async def get_metrics(self) -> str:
        """In Prometheus' text format."""
        return (await self._call(self.stub.GetMetrics, site.GetMetricsRequest())).text

    async def get_run(self, run_id: str) -> site.GetRunResponse:
        """Raises NotFoundError."""
        return await self._call(self.stub.GetRun, site.GetRunRequest(run_id=run_id))

    async def cancel_run(self, run_id: str) -> site.Run:
        """The run as it stands then: one that had ended is as it was. Raises NotFoundError."""
        answer = await self._call(self.stub.CancelRun, site.CancelRunRequest(run_id=run_id))
        return answer.run

    async def list_runs(self, *, limit: int = 0) -> list[site.Run]:
        """Newest first; limit: at most so many, 0 for all."""
        found: list[site.Run] = []
        request = site.ListRunsRequest()
        while True:
            request.page_size = min(PAGE_SIZE, limit - len(found)) if limit else PAGE_SIZE
            answer = await self._call(self.stub.ListRuns, request)
            found += answer.runs
            request.page_token = answer.next_page_token
            if not request.page_token or (limit and len(found) >= limit):
                return found

    async def list_tools(self) -> list[site.ToolState]:
        """Every tool that agents may be given, by server."""
        return list((await self._call(self.stub.ListTools, site.ListToolsRequest())).tools)

    async def repin_tools(self, server: str, tool: str = "") -> list[str]:
        """Accept what the server says now of a quarantined tool, or of all. Raises NotFoundError, UnavailableError."""
        answer = await self._call(self.stub.RepinTools, site.RepinToolsRequest(server=server, tool=tool))
        return list(answer.tools)

    async def list_models(self) -> site.ListModelsResponse:
        """What the servers under [endpoints] have; each is asked now."""
        return await self._call(self.stub.ListModels, site.ListModelsRequest())

    async def pull_model(self, endpoint: str, tag: str) -> AsyncIterator[site.PullModelResponse]:
        """Ends when the server has the model; hanging up stops it. Raises SetupError, NotFoundError, InvalidError."""
        try:
            async for progress in self.stub.PullModel(site.PullModelRequest(endpoint=endpoint, tag=tag)):
                yield progress
        except grpc.aio.AioRpcError as error:
            raise self._error_of(error) from error

    async def stream_run(
        self, agent: str, text: str, *, subject: str = "", key: str = "", patience_s: float = PATIENCE_S
    ) -> AsyncIterator[site.RunEvent]:
        """Start a run and yield its events to the last, RunFinished; the node may restart meanwhile.

        After an interruption the step in progress is told again from its StepStarted on, text included; nothing
        that had finished is repeated. key: who gives it again gets the same run again. patience_s: seconds that one
        interruption may last.
        Raises: UnavailableError (node.not_running; node.lost), and what the node raised.
        """
        key = key or uuid.uuid4().hex
        request = site.RunAgentRequest(agent=agent, input=text, subject=subject, idempotency_key=key)
        async for event in self._follow("", 0, request, patience_s):
            yield event

    async def watch_run(
        self, run_id: str, *, after_sequence: int = 0, patience_s: float = PATIENCE_S
    ) -> AsyncIterator[site.RunEvent]:
        """Follow a run that is there. As `stream_run`; raises NotFoundError too."""
        async for event in self._follow(run_id, after_sequence, None, patience_s):
            yield event

    async def _follow(
        self, run_id: str, after: int, start: site.RunAgentRequest | None, patience_s: float
    ) -> AsyncIterator[site.RunEvent]:
        """Attach, and attach again after each interruption. Before the first event a start is simply repeated: its
        idempotency key leads to the same run."""
        lost_at: float | None = None
        while True:
            try:
                async for event in self._attach(run_id, after, start):
                    run_id, lost_at = event.run_id, None
                    after = max(after, resume_point(event))
                    yield event
                    if event.HasField("finished"):
                        return
            except grpc.aio.AioRpcError as error:
                if not is_interruption(error) or not (run_id or said_by_server(error)):
                    raise self._error_of(error) from error
            lost_at = lost_at or time.monotonic()
            if time.monotonic() - lost_at > patience_s:
                raise UnavailableError(errors.NODE_LOST, waited_s=round(patience_s), run_id=run_id or "RUN_ID")
            await asyncio.sleep(RETRY_S)

    async def _attach(
        self, run_id: str, after: int, start: site.RunAgentRequest | None
    ) -> AsyncIterator[site.RunEvent]:
        if start is not None and not run_id:
            async for started in self.stub.RunAgent(start):
                yield started.event
        else:
            async for watched in self.stub.WatchRun(site.WatchRunRequest(run_id=run_id, after_sequence=after)):
                yield watched.event

    async def _call(self, rpc: "UnaryUnaryMultiCallable[Q, A]", request: Q) -> A:
        try:
            return await rpc(request, timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise self._error_of(error) from error

    def _error_of(self, error: grpc.aio.AioRpcError) -> FaosError:
        if is_interruption(error) and not said_by_server(error):
            return not_running(self._folder)
        return from_rpc_error(error)


@asynccontextmanager
async def connect(node_data_dir: Path) -> AsyncIterator[SiteClient]:
    """A client of the node of this data folder. Raises UnavailableError when there is no socket."""
    socket = socket_of(node_data_dir)
    async with grpc.aio.insecure_channel(f"unix:{socket}", options=OPTIONS) as channel:
        yield SiteClient(channel, socket.parent)


def socket_of(node_data_dir: Path) -> Path:
    """Raises UnavailableError when there is none."""
    socket = socket_path(node_data_dir)
    if not socket.exists():
        raise not_running(socket.parent)
    return socket


def not_running(folder: Path) -> UnavailableError:
    return UnavailableError(errors.NODE_NOT_RUNNING, socket=folder / SOCKET_FILE, folder=folder)


def is_interruption(error: grpc.aio.AioRpcError) -> bool:
    """Whether the same call may be answered in a moment."""
    return error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


def said_by_server(error: grpc.aio.AioRpcError) -> bool:
    """Whether the node itself raised it: it is there, only not ready."""
    return any(key == DETAIL_KEY for key, _ in error.trailing_metadata() or ())


def resume_point(event: site.RunEvent) -> int:
    """Sequence after which to go on when the stream breaks behind this event.

    A step in progress begins again after a crash, so its own StepStarted is asked for again.
    """
    in_progress = event.HasField("step_started") or event.HasField("text_delta")
    return event.sequence - 1 if in_progress else event.sequence
