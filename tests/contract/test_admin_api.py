"""The admin API as its callers see it: over real TLS, with everything behind it real."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import h2.config
import h2.connection
import pytest
import sqlalchemy as sa

from control_plane.api.interceptor import VIOLATIONS_KEY
from control_plane.api.permissions import declared_permissions, is_mutation
from control_plane.api.server import MAX_REQUEST_BYTES
from control_plane.db.models import node_config_status, nodes
from faos.admin.v1 import admin_pb2 as admin
from faos.resource.v1 import resource_pb2
from faos.resource.v1.resource_pb2 import Kind, Resource
from faos.tunnel.v1.tunnel_pb2 import ApplyState, NackCode
from faos_core.ids import NodeIdentity, NodeName, SiteName, TenantName
from tests.contract.admin_api import AdminApi, Client, admin_api, client_of
from tests.parts import ROOT
from tests.patience import PATIENCE_S
from tests.servers.statements import refuse_inserts
from tunnel.error_mapping import DETAIL_KEY, from_rpc_error
from tunnel.identity import decode_join_string

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
KNOWLEDGE = Resource(
    metadata=resource_pb2.Metadata(name="docs"), knowledge_base=resource_pb2.KnowledgeBase(folder="handbook")
)
MODEL = Resource(
    metadata=resource_pb2.Metadata(name="small"),
    model=resource_pb2.Model(runtime=resource_pb2.MODEL_RUNTIME_LLAMA_CPP, source="smollm2"),
)


def agent(name: str, **spec: Any) -> Resource:
    return Resource(
        metadata=resource_pb2.Metadata(name=name), agent=resource_pb2.Agent(instructions="Be kind.", **spec)
    )


@pytest.fixture
async def api(tmp_path: Path, database_url: str) -> AsyncIterator[AdminApi]:
    async with admin_api(tmp_path, database_url) as api:
        yield api


@pytest.fixture
async def client(api: AdminApi) -> AsyncIterator[Client]:
    """With one tenant, acme, and its site ward-3."""
    async with client_of(api) as client:
        await client.tenants.CreateTenant(admin.CreateTenantRequest(name="acme"))
        request = admin.CreateSiteRequest(tenant="acme", name="ward-3", labels={"floor": "two"})
        await client.tenants.CreateSite(request)
        yield client


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def audit_of(client: Client) -> list[tuple[str, str, str, str, str]]:
    """Newest first: actor, RPC, tenant, target, outcome."""
    listed = await client.audit.ListAuditRecords(admin.ListAuditRecordsRequest())
    return [(it.actor, it.action.split("/")[-1], it.tenant, it.target, it.outcome) for it in listed.records]


async def enrol(api: AdminApi, name: str, **columns: Any) -> NodeIdentity:
    """A row as enrolment leaves it."""
    identity = NodeIdentity(TenantName("acme"), SiteName("ward-3"), NodeName(name))
    row = {
        "tenant": "acme",
        "name": name,
        "site": "ward-3",
        "spiffe_id": identity.spiffe_id,
        "labels": {"floor": "two"},
        "enrolled_at": NOW,
        "public_key_sha256": bytes(range(32)),
        "certificate_serial": "1f",
        "certificate_expires_at": NOW + timedelta(days=30),
    }
    await api.store.write(lambda connection: connection.execute(nodes.insert().values(row | columns)))
    return identity


async def test_tenants_and_sites_are_made_and_listed(client: Client) -> None:
    """The first two things that anybody does."""
    tenants = await client.tenants.ListTenants(admin.ListTenantsRequest())
    sites = await client.tenants.ListSites(admin.ListSitesRequest(tenant="acme"))

    assert [tenant.name for tenant in tenants.tenants] == ["acme"]
    assert [(site.tenant, site.name, dict(site.labels)) for site in sites.sites] == [
        ("acme", "ward-3", {"floor": "two"})
    ]
    assert sites.sites[0].created_at.ToDatetime(UTC) <= datetime.now(UTC)


async def test_pages_of_the_api_hold_everything_once(client: Client) -> None:
    """Through the wire, as a client loops over it."""
    for number in range(5):
        await client.tenants.CreateTenant(admin.CreateTenantRequest(name=f"t{number}"))
    seen: list[str] = []
    token = ""
    while not seen or token:
        page = await client.tenants.ListTenants(admin.ListTenantsRequest(page_size=2, page_token=token))
        assert len(page.tenants) <= 2
        seen += [tenant.name for tenant in page.tenants]
        token = page.next_page_token

    assert seen == ["acme", "t0", "t1", "t2", "t3", "t4"]


async def test_a_foreign_page_token_is_the_callers_mistake(client: Client) -> None:
    """Not an internal error."""
    error = await refused(client.tenants.ListTenants(admin.ListTenantsRequest(page_token="garbage")))

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_errors_carry_what_why_and_the_next_step(client: Client) -> None:
    """The command line shows these sentences without knowing the code."""
    error = await refused(client.tenants.CreateTenant(admin.CreateTenantRequest(name="acme")))

    assert error.code() is grpc.StatusCode.ALREADY_EXISTS
    detail = json.loads(dict(error.trailing_metadata() or ())[DETAIL_KEY])
    assert detail["code"] == "tenant.exists"
    assert all(detail[part] for part in ("what", "why", "next_step"))
    assert from_rpc_error(error).next_step == detail["next_step"]


async def test_every_mutation_is_recorded_once(client: Client, api: AdminApi) -> None:
    """Every admin mutation has an audit leaf, and the leaves hold together."""
    token = await client.nodes.CreateJoinToken(admin.CreateJoinTokenRequest(tenant="acme", site="ward-3"))
    await client.resources.ApplyResources(admin.ApplyResourcesRequest(tenant="acme", resources=[KNOWLEDGE]))

    assert await audit_of(client) == [
        ("bootstrap-admin", "ApplyResources", "acme", "revision 1", "OK"),
        ("bootstrap-admin", "CreateJoinToken", "acme", token.join_token.id, "OK"),
        ("bootstrap-admin", "CreateSite", "acme", "ward-3", "OK"),
        ("bootstrap-admin", "CreateTenant", "acme", "acme", "OK"),
    ]
    assert await api.audit.verify() == 4


async def test_refused_and_failed_mutations_are_recorded(client: Client, api: AdminApi) -> None:
    """Who tried is as interesting as who did."""
    await refused(client.tenants.CreateSite(admin.CreateSiteRequest(tenant="nobody", name="s")))
    async with api.channel("wrong") as channel:
        call = channel.unary_unary("/faos.admin.v1.TenantService/CreateTenant")
        await refused(call(admin.CreateTenantRequest(name="evil").SerializeToString()))

    assert (await audit_of(client))[:2] == [
        ("anonymous", "CreateTenant", "", "", "UNAUTHENTICATED"),
        ("bootstrap-admin", "CreateSite", "nobody", "s", "NOT_FOUND"),
    ]
    tenants = await client.tenants.ListTenants(admin.ListTenantsRequest())
    assert [tenant.name for tenant in tenants.tenants] == ["acme"]


async def test_reads_leave_no_record(client: Client) -> None:
    """A log of everything is a log that nobody reads."""
    before = await audit_of(client)
    await refused(client.nodes.GetNode(admin.GetNodeRequest(tenant="acme", name="n")))
    await client.nodes.ListNodes(admin.ListNodesRequest())

    assert await audit_of(client) == before


async def test_what_a_caller_writes_does_not_enter_the_audit_log(client: Client) -> None:
    """Names only: a refused name may be anything."""
    await refused(client.tenants.CreateTenant(admin.CreateTenantRequest(name="Grüße\n" * 1000)))

    assert (await audit_of(client))[0] == ("bootstrap-admin", "CreateTenant", "", "", "INVALID_ARGUMENT")


async def test_join_token_is_shown_once_and_listed_without_its_secret(client: Client) -> None:
    """A list of tokens must not be a list of keys."""
    request = admin.CreateJoinTokenRequest(tenant="acme", site="ward-3", addresses=["cp:7443"], ttl_seconds=60)
    made = await client.nodes.CreateJoinToken(request)
    listed = await client.nodes.ListJoinTokens(admin.ListJoinTokensRequest(tenant="acme"))

    join = decode_join_string(made.join_string)
    assert (join.tenant, join.site, list(join.addresses)) == ("acme", "ward-3", ["cp:7443"])
    assert list(listed.join_tokens) == [made.join_token]
    assert not made.join_token.HasField("used_at")
    assert join.secret not in listed.SerializeToString()


async def test_join_token_for_a_site_that_is_not_there(client: Client) -> None:
    """Its node would belong nowhere."""
    request = admin.CreateJoinTokenRequest(tenant="acme", site="elsewhere")

    assert (await refused(client.nodes.CreateJoinToken(request))).code() is grpc.StatusCode.NOT_FOUND


async def test_node_is_shown_with_its_liveness(client: Client, api: AdminApi) -> None:
    """Never connected, live and gone are three different things to an operator."""
    await enrol(api, "n-never")
    live = await enrol(api, "n-live", last_seen_at=NOW)
    await enrol(api, "n-gone", last_seen_at=NOW)
    api.sessions.live.add(live)

    listed = await client.nodes.ListNodes(admin.ListNodesRequest(tenant="acme", site="ward-3"))

    assert {node.name: admin.Liveness.Name(node.liveness) for node in listed.nodes} == {
        "n-never": "LIVENESS_NEVER",
        "n-live": "LIVENESS_LIVE",
        "n-gone": "LIVENESS_DISCONNECTED",
    }
    assert all(node.fingerprint_words and node.spiffe_id for node in listed.nodes)


async def test_node_shows_why_it_refused(client: Client, api: AdminApi) -> None:
    """The node sent numbers; the operator reads which field of which resource, and what to do."""
    nack = {
        "nack_failed_to_reach": ApplyState.APPLY_STATE_VERIFIED,
        "nack_code": NackCode.NACK_CODE_NAME_NOT_IN_CEILING,
        "nack_kind": Kind.KIND_KNOWLEDGE_BASE,
        "nack_resource_name": "docs",
        "nack_field_path": [13, 1],
        "state": ApplyState.APPLY_STATE_REJECTED,
    }
    await client.resources.ApplyResources(admin.ApplyResourcesRequest(tenant="acme", resources=[KNOWLEDGE]))
    facts = {"attempted_revision": 1, "status_at": NOW, "last_seen_at": NOW, "ledger_size": 7, "ledger_root": b"r" * 32}
    await enrol(api, "n", **facts, **nack)
    past = [{"tenant": "acme", "node": "n", "revision": number, "at": NOW} for number in (1, 2)]
    await api.store.write(
        lambda connection: [
            connection.execute(node_config_status.insert().values(past[0] | nack)),
            connection.execute(node_config_status.insert().values(past[1] | {"state": ApplyState.APPLY_STATE_HEALTHY})),
        ]
    )

    shown = await client.nodes.GetNode(admin.GetNodeRequest(tenant="acme", name="n"))
    revision = await client.resources.GetRevision(admin.GetRevisionRequest(tenant="acme", number=1))

    config = shown.node.config
    assert (shown.node.desired_revision, config.attempted_revision, config.running_revision) == (1, 1, 0)
    assert (config.nack.kind, config.nack.resource_name, config.nack.field_path) == (
        "KnowledgeBase",
        "docs",
        "spec.folder",
    )
    assert "site.toml" in config.nack.explanation
    assert (shown.node.ledger_size, shown.node.ledger_root_sha256) == (7, b"r" * 32)
    assert [(it.attempted_revision, it.healthy_revision, it.HasField("nack")) for it in shown.history] == [
        (2, 2, False),
        (1, 0, True),
    ]
    assert [(it.node, it.site, it.config.nack.code) for it in revision.nodes] == [
        ("n", "ward-3", NackCode.NACK_CODE_NAME_NOT_IN_CEILING)
    ]


async def test_a_node_of_another_tenant_is_not_there(client: Client, api: AdminApi) -> None:
    """No cross-tenant read: neither shown nor hinted at."""
    await enrol(api, "n")
    await client.tenants.CreateTenant(admin.CreateTenantRequest(name="other"))

    listed = await client.nodes.ListNodes(admin.ListNodesRequest(tenant="other"))
    error = await refused(client.nodes.GetNode(admin.GetNodeRequest(tenant="other", name="n")))

    assert list(listed.nodes) == []
    assert error.code() is grpc.StatusCode.NOT_FOUND


async def test_apply_stores_and_shows_what_stands(client: Client) -> None:
    """Apply, get, list, revisions: the round that every change makes."""
    request = admin.ApplyResourcesRequest(
        tenant="acme", resources=[KNOWLEDGE, MODEL, agent("helper", model="small", knowledge=["docs"])]
    )
    applied = await client.resources.ApplyResources(request)
    again = await client.resources.ApplyResources(request)
    got = await client.resources.GetResource(
        admin.GetResourceRequest(tenant="acme", kind=Kind.KIND_AGENT, name="helper")
    )
    listed = await client.resources.ListResources(admin.ListResourcesRequest(tenant="acme"))
    revisions = await client.resources.ListRevisions(admin.ListRevisionsRequest(tenant="acme"))

    assert (applied.revision, again.revision) == (1, 1)
    assert {change.change for change in again.changes} == {admin.CHANGE_TYPE_UNCHANGED}
    assert list(applied.affected_sites) == ["ward-3"]
    assert got.resource == request.resources[2]
    assert [stored.resource.metadata.name for stored in listed.resources] == ["helper", "small", "docs"]
    assert [(it.number, it.author, len(it.changes)) for it in revisions.revisions] == [(1, "bootstrap-admin", 3)]


async def test_apply_says_everything_that_is_wrong_at_once(client: Client) -> None:
    """The command line turns these into file and line."""
    resources = [agent("a", model="missing"), agent("b", model="absent"), agent("c")]
    error = await refused(
        client.resources.ApplyResources(admin.ApplyResourcesRequest(tenant="acme", resources=resources))
    )

    raw = dict(error.trailing_metadata() or ())[VIOLATIONS_KEY]
    violations = admin.ResourceViolations.FromString(bytes(raw)).violations
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert {(it.kind, it.name, it.field_path) for it in violations} >= {
        (Kind.KIND_AGENT, "a", "spec.model"),
        (Kind.KIND_AGENT, "b", "spec.model"),
    }
    assert all(it.code and it.message for it in violations)


async def test_ten_thousand_violations_still_reach_the_caller(client: Client) -> None:
    """Metadata is bounded: an answer that is too large would arrive as a broken connection."""
    resources = [agent(f"a{number}", model="missing") for number in range(10_000)]
    error = await refused(
        client.resources.ApplyResources(admin.ApplyResourcesRequest(tenant="acme", resources=resources))
    )

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    raw = dict(error.trailing_metadata() or ())[VIOLATIONS_KEY]
    assert len(admin.ResourceViolations.FromString(bytes(raw)).violations) > 5


async def test_validate_only_stores_and_records_nothing(client: Client) -> None:
    """A question is no mutation, whatever its answer."""
    before = await audit_of(client)
    good = admin.ApplyResourcesRequest(tenant="acme", resources=[KNOWLEDGE], validate_only=True)
    bad = admin.ApplyResourcesRequest(tenant="acme", resources=[agent("a", model="missing")], validate_only=True)

    answer = await client.resources.ApplyResources(good)
    await refused(client.resources.ApplyResources(bad))
    listed = await client.resources.ListResources(admin.ListResourcesRequest(tenant="acme"))

    assert (answer.revision, [change.change for change in answer.changes]) == (0, [admin.CHANGE_TYPE_CREATED])
    assert list(listed.resources) == []
    assert await audit_of(client) == before


async def test_no_audit_no_action_for_every_mutation(client: Client, api: AdminApi) -> None:
    """The invariant, over the wire: with the audit log unwritable, nothing changes and the caller hears it."""
    named = {"tenant": "acme", "name": (await enrol(api, "node-1")).node}
    await client.resources.ApplyResources(admin.ApplyResourcesRequest(tenant="acme", resources=[MODEL]))
    await api.store.write(lambda connection: refuse_inserts(connection, "audit_records", "no audit"))
    before = await contents(api)
    model = admin.ResourceName(kind=resource_pb2.KIND_MODEL, name="small")
    calls = {
        "CreateTenant": client.tenants.CreateTenant(admin.CreateTenantRequest(name="new")),
        "CreateSite": client.tenants.CreateSite(admin.CreateSiteRequest(tenant="acme", name="new")),
        "CreateJoinToken": client.nodes.CreateJoinToken(admin.CreateJoinTokenRequest(tenant="acme", site="ward-3")),
        "RevokeNode": client.nodes.RevokeNode(admin.RevokeNodeRequest(**named)),
        "EvictNode": client.nodes.EvictNode(admin.EvictNodeRequest(**named)),
        "ReadmitNode": client.nodes.ReadmitNode(admin.ReadmitNodeRequest(**named)),
        "ApplyResources": client.resources.ApplyResources(
            admin.ApplyResourcesRequest(tenant="acme", resources=[KNOWLEDGE])
        ),
        "DeleteResources": client.resources.DeleteResources(admin.DeleteResourcesRequest(tenant="acme", names=[model])),
    }

    errors = await asyncio.gather(*map(refused, calls.values()))

    codes = {name: error.code() for name, error in zip(calls, errors, strict=True)}
    assert codes == dict.fromkeys(calls, grpc.StatusCode.INTERNAL)
    assert await contents(api) == before
    elsewhere = {"RollbackRevision", "RotateRoot"}  # the same transaction as an apply's; unit/control_plane/config
    mutations = {
        name.rsplit("/", 1)[1] for name, permission in declared_permissions().items() if is_mutation(permission)
    }
    assert calls.keys() | elsewhere == mutations


async def contents(api: AdminApi) -> dict[str, list[str]]:
    """Rows of each table."""

    def read(connection: sa.Connection) -> dict[str, list[str]]:
        tables = sa.inspect(connection).get_table_names()
        return {table: sorted(map(repr, connection.exec_driver_sql(f"SELECT * FROM {table}"))) for table in tables}

    return await api.store.read(read)


async def test_a_request_over_the_limit_is_refused(api: AdminApi) -> None:
    """Before it is parsed, and without harm to the next one."""
    async with api.channel(api.token) as channel:
        call = channel.unary_unary("/faos.admin.v1.TenantService/ListTenants")
        error = await refused(call(bytes(MAX_REQUEST_BYTES + 1)))

        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await call(b"") == b""


@pytest.mark.parametrize("body", [b"\xff" * 10, b"\x0a\xff\xff\xff\xff\x0f", bytes(range(64))])
async def test_garbage_is_refused_without_a_token_and_with_one(api: AdminApi, body: bytes) -> None:
    """Without a token nothing is parsed; with one, the parser says no and the server goes on."""
    for token, codes in (
        (None, {grpc.StatusCode.UNAUTHENTICATED}),
        (api.token, {grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT}),
    ):
        async with api.channel(token) as channel:
            call = channel.unary_unary("/faos.admin.v1.TenantService/CreateTenant")
            assert (await refused(call(body))).code() in codes


async def test_plaintext_gets_no_answer(api: AdminApi) -> None:
    """A token that travels in the clear is somebody else's token."""
    async with grpc.aio.insecure_channel(api.address) as channel:
        call = channel.unary_unary("/grpc.health.v1.Health/Check")

        assert (await refused(call(b"", timeout=PATIENCE_S))).code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("version", "status"),
    [(ssl.TLSVersion.TLSv1_2, grpc.StatusCode.UNAUTHENTICATED), (ssl.TLSVersion.TLSv1_3, grpc.StatusCode.OK)],
)
async def test_only_tls_1_3_is_answered(api: AdminApi, version: ssl.TLSVersion, status: grpc.StatusCode) -> None:
    """gRPC cannot pin the version, so the gate looks at what was negotiated; the token is good both times."""
    assert await status_over(api, version) == status.value[0]


