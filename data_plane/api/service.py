"""faos.site.v1.SiteService over the node's own parts. Errors go out through the server's ErrorInterceptor."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import grpc

from data_plane.agents.interfaces import RunService
from data_plane.api.interfaces import Facts, NoTools, Tools
from data_plane.api.status import activity_of, status_of
from data_plane.models.catalogue import no_door
from data_plane.models.endpoint_models import EndpointModels
from faos.site.v1 import site_pb2 as site
from faos.site.v1.site_pb2_grpc import SiteServiceServicer
from faos_core.ids import RunId

Context = grpc.aio.ServicerContext[Any, Any]


class SiteApi(SiteServiceServicer):
    """One instance serves every client. A client that goes away does not stop its run."""

    def __init__(
        self, runs: RunService, facts: Facts, models: EndpointModels | None = None, tools: Tools | None = None
    ) -> None:
        """models: None where no endpoint is asked. tools: None where there are none."""
        self._runs = runs
        self._facts = facts
        self._models = models or EndpointModels({}, no_door)
        self._tools = tools or NoTools()

    async def RunAgent(  # noqa: N802  # the name of the RPC
        self, request: site.RunAgentRequest, context: Context
    ) -> AsyncIterator[site.RunAgentResponse]:
        run_id = await self._runs.start(
            request.agent, request.input, idempotency_key=request.idempotency_key, subject=request.subject
        )
        async for event in self._runs.watch(run_id):
            yield site.RunAgentResponse(event=event)

    async def WatchRun(  # noqa: N802
        self, request: site.WatchRunRequest, context: Context
    ) -> AsyncIterator[site.WatchRunResponse]:
        async for event in self._runs.watch(RunId(request.run_id), after_sequence=request.after_sequence):
            yield site.WatchRunResponse(event=event)

    async def CancelRun(self, request: site.CancelRunRequest, context: Context) -> site.CancelRunResponse:  # noqa: N802
        return site.CancelRunResponse(run=await self._runs.cancel(RunId(request.run_id)))

    async def ListRuns(self, request: site.ListRunsRequest, context: Context) -> site.ListRunsResponse:  # noqa: N802
        runs, token = await self._runs.list(page_size=request.page_size, page_token=request.page_token)
        return site.ListRunsResponse(runs=runs, next_page_token=token)

    async def GetRun(self, request: site.GetRunRequest, context: Context) -> site.GetRunResponse:  # noqa: N802
        run, steps = await self._runs.get(RunId(request.run_id))
        return site.GetRunResponse(run=run, steps=steps)

    async def GetStatus(self, request: site.GetStatusRequest, context: Context) -> site.GetStatusResponse:  # noqa: N802
        return await status_of(self._facts)

    async def GetActivity(  # noqa: N802
        self, request: site.GetActivityRequest, context: Context
    ) -> site.GetActivityResponse:
        sight = self._facts.sight
        return await activity_of(self._facts, sight, datetime.now(UTC)) if sight else site.GetActivityResponse()

    async def GetMetrics(self, request: site.GetMetricsRequest, context: Context) -> site.GetMetricsResponse:  # noqa: N802
        return site.GetMetricsResponse(text=self._facts.sight.metrics_text() if self._facts.sight else "")

    async def ListModels(self, request: site.ListModelsRequest, context: Context) -> site.ListModelsResponse:  # noqa: N802
        found = await self._models.pulled()
        models = [
            site.ModelAtEndpoint(endpoint=endpoint, tag=model.tag, size_bytes=model.size_bytes)
            for endpoint, pulled in found.items()
            for model in pulled or ()
        ]
        silent = [endpoint for endpoint, pulled in found.items() if pulled is None]
        return site.ListModelsResponse(models=models, silent_endpoints=silent)

    async def ListTools(self, request: site.ListToolsRequest, context: Context) -> site.ListToolsResponse:  # noqa: N802
        tools = [
            site.ToolState(
                server=each.server,
                tool=each.tool,
                accepted_sha256=each.accepted_sha256,
                offered_sha256=each.offered_sha256,
                quarantined=each.is_quarantined,
            )
            for each in self._tools.states()
        ]
        return site.ListToolsResponse(tools=tools)

    async def RepinTools(self, request: site.RepinToolsRequest, context: Context) -> site.RepinToolsResponse:  # noqa: N802
        return site.RepinToolsResponse(tools=await self._tools.repin(request.server, request.tool))

    async def PullModel(  # noqa: N802
        self, request: site.PullModelRequest, context: Context
    ) -> AsyncIterator[site.PullModelResponse]:
        async with aclosing(self._models.pull(request.endpoint, request.tag)) as progress:
            async for each in progress:
                yield site.PullModelResponse(done_bytes=each.done_bytes, total_bytes=each.total_bytes)
