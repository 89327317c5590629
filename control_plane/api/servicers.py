"""The services of faos.admin.v1: requests in, answers out, nothing decided here."""
# ruff: noqa: N802  # RPCs are named as the proto names them

from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc

from control_plane.api import messages
from control_plane.api.interceptor import current_caller
from control_plane.api.interfaces import (
    ConfigService,
    FingerprintWords,
    JoinTokens,
    Metering,
    Sessions,
    Standings,
    TrustService,
)
from control_plane.api.node_queries import NodeFacts, NodeQueries
from control_plane.api.node_watch import NodeWatch
from control_plane.api.slices import in_slices
from control_plane.audit.service import AuditService
from control_plane.config.models import Terms
from control_plane.tenants.service import TenantService
from faos.admin.v1 import admin_pb2 as admin
from faos.admin.v1 import admin_pb2_grpc as admin_grpc

Context = grpc.aio.ServicerContext[Any, Any]


class TenantServicer(admin_grpc.TenantServiceServicer):
    def __init__(self, tenants: TenantService) -> None:
        self._tenants = tenants

    async def CreateTenant(self, request: admin.CreateTenantRequest, context: Context) -> admin.CreateTenantResponse:
        tenant = await self._tenants.create_tenant(
            request.name, actor=current_caller().subject, publisher_key_pem=request.publisher_key_pem
        )
        return admin.CreateTenantResponse(tenant=messages.tenant_message(tenant))

    async def ListTenants(self, request: admin.ListTenantsRequest, context: Context) -> admin.ListTenantsResponse:
        tenants, next_page_token = await self._tenants.list_tenants(
            page_size=request.page_size, page_token=request.page_token
        )
        return admin.ListTenantsResponse(tenants=map(messages.tenant_message, tenants), next_page_token=next_page_token)

    async def CreateSite(self, request: admin.CreateSiteRequest, context: Context) -> admin.CreateSiteResponse:
        site = await self._tenants.create_site(
            request.tenant, request.name, labels=dict(request.labels), actor=current_caller().subject
        )
        return admin.CreateSiteResponse(site=messages.site_message(site))

    async def ListSites(self, request: admin.ListSitesRequest, context: Context) -> admin.ListSitesResponse:
        sites, next_page_token = await self._tenants.list_sites(
            request.tenant, page_size=request.page_size, page_token=request.page_token
        )
        return admin.ListSitesResponse(sites=map(messages.site_message, sites), next_page_token=next_page_token)