async def status_over(api: AdminApi, version: ssl.TLSVersion) -> int:
    """The gRPC status of ListTenants over this version of TLS, spoken by hand."""
    context = ssl.create_default_context(cadata=api.ca_pem.decode())
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2"])
    host, _, port = api.address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    connection.initiate_connection()
    path = "/faos.admin.v1.TenantService/ListTenants"
    headers = [(":method", "POST"), (":scheme", "https"), (":path", path), (":authority", api.address)]
    headers += [("te", "trailers"), ("content-type", "application/grpc"), ("authorization", f"Bearer {api.token}")]
    connection.send_headers(1, headers)
    connection.send_data(1, bytes(5), end_stream=True)  # an empty message
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                writer.write(connection.data_to_send())
                for event in connection.receive_data(await reader.read(65536)):
                    if answered := dict(getattr(event, "headers", None) or ()).get(b"grpc-status"):
                        return int(answered)
    finally:
        writer.close()


@pytest.mark.needs("grpcurl")
async def test_grpcurl_lists_the_api_by_reflection(api: AdminApi, tmp_path: Path) -> None:
    """What an operator types first against an unknown server."""
    (tmp_path / "ca.pem").write_bytes(api.ca_pem)
    process = await asyncio.create_subprocess_exec(
        "grpcurl", "-cacert", str(tmp_path / "ca.pem"), api.address, "list", stdout=-1, cwd=ROOT
    )
    output, _ = await process.communicate()

    assert "faos.admin.v1.ResourceService" in output.decode().split()


