"""Which permission each RPC takes: a table kept by hand, against the proto and against a running server.

The table is the second opinion. An annotation that is changed in the proto alone, or an RPC that is added without a
line here, fails; so does a server that lets somebody in who shows no token, or a wrong one.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from control_plane.api.permissions import PUBLIC_SERVICES, declared_permissions, is_mutation, is_public
from control_plane.api.server import served_names
from faos.admin.v1 import admin_pb2
from faos.options.v1 import options_pb2
from tests.contract.admin_api import AdminApi, admin_api

TABLE = {
    "TenantService/CreateTenant": "tenants.create",
    "TenantService/ListTenants": "tenants.read",
    "TenantService/CreateSite": "sites.create",
    "TenantService/ListSites": "sites.read",
    "NodeService/ListNodes": "nodes.read",
    "NodeService/GetNode": "nodes.read",
    "NodeService/WatchNodes": "nodes.read",
    "NodeService/ListEvents": "events.read",
    "NodeService/RevokeNode": "nodes.revoke",
    "NodeService/EvictNode": "nodes.evict",
    "NodeService/ReadmitNode": "nodes.readmit",
    "NodeService/CreateJoinToken": "join_tokens.create",
    "NodeService/ListJoinTokens": "join_tokens.read",
    "ResourceService/ApplyResources": "resources.apply",
    "ResourceService/DeleteResources": "resources.delete",
    "ResourceService/RollbackRevision": "revisions.rollback",
    "ResourceService/GetResource": "resources.read",
    "ResourceService/ListResources": "resources.read",
    "ResourceService/ListRevisions": "revisions.read",
    "ResourceService/GetRevision": "revisions.read",
    "TrustService/GetTrust": "trust.read",
    "TrustService/RotateRoot": "trust.rotate",
    "AuditService/ListAuditRecords": "audit.read",
    "TelemetryService/GetMetrics": "metrics.read",
}
MUTATIONS = {
    "TenantService/CreateTenant",
    "TenantService/CreateSite",
    "NodeService/CreateJoinToken",
    "NodeService/RevokeNode",
    "NodeService/EvictNode",
    "NodeService/ReadmitNode",
    "ResourceService/ApplyResources",
    "ResourceService/DeleteResources",
    "ResourceService/RollbackRevision",
    "TrustService/RotateRoot",
}
PREFIX = "/faos.admin.v1."
WRONG_TOKEN = "faos-admin-" + "A" * 43

METHODS = {
    f"{service.name}/{method.name}": method
    for service in admin_pb2.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


def test_every_rpc_is_in_the_table_and_every_line_is_an_rpc() -> None:
    """A new RPC must be looked at by a person before anybody may call it."""
    assert set(METHODS) == set(TABLE)


def test_declared_permissions_are_those_of_the_table() -> None:
    """A wrong annotation would be enforced faithfully; only a second source can tell."""
    declared = {name: method.GetOptions().Extensions[options_pb2.permission] for name, method in METHODS.items()}

    assert declared == TABLE
    assert dict(declared_permissions()) == {PREFIX + name: permission for name, permission in TABLE.items()}


def test_mutations_are_told_by_their_permission() -> None:
    """What counts as a mutation is recorded when it is refused; a read that changed something would not be."""
    assert {name for name, permission in TABLE.items() if is_mutation(permission)} == MUTATIONS


def test_every_service_of_the_proto_is_served_and_guarded() -> None:
    """Only health and reflection are open to anybody."""
    assert served_names() == sorted({f"faos.admin.v1.{name.split('/')[0]}" for name in TABLE})
    assert not any(is_public(PREFIX + name) for name in TABLE)
    assert all(service.startswith("grpc.") for service in PUBLIC_SERVICES)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[AdminApi]:
    async with admin_api(tmp_path) as api:
        yield api


async def statuses_of(api: AdminApi, token: str | None) -> dict[str, grpc.StatusCode]:
    """Of a call of every RPC with an empty request."""
    statuses = {}
    async with api.channel(token) as channel:
        for name, method in METHODS.items():
            answer: Any = GetMessageClass(method.output_type)
            if method.server_streaming:
                stream = channel.unary_stream(PREFIX + name, response_deserializer=answer.FromString)(b"")
                statuses[name] = await status_of(stream)
                continue
            call = channel.unary_unary(PREFIX + name, response_deserializer=answer.FromString)(b"")
            statuses[name] = await call.code()
    return statuses


async def status_of(stream: Any) -> grpc.StatusCode:
    """Of a stream that need not end: OK once it has answered."""
    try:
        await stream.read()
    except grpc.aio.AioRpcError as error:
        return error.code()
    stream.cancel()
    return grpc.StatusCode.OK


@pytest.mark.parametrize("token", [None, "", WRONG_TOKEN, "Bearer"])
async def test_no_rpc_answers_without_the_right_token(api: AdminApi, token: str | None) -> None:
    """Every RPC, over real TLS, with no token and with wrong ones."""
    assert await statuses_of(api, token) == dict.fromkeys(TABLE, grpc.StatusCode.UNAUTHENTICATED)


async def test_every_rpc_answers_with_the_right_token(api: AdminApi) -> None:
    """The bootstrap administrator is let in everywhere; an empty request may be wrong, but never refused."""
    statuses = await statuses_of(api, api.token)

    assert set(statuses.values()) <= {
        grpc.StatusCode.OK,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.INVALID_ARGUMENT,
    }, statuses


async def test_health_and_reflection_answer_anybody(api: AdminApi) -> None:
    """Load balancers and grpcurl have no token."""
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    async with api.channel() as channel:
        health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        listed = [answer async for answer in stub.ServerReflectionInfo(iter([request]))]

    assert health.status == health_pb2.HealthCheckResponse.SERVING
    names = {service.name for service in listed[0].list_services_response.service}
    assert names == {*served_names(), "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