class NodeServicer(admin_grpc.NodeServiceServicer):
    def __init__(
        self,
        nodes: NodeQueries,
        join_tokens: JoinTokens,
        standings: Standings,
        sessions: Sessions,
        words: FingerprintWords,
    ) -> None:
        self._standings = standings
        self._nodes = nodes
        self._join_tokens = join_tokens
        self._sessions = sessions
        self._words = words
        self._watch = NodeWatch(nodes, self._message)

    async def ListNodes(self, request: admin.ListNodesRequest, context: Context) -> admin.ListNodesResponse:
        nodes, next_page_token = await self._nodes.list(
            request.tenant, request.site, page_size=request.page_size, page_token=request.page_token
        )
        return admin.ListNodesResponse(nodes=await in_slices(self._message, nodes), next_page_token=next_page_token)

    async def GetNode(self, request: admin.GetNodeRequest, context: Context) -> admin.GetNodeResponse:
        node, history = await self._nodes.get(request.tenant, request.name)
        return admin.GetNodeResponse(node=self._message(node), history=map(messages.config_message, history))

    async def WatchNodes(
        self, request: admin.WatchNodesRequest, context: Context
    ) -> AsyncIterator[admin.WatchNodesResponse]:
        async for answer in self._watch.nodes(request.tenant, request.site):
            yield answer

    async def ListEvents(self, request: admin.ListEventsRequest, context: Context) -> admin.ListEventsResponse:
        events, next_page_token = await self._nodes.events(
            request.tenant, request.node, page_size=request.page_size, page_token=request.page_token
        )
        return admin.ListEventsResponse(events=map(messages.event_message, events), next_page_token=next_page_token)

    async def RevokeNode(self, request: admin.RevokeNodeRequest, context: Context) -> admin.RevokeNodeResponse:
        actor = current_caller().subject
        await self._standings.revoke(request.tenant, request.name, reason=request.reason, actor=actor)
        return admin.RevokeNodeResponse()

    async def EvictNode(self, request: admin.EvictNodeRequest, context: Context) -> admin.EvictNodeResponse:
        await self._standings.evict(request.tenant, request.name, actor=current_caller().subject)
        return admin.EvictNodeResponse()

    async def ReadmitNode(self, request: admin.ReadmitNodeRequest, context: Context) -> admin.ReadmitNodeResponse:
        actor = current_caller().subject
        await self._standings.readmit(request.tenant, request.name, reason=request.reason, actor=actor)
        return admin.ReadmitNodeResponse()

    async def CreateJoinToken(
        self, request: admin.CreateJoinTokenRequest, context: Context
    ) -> admin.CreateJoinTokenResponse:
        token, join_string = await self._join_tokens.create(
            actor=current_caller().subject,
            tenant=request.tenant,
            site=request.site,
            labels=dict(request.labels),
            ttl_s=request.ttl_seconds,
            addresses=list(request.addresses),
        )
        return admin.CreateJoinTokenResponse(join_token=messages.join_token_message(token), join_string=join_string)

    async def ListJoinTokens(
        self, request: admin.ListJoinTokensRequest, context: Context
    ) -> admin.ListJoinTokensResponse:
        tokens, next_page_token = await self._join_tokens.list(
            tenant=request.tenant, page_size=request.page_size, page_token=request.page_token
        )
        return admin.ListJoinTokensResponse(
            join_tokens=map(messages.join_token_message, tokens), next_page_token=next_page_token
        )

    def _message(self, node: NodeFacts) -> admin.Node:
        live = self._sessions.is_live(node.identity, connected_to=node.connected_to, last_seen_at=node.last_seen_at)
        return messages.node_message(node, live=live, words=self._words(node.public_key_sha256))


class ResourceServicer(admin_grpc.ResourceServiceServicer):
    def __init__(self, config: ConfigService, nodes: NodeQueries) -> None:
        self._config = config
        self._nodes = nodes

    async def ApplyResources(
        self, request: admin.ApplyResourcesRequest, context: Context
    ) -> admin.ApplyResourcesResponse:
        applied = await self._config.apply(
            request.tenant,
            list(request.resources),
            author=current_caller().subject,
            request_id=request.request_id,
            validate_only=request.validate_only,
            apply_set=request.apply_set,
            prune=request.prune,
            reason=request.reason,
            terms=terms_of(request, request.expected),
        )
        return admin.ApplyResourcesResponse(
            revision=applied.revision,
            changes=map(messages.detailed_message, applied.changes),
            affected_sites=applied.affected_sites,
            prepared=messages.prepared_message(applied.prepared),
        )

    async def DeleteResources(
        self, request: admin.DeleteResourcesRequest, context: Context
    ) -> admin.DeleteResourcesResponse:
        deleted = await self._config.delete(
            request.tenant,
            [(each.kind, each.name) for each in request.names],
            author=current_caller().subject,
            request_id=request.request_id,
            validate_only=request.validate_only,
            reason=request.reason,
            terms=terms_of(request, [each for each in request.names if each.etag]),
        )
        return admin.DeleteResourcesResponse(
            revision=deleted.revision,
            changes=map(messages.detailed_message, deleted.changes),
            affected_sites=deleted.affected_sites,
            prepared=messages.prepared_message(deleted.prepared),
        )

    async def RollbackRevision(
        self, request: admin.RollbackRevisionRequest, context: Context
    ) -> admin.RollbackRevisionResponse:
        rolled_back = await self._config.rollback(
            request.tenant,
            request.number,
            author=current_caller().subject,
            request_id=request.request_id,
            validate_only=request.validate_only,
            reason=request.reason,
            terms=terms_of(request),
        )
        refused = await self._nodes.refusals_of(request.tenant, request.number)
        return admin.RollbackRevisionResponse(
            revision=rolled_back.revision,
            changes=map(messages.detailed_message, rolled_back.changes),
            affected_sites=rolled_back.affected_sites,
            refused_before=map(messages.status_message, refused),
            prepared=messages.prepared_message(rolled_back.prepared),
        )

    async def GetResource(self, request: admin.GetResourceRequest, context: Context) -> admin.GetResourceResponse:
        return messages.stored_message(await self._config.get_resource(request.tenant, request.kind, request.name))

    async def ListResources(self, request: admin.ListResourcesRequest, context: Context) -> admin.ListResourcesResponse:
        stored, next_page_token = await self._config.list_resources(
            request.tenant, request.kind, page_size=request.page_size, page_token=request.page_token
        )
        return admin.ListResourcesResponse(
            resources=await in_slices(messages.stored_message, stored), next_page_token=next_page_token
        )

    async def ListRevisions(self, request: admin.ListRevisionsRequest, context: Context) -> admin.ListRevisionsResponse:
        revisions, next_page_token = await self._config.list_revisions(
            request.tenant, page_size=request.page_size, page_token=request.page_token
        )
        return admin.ListRevisionsResponse(
            revisions=map(messages.revision_message, revisions), next_page_token=next_page_token
        )

    async def GetRevision(self, request: admin.GetRevisionRequest, context: Context) -> admin.GetRevisionResponse:
        revision = await self._config.get_revision(request.tenant, request.number)
        statuses = await self._nodes.of_revision(request.tenant, request.number)
        entries = await self._config.entries(request.tenant, request.number) if request.with_entries else ()
        return admin.GetRevisionResponse(
            revision=messages.revision_message(revision),
            nodes=await in_slices(messages.status_message, statuses),
            entries=entries,
        )