def names_of(*pairs: tuple[Kind.ValueType, str]) -> list[admin.ResourceName]:
    return [admin.ResourceName(kind=kind, name=name) for kind, name in pairs]


async def test_changes_are_undone_by_a_higher_revision(client: Client, api: AdminApi) -> None:
    """Apply, delete, roll back: three revisions, each with its author, reason and record."""
    request = admin.ApplyResourcesRequest(
        tenant="acme", resources=[KNOWLEDGE, MODEL], apply_set="ward", reason="the first"
    )
    await client.resources.ApplyResources(request)
    deleted = await client.resources.DeleteResources(
        admin.DeleteResourcesRequest(tenant="acme", names=names_of((Kind.KIND_MODEL, "small")), reason="too small")
    )
    back = await client.resources.RollbackRevision(admin.RollbackRevisionRequest(tenant="acme", number=1))
    listed = await client.resources.ListRevisions(admin.ListRevisionsRequest(tenant="acme"))
    stored = await client.resources.ListResources(admin.ListResourcesRequest(tenant="acme"))
    first = await client.resources.GetRevision(admin.GetRevisionRequest(tenant="acme", number=1, with_entries=True))

    assert [it.change for it in deleted.changes] == [admin.CHANGE_TYPE_DELETED]
    assert list(deleted.affected_sites) == ["ward-3"]
    assert (back.revision, [it.change for it in back.changes]) == (3, [admin.CHANGE_TYPE_CREATED])
    assert [(it.number, it.author, it.reason, it.rollback_of) for it in listed.revisions] == [
        (3, "bootstrap-admin", "", 1),
        (2, "bootstrap-admin", "too small", 0),
        (1, "bootstrap-admin", "the first", 0),
    ]
    assert [(it.resource.metadata.name, it.apply_set) for it in stored.resources] == [
        ("small", "ward"),
        ("docs", "ward"),
    ]
    assert [entry.name for entry in first.entries] == ["small", "docs"]
    assert [(action, target) for _, action, _, target, _ in (await audit_of(client))[:2]] == [
        ("RollbackRevision", "revision 3 (content of revision 1)"),
        ("DeleteResources", "revision 2"),
    ]
    await api.audit.verify()


