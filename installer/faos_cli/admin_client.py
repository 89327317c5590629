"""A client of the control plane's admin API: one channel, errors as ours, lists whole."""

import asyncio
import os
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from copy import deepcopy
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from faos.admin.v1 import admin_pb2 as admin
from faos.admin.v1 import admin_pb2_grpc as admin_grpc
from faos.resource.v1.resource_pb2 import Kind
from faos.tunnel.v1.tunnel_pb2 import ApplyState
from faos_cli import errors
from faos_cli.context import Context
from faos_core import kinds, trace_context
from faos_core.errors import FaosError, NotFoundError, RetryError, SetupError, UnavailableError
from faos_core.resource_reader import Located, Problem
from faos_core.trace_context import TraceContext
from tunnel.error_mapping import DETAIL_KEY, from_rpc_error
from tunnel.identity import SERVER_NAME

if TYPE_CHECKING:
    from grpc.aio import UnaryUnaryMultiCallable

    from faos_cli.signing import Signing

CALL_TIMEOUT_S = 30.0
PAGE_SIZE = 500
RECONNECT_MS = 1000  # at most between two attempts to connect: somebody is waiting
POLL_S = 0.2
ATTEMPTS = 4  # to hand in what was signed
MESSAGE_BYTES = 64 * 1024 * 1024
VIOLATIONS_KEY = "faos-violations-bin"  # trailing metadata: a serialised ResourceViolations
PEM = b"-----BEGIN CERTIFICATE-----"
TOKEN = re.compile(rb"[\x21-\x7e]+")
LOOPBACK = ("127.", "localhost:", "[::1]:")
FINAL = (ApplyState.APPLY_STATE_HEALTHY, ApplyState.APPLY_STATE_REJECTED, ApplyState.APPLY_STATE_ROLLED_BACK)

Q = TypeVar("Q")
A = TypeVar("A")