def terms_of(
    request: "admin.ApplyResourcesRequest | admin.DeleteResourcesRequest | admin.RollbackRevisionRequest",
    expected: Iterable[admin.ResourceName] = (),
) -> Terms:
    """On what the change is made. expected: resources that must stand as their etags say."""
    return Terms(
        prepare=request.prepare,
        signed_targets=request.signed_targets,
        expected_revision=request.expected_revision,
        etags=tuple(((int(each.kind), each.name), each.etag) for each in expected),
    )


class TrustServicer(admin_grpc.TrustServiceServicer):
    def __init__(self, trust: TrustService) -> None:
        self._trust = trust

    async def GetTrust(self, request: admin.GetTrustRequest, context: Context) -> admin.GetTrustResponse:
        return messages.trust_message(await self._trust.get(request.tenant))

    async def RotateRoot(self, request: admin.RotateRootRequest, context: Context) -> admin.RotateRootResponse:
        rotated = await self._trust.rotate(
            request.tenant, request.root, signed_targets=request.signed_targets, actor=current_caller().subject
        )
        return admin.RotateRootResponse(root_version=rotated.root_version, revision=rotated.revision)


class TelemetryServicer(admin_grpc.TelemetryServiceServicer):
    def __init__(self, metering: Metering) -> None:
        self._metering = metering

    async def GetMetrics(self, request: admin.GetMetricsRequest, context: Context) -> admin.GetMetricsResponse:
        metering = self._metering
        return admin.GetMetricsResponse(
            text=metering.text(),
            sessions=metering.sessions(),
            pushes=[messages.push_message(identity, push) for identity, push in metering.pushes().items()],
        )


class AuditServicer(admin_grpc.AuditServiceServicer):
    def __init__(self, audit: AuditService) -> None:
        self._audit = audit

    async def ListAuditRecords(
        self, request: admin.ListAuditRecordsRequest, context: Context
    ) -> admin.ListAuditRecordsResponse:
        records, next_page_token = await self._audit.list(
            request.tenant, page_size=request.page_size, page_token=request.page_token
        )
        return admin.ListAuditRecordsResponse(
            records=map(messages.audit_message, records), next_page_token=next_page_token
        )