async def test_what_a_change_would_do_is_shown_by_field(client: Client) -> None:
    """Asked about only: nothing stands differently afterwards, and nothing is recorded."""
    await client.resources.ApplyResources(
        admin.ApplyResourcesRequest(tenant="acme", resources=[KNOWLEDGE, MODEL], apply_set="ward")
    )
    changed = Resource(metadata=KNOWLEDGE.metadata, knowledge_base=resource_pb2.KnowledgeBase(folder="other"))
    before = await audit_of(client)
    asked = await client.resources.ApplyResources(
        admin.ApplyResourcesRequest(
            tenant="acme", resources=[changed], apply_set="ward", prune=True, validate_only=True
        )
    )

    fields = [(it.name, field.field_path, field.before, field.after) for it in asked.changes for field in it.fields]
    assert ("docs", "spec.folder", "handbook", "other") in fields
    assert ("small", "spec.source", "smollm2", "") in fields
    assert not asked.changes[1].fields[0].HasField("after")
    assert asked.revision == 1
    assert await audit_of(client) == before


async def test_what_is_needed_is_not_deleted_and_the_refusal_is_recorded(client: Client) -> None:
    """By name, and by a prune: the answer names who refers."""
    helper = agent("helper", model="small")
    await client.resources.ApplyResources(
        admin.ApplyResourcesRequest(tenant="acme", resources=[MODEL, KNOWLEDGE], apply_set="models")
    )
    await client.resources.ApplyResources(admin.ApplyResourcesRequest(tenant="acme", resources=[helper]))
    request = admin.DeleteResourcesRequest(tenant="acme", names=names_of((Kind.KIND_MODEL, "small")))
    pruning = admin.ApplyResourcesRequest(tenant="acme", resources=[KNOWLEDGE], apply_set="models", prune=True)

    for call in (client.resources.DeleteResources(request), client.resources.ApplyResources(pruning)):
        error = await refused(call)
        raw = dict(error.trailing_metadata() or ())[VIOLATIONS_KEY]
        violations = admin.ResourceViolations.FromString(bytes(raw)).violations
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert [(it.kind, it.name, it.field_path) for it in violations] == [(Kind.KIND_AGENT, "helper", "spec.model")]

    assert [outcome for *_, outcome in (await audit_of(client))[:2]] == ["INVALID_ARGUMENT", "INVALID_ARGUMENT"]