class AdminClient:
    """Stubs of the admin API behind `call`. One per channel; for concurrent use on one event loop."""

    def __init__(self, channel: grpc.aio.Channel, token: str, *, address: str, ca_file: Path) -> None:
        self.tenants = admin_grpc.TenantServiceStub(channel)
        self.nodes = admin_grpc.NodeServiceStub(channel)
        self.resources = admin_grpc.ResourceServiceStub(channel)
        self.trust = admin_grpc.TrustServiceStub(channel)
        self.audit = admin_grpc.AuditServiceStub(channel)
        self.telemetry = admin_grpc.TelemetryServiceStub(channel)
        self.address = address
        self._ca_file = ca_file
        self._metadata = (("authorization", f"Bearer {token}"),)

    async def call(self, rpc: "UnaryUnaryMultiCallable[Q, A]", request: Q, *, trace: TraceContext | None = None) -> A:
        """One call, at most 30 s. trace: that what it changes belongs to. Raises what the server raised;
        UnavailableError when nobody answers."""
        traced = ((trace_context.KEY, str(trace)),) if trace else ()
        try:
            return await rpc(request, metadata=(*self._metadata, *traced), timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise self._error_of(error) from error

    async def stream(self, rpc: Any, request: Any) -> AsyncIterator[Any]:
        """Answers until the server ends; as long as it takes. Raises as `call`."""
        call = rpc(request, metadata=self._metadata)
        try:
            async for answer in call:
                yield answer
        except grpc.aio.AioRpcError as error:
            raise self._error_of(error) from error
        finally:
            call.cancel()

    async def list_all(self, rpc: Any, request: Any, *, limit: int = 0) -> list[Any]:
        """Every item of a list, page by page; limit: at most so many, 0 for all. Raises as `call`."""
        found: list[Any] = []
        while True:
            request.page_size = min(PAGE_SIZE, limit - len(found)) if limit else PAGE_SIZE
            answer = await self.call(rpc, request)
            found += items_of(answer)
            request.page_token = answer.next_page_token
            if not request.page_token or (limit and len(found) >= limit):
                return found

    def _error_of(self, error: grpc.aio.AioRpcError) -> FaosError:
        said = any(key == DETAIL_KEY for key, _ in error.trailing_metadata() or ())
        if said or error.code() != grpc.StatusCode.UNAVAILABLE:
            return from_rpc_error(error)
        details = error.details() or ""
        if "CERTIFICATE_VERIFY_FAILED" in details or "certificate verify failed" in details:
            return SetupError(errors.CONTROL_PLANE_UNTRUSTED, address=self.address, ca_file=self._ca_file)
        reason = details.splitlines()[0][:200] if details else "no details"
        return UnavailableError(errors.CONTROL_PLANE_UNREACHABLE, address=self.address, reason=reason)


@asynccontextmanager
async def connect(context: Context) -> AsyncIterator[AdminClient]:
    """A client of the context's control plane. Raises SetupError when the context does not say enough."""
    address, ca_file, token_file = context.require_admin()
    credentials = grpc.ssl_channel_credentials(read_authority(ca_file))
    token = read_token(token_file)
    options = [
        ("grpc.ssl_target_name_override", SERVER_NAME),
        ("grpc.max_receive_message_length", MESSAGE_BYTES),
        ("grpc.max_reconnect_backoff_ms", RECONNECT_MS),
        ("grpc.enable_http_proxy", int(not address.startswith(LOOPBACK))),
    ]
    async with grpc.aio.secure_channel(address, credentials, options) as channel:
        yield AdminClient(channel, token, address=address, ca_file=ca_file)


def read_credential(file: Path, purpose: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise SetupError(errors.CREDENTIAL_UNREADABLE, file=file, reason=reason, purpose=purpose) from error


def read_authority(file: Path) -> bytes:
    """Raises SetupError: gRPC itself would say that nobody answers."""
    pem = read_credential(file, "CA certificate")
    if PEM not in pem:
        reason = "A certificate in PEM has a line -----BEGIN CERTIFICATE-----, and there is none."
        raise SetupError(errors.CREDENTIAL_MALFORMED, file=file, purpose="CA certificate", reason=reason)
    return pem


def read_token(file: Path) -> str:
    """Raises SetupError, which says nothing of what is in the file."""
    token = read_credential(file, "admin token").strip()
    if not TOKEN.fullmatch(token):
        reason = "A token is one line of letters, digits and signs; this is empty, or something else."
        raise SetupError(errors.CREDENTIAL_MALFORMED, file=file, purpose="admin token", reason=reason)
    return token.decode("ascii")


def items_of(answer: Any) -> Sequence[Any]:
    """Of the one repeated field of a list's answer."""
    (field,) = (field for field in answer.DESCRIPTOR.fields if field.is_repeated)
    items: Sequence[Any] = getattr(answer, field.name)
    return items


async def choose_tenant(client: AdminClient, wanted: str | None) -> str:
    """The tenant that is meant: the wanted one, or else the only one. Raises NotFoundError, SetupError."""
    if wanted:
        return wanted
    names = [tenant.name for tenant in await client.list_all(client.tenants.ListTenants, admin.ListTenantsRequest())]
    if not names:
        raise NotFoundError(errors.NO_TENANT)
    if len(names) > 1:
        raise SetupError(errors.WHICH_TENANT, tenants=", ".join(names[:10]))
    return str(names[0])


async def create_tenant(client: AdminClient, name: str, *, publisher_key_pem: str = "") -> admin.Tenant:
    """Raises ConflictError when it is there."""
    request = admin.CreateTenantRequest(name=name, publisher_key_pem=publisher_key_pem)
    answer = await client.call(client.tenants.CreateTenant, request)
    return answer.tenant


async def create_site(
    client: AdminClient, tenant: str, name: str, *, labels: Mapping[str, str] | None = None
) -> admin.Site:
    """Raises ConflictError when it is there."""
    request = admin.CreateSiteRequest(tenant=tenant, name=name, labels=labels or {})
    answer = await client.call(client.tenants.CreateSite, request)
    return answer.site


async def create_join_token(
    client: AdminClient,
    tenant: str,
    site: str,
    *,
    labels: Mapping[str, str] | None = None,
    ttl_s: int = 0,
    addresses: Sequence[str] = (),
) -> admin.CreateJoinTokenResponse:
    """A one-time token and its join string. ttl_s: 0 means the server's default, an hour."""
    request = admin.CreateJoinTokenRequest(
        tenant=tenant, site=site, labels=labels or {}, ttl_seconds=ttl_s, addresses=addresses
    )
    return await client.call(client.nodes.CreateJoinToken, request)


async def list_nodes(client: AdminClient, tenant: str = "", site: str = "") -> list[admin.Node]:
    return await client.list_all(client.nodes.ListNodes, admin.ListNodesRequest(tenant=tenant, site=site))


async def get_metrics(client: AdminClient) -> admin.GetMetricsResponse:
    """Of the process that answers."""
    return await client.call(client.telemetry.GetMetrics, admin.GetMetricsRequest())


async def apply_resources(
    client: AdminClient,
    tenant: str,
    located: Sequence[Located],
    *,
    validate_only: bool = False,
    signing: "Signing | None" = None,
    **more: Any,
) -> admin.ApplyResourcesResponse:
    """Make these resources the desired state; safe to repeat.

    signing: how the operator signs it here; None: the control plane signs. more: fields of ApplyResourcesRequest.
    Raises: ResourcesRefusedError with each problem at its place in the files; what signing raises; what the server
        raised otherwise.
    """
    request = admin.ApplyResourcesRequest(
        tenant=tenant,
        resources=[each.resource for each in located],
        request_id=uuid.uuid4().hex,
        validate_only=validate_only,
        **more,
    )
    with placing_problems(located):
        return await change(client, client.resources.ApplyResources, request, signing)


async def delete_resources(
    client: AdminClient,
    tenant: str,
    names: Sequence[admin.ResourceName],
    located: Sequence[Located] = (),
    *,
    validate_only: bool = False,
    signing: "Signing | None" = None,
    **more: Any,
) -> admin.DeleteResourcesResponse:
    """Remove resources; safe to repeat. located: where they are declared, if they were named by files.

    signing, more: as of `apply_resources`.
    Raises: ResourcesRefusedError that names who refers to them; NotFoundError; what the server raised otherwise.
    """
    request = admin.DeleteResourcesRequest(
        tenant=tenant, names=names, request_id=uuid.uuid4().hex, validate_only=validate_only, **more
    )
    with placing_problems(located):
        return await change(client, client.resources.DeleteResources, request, signing)


async def rollback_revision(
    client: AdminClient,
    tenant: str,
    number: int,
    *,
    validate_only: bool = False,
    signing: "Signing | None" = None,
    **more: Any,
) -> admin.RollbackRevisionResponse:
    """Make the content of a revision stand again; safe to repeat. signing, more: as of `apply_resources`.

    Raises: NotFoundError, ResourcesRefusedError, what signing raises.
    """
    request = admin.RollbackRevisionRequest(
        tenant=tenant, number=number, request_id=uuid.uuid4().hex, validate_only=validate_only, **more
    )
    with placing_problems(()):
        return await change(client, client.resources.RollbackRevision, request, signing)


async def change(client: AdminClient, rpc: "UnaryUnaryMultiCallable[Q, A]", request: Q, signing: "Signing | None") -> A:
    """Ask for a change, in the trace of who calls this command, else in one of its own; where the operator signs it
    here, prepare it first, and hand in what was signed.

    Handing in is tried again while nobody answers: one request id, one revision, and no second look at the HSM.
    """
    trace = trace_context.parse(os.environ.get(trace_context.VARIABLE, "")) or trace_context.new_trace()
    asked: Any = deepcopy(request)
    if signing is None or asked.validate_only:
        return await client.call(rpc, request, trace=trace)
    asked.prepare = True
    answer: Any = await client.call(rpc, asked, trace=trace)
    if not answer.HasField("prepared"):  # nothing changes
        return await client.call(rpc, request, trace=trace)
    signed: Any = signing.signed(request, answer.prepared)  # blocks, because it asks on the terminal: all else waits
    published = await again_while_unavailable(lambda: client.call(rpc, signed, trace=trace))
    signing.published(answer.prepared)
    return published


async def again_while_unavailable(call: Callable[[], Awaitable[A]]) -> A:
    """Raises what the last attempt raised."""
    for _ in range(ATTEMPTS - 1):
        try:
            return await call()
        except RetryError:
            await asyncio.sleep(RECONNECT_MS / 1000)
    return await call()


@contextmanager
def placing_problems(located: Sequence[Located]) -> Iterator[None]:
    """Make a refusal of resources one that says where they are written."""
    try:
        yield
    except FaosError as error:
        if problems := problems_in(error.__cause__, located):
            raise errors.ResourcesRefusedError(problems) from error
        raise


def problems_in(cause: BaseException | None, located: Sequence[Located]) -> list[Problem]:
    """The server's violations, at the places where the resources were written; none for another failure."""
    if not isinstance(cause, grpc.aio.AioRpcError):
        return []
    for key, value in cause.trailing_metadata() or ():
        if key == VIOLATIONS_KEY and isinstance(value, bytes):
            return [placed(each, located) for each in admin.ResourceViolations.FromString(value).violations]
    return []


def placed(violation: admin.ResourceViolation, located: Sequence[Located]) -> Problem:
    for each in located:
        if (kinds.kind_of(each.resource), each.resource.metadata.name) == (violation.kind, violation.name):
            line, column = each.position(violation.field_path)
            return Problem(each.file, line, column, violation.field_path, violation.message)
    whose = f"{kinds.kind_name(violation.kind)} {violation.name}"
    return Problem(whose, 0, 0, violation.field_path, violation.message)


class Outcome(StrEnum):
    """What a node made of a revision."""

    PENDING = "pending"
    HEALTHY = "healthy"
    REFUSED = "refused"  # rejected or rolled back
    SUPERSEDED = "superseded"  # a newer revision came before it was decided


def outcome_of(node: admin.Node, revision: int) -> Outcome:
    config = node.config
    if config.attempted_revision > revision:
        return Outcome.HEALTHY if config.healthy_revision >= revision else Outcome.SUPERSEDED
    if config.attempted_revision < revision or config.state not in FINAL:
        return Outcome.PENDING
    return Outcome.HEALTHY if config.state == ApplyState.APPLY_STATE_HEALTHY else Outcome.REFUSED


@dataclass(frozen=True, slots=True)
class Settlement:
    """What the nodes made of a revision; some may still be pending when the time was up."""

    revision: int
    nodes: tuple[admin.Node, ...]

    def having(self, outcome: Outcome) -> list[admin.Node]:
        return [node for node in self.nodes if outcome_of(node, self.revision) is outcome]

    @property
    def is_settled(self) -> bool:
        return not self.having(Outcome.PENDING)


async def wait_until_settled(
    client: AdminClient,
    tenant: str,
    revision: int,
    *,
    sites: Collection[str] = (),
    timeout_s: float,
    on_change: Callable[[admin.Node], None] = lambda node: None,
) -> Settlement:
    """Wait until every node of these sites (none: of the tenant) has made up its mind about the revision.

    timeout_s: seconds; when they are over, what is known then is the answer. on_change: called with a node whenever
    its state or its connection has changed since the last call, and once at first.
    """
    deadline = time.monotonic() + timeout_s
    seen: dict[str, tuple[int, int, int]] = {}
    while True:
        nodes = [node for node in await list_nodes(client, tenant) if not sites or node.site in sites]
        for node in nodes:
            facts = (node.config.attempted_revision, node.config.state, node.liveness)
            if seen.get(node.name) != facts:
                on_change(node)
                seen[node.name] = facts
        settlement = Settlement(revision, tuple(nodes))
        if settlement.is_settled or time.monotonic() >= deadline:
            return settlement
        await asyncio.sleep(POLL_S)


async def get_resource(client: AdminClient, tenant: str, kind: Kind.ValueType, name: str) -> admin.GetResourceResponse:
    """Raises NotFoundError."""
    request = admin.GetResourceRequest(tenant=tenant, kind=kind, name=name)
    return await client.call(client.resources.GetResource, request)


async def get_node(client: AdminClient, tenant: str, name: str) -> admin.GetNodeResponse:
    """Raises NotFoundError."""
    return await client.call(client.nodes.GetNode, admin.GetNodeRequest(tenant=tenant, name=name))


async def get_revision(
    client: AdminClient, tenant: str, number: int, *, with_entries: bool = False
) -> admin.GetRevisionResponse:
    """Raises NotFoundError."""
    request = admin.GetRevisionRequest(tenant=tenant, number=number, with_entries=with_entries)
    return await client.call(client.resources.GetRevision, request)