async def test_rollback_warns_of_nodes_that_refused_it(client: Client, api: AdminApi) -> None:
    """They quarantine that content: the operator must not wait for them."""
    await client.resources.ApplyResources(admin.ApplyResourcesRequest(tenant="acme", resources=[KNOWLEDGE]))
    await client.resources.ApplyResources(admin.ApplyResourcesRequest(tenant="acme", resources=[MODEL]))
    await enrol(api, "n-bad")
    await enrol(api, "n-good")
    rows = [
        {"tenant": "acme", "node": node, "revision": 1, "at": NOW, "state": state, "nack_code": code}
        for node, state, code in (
            ("n-bad", ApplyState.APPLY_STATE_ROLLED_BACK, NackCode.NACK_CODE_DEADLINE),
            ("n-good", ApplyState.APPLY_STATE_HEALTHY, None),
        )
    ]
    await api.store.write(lambda connection: connection.execute(node_config_status.insert(), rows))

    back = await client.resources.RollbackRevision(admin.RollbackRevisionRequest(tenant="acme", number=1))

    assert back.revision == 3
    assert [(it.node, it.config.nack.code) for it in back.refused_before] == [("n-bad", NackCode.NACK_CODE_DEADLINE)]


async def test_watch_tells_all_nodes_then_what_changes(client: Client, api: AdminApi) -> None:
    """A heartbeat is no change; a state, a connection and a node that goes are."""
    live = await enrol(api, "n-1")
    await enrol(api, "n-2")
    watch = client.nodes.WatchNodes(admin.WatchNodesRequest(tenant="acme"))
    first: admin.WatchNodesResponse = await watch.read()
    here = nodes.c.name == "n-2"
    quiet = nodes.update().where(nodes.c.name == "n-1").values(last_seen_at=NOW, ledger_size=9)
    await api.store.write(lambda connection: connection.execute(quiet))
    await api.store.write(lambda connection: connection.execute(nodes.update().where(here).values(running_revision=4)))
    second: admin.WatchNodesResponse = await watch.read()
    await api.store.write(lambda connection: connection.execute(nodes.delete().where(here)))
    third: admin.WatchNodesResponse = await watch.read()
    watch.cancel()

    assert ([node.name for node in first.nodes], first.is_complete) == (["n-1", "n-2"], True)
    assert ("n-2", 4) in [(node.name, node.config.running_revision) for node in second.nodes]
    assert [(it.tenant, it.name) for it in third.removed] == [("acme", "n-2")]
    assert live not in api.sessions.live


async def test_watch_of_a_tenant_that_is_not_there(client: Client) -> None:
    """Silence would look like a fleet without nodes."""
    error = await refused(client.nodes.WatchNodes(admin.WatchNodesRequest(tenant="nobody")).read())

    assert error.code() is grpc.StatusCode.NOT_FOUND
