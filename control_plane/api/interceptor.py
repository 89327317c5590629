"""The one gate before every admin RPC: who calls, may they, what went wrong, and a record of what was refused.

A mutation that succeeds has its audit record from the service that did it, in the same transaction. One that is
refused or fails gets its record here. Fail closed: an RPC without a declared permission is nobody's.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from control_plane.api.errors import PERMISSION_DENIED, REQUEST_UNPARSABLE, RPC_UNGUARDED, TOKEN_MISSING
from control_plane.api.interfaces import Authenticator, Caller, CarriesViolations, Violation
from control_plane.api.permissions import declared_permissions, is_mutation, is_public
from control_plane.telemetry.calls import CallObserver
from faos.admin.v1 import admin_pb2 as admin
from faos_core import names
from faos_core.errors import DeniedError, FaosError, InternalError, InvalidError, UnauthenticatedError
from faos_core.ids import NAME_PATTERN
from tunnel.error_mapping import INTERNAL, abort
from tunnel.tls import refuse_old_tls

log = logging.getLogger(__name__)

VIOLATIONS_KEY = "faos-violations-bin"
MAX_VIOLATIONS_BYTES = 4096  # peers take 8 KiB of metadata in all, and base64 adds a third
ANONYMOUS = "anonymous"
BEARER = "Bearer "

Context = grpc.aio.ServicerContext[Any, Any]
if TYPE_CHECKING:
    Handler: TypeAlias = grpc.RpcMethodHandler[Any, Any]
else:
    Handler = grpc.RpcMethodHandler  # generic in its stub only
_caller: ContextVar[Caller] = ContextVar("caller")


class AuditLog(Protocol):
    """Where refused and failed mutations are recorded, each in its own transaction."""

    async def record(self, *, actor: str, action: str, tenant: str, target: str, outcome: str) -> None: ...


def current_caller() -> Caller:
    """Who makes the call that is being served. Raises LookupError outside of one."""
    return _caller.get()


@contextmanager
def acting_as(caller: Caller) -> Iterator[None]:
    """Make `caller` the current one of this task."""
    token = _caller.set(caller)
    try:
        yield
    finally:
        _caller.reset(token)


@dataclass(frozen=True, slots=True)
class Call:
    """One RPC as the audit log names it."""

    actor: str
    action: str
    is_mutation: bool
    tenant: str = ""
    target: str = ""


class AdminInterceptor(grpc.aio.ServerInterceptor):
    """Guards every RPC of a server. Stateless between calls."""

    def __init__(
        self,
        authenticator: Authenticator,
        audit: AuditLog,
        permissions: Mapping[str, str] | None = None,
        observer: CallObserver | None = None,
        called: Callable[[], None] = lambda: None,
    ) -> None:
        """permissions: "/package.Service/Method" → permission; None means as declared in the proto. called: hears of
        each call that is allowed and changes nothing, as it begins: one that does may be what a push comes from."""
        self._called = called
        self._observer = observer or CallObserver()
        self._authenticator = authenticator
        self._audit = audit
        self._permissions = declared_permissions() if permissions is None else permissions

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or is_public(method):
            return handler
        permission = self._permissions.get(method, "")
        try:
            caller = await self._authorise(method, permission, handler_call_details.invocation_metadata)
        except FaosError as error:
            actor = str(error.fields.get("subject", ANONYMOUS))
            return self._refusing(handler, Call(actor, method.lstrip("/"), is_mutation(permission)), error)
        if not is_mutation(permission):
            self._called()
        return self._serving(handler, handler_call_details, permission, caller)

    async def _authorise(self, method: str, permission: str, metadata: Any) -> Caller:
        """Raises UnauthenticatedError, DeniedError."""
        caller = await self._authenticator.authenticate(bearer_token(metadata))
        if not permission:
            raise DeniedError(RPC_UNGUARDED, method=method, subject=caller.subject)
        if not caller.may(permission):
            raise DeniedError(PERMISSION_DENIED, permission=permission, subject=caller.subject)
        return caller

    def _refusing(self, handler: Handler, call: Call, error: FaosError) -> Handler:
        """A handler of the same shape that never parses what it is sent."""

        async def refuse(_request: bytes | AsyncIterator[bytes], context: Context) -> None:
            await self._end(context, call, error)

        return _same_shape(handler)(refuse)

    def _serving(self, handler: Handler, details: grpc.HandlerCallDetails, permission: str, caller: Caller) -> Handler:
        method = details.method
        if handler.request_streaming or (handler.response_streaming and is_mutation(permission)):
            # The admin API has no such RPC; one that appears must be guarded, and recorded, here.
            error = DeniedError(RPC_UNGUARDED, method=method, subject=caller.subject)
            return self._refusing(handler, Call(caller.subject, method.lstrip("/"), is_mutation(permission)), error)

        behaviour: Callable[..., Any] = handler.unary_stream or handler.unary_unary  # type: ignore[assignment]  # one is set

        async def serve(body: bytes, context: Context) -> Any:
            request = None
            try:
                refuse_old_tls(context.auth_context())
                request = parsed(body, handler.request_deserializer)
                with acting_as(caller):
                    if handler.response_streaming:
                        return await _stream(behaviour, request, context)
                    return await behaviour(request, context)
            except FaosError as error:
                await self._end(context, call_of(request, method, permission, caller), error)
            except (grpc.aio.AbortError, grpc.RpcError):
                raise
            except Exception as error:  # the supervisor of the call
                log.error("call.crashed", extra={names.ERROR: type(error).__name__}, exc_info=error)
                await self._end(context, call_of(request, method, permission, caller), InternalError(INTERNAL))

        if handler.response_streaming:  # a watch lasts as long as somebody watches: not observed
            return _same_shape(handler)(serve, None, handler.response_serializer)
        observed = self._observer.observed(method, details.invocation_metadata, serve)
        return _same_shape(handler)(observed, None, handler.response_serializer)

    async def _end(self, context: Context, call: Call, error: FaosError) -> None:
        """Record what did not happen, then end the call with the error's status. Always raises."""
        if call.is_mutation:
            await self._record(call, error)
        await abort(context, error, *violations_metadata(error))

    async def _record(self, call: Call, refusal: FaosError) -> None:
        """Nothing was done, so an audit log that cannot be written changes only the server's own log."""
        try:
            await self._audit.record(
                actor=call.actor,
                action=call.action,
                tenant=call.tenant,
                target=call.target,
                outcome=refusal.grpc_status.name,
            )
        except Exception as error:  # still in the supervisor of the call: the caller must hear the refusal itself
            log.error("audit.failed", extra={names.ERROR: type(error).__name__}, exc_info=error)


async def _stream(behaviour: Callable[..., Any], request: Any, context: Context) -> None:
    """Write what an async generator answers; it is closed when the call ends, however it ends."""
    async with aclosing(behaviour(request, context)) as answers:
        async for answer in answers:
            await context.write(answer)


def parsed(body: bytes, parse: Callable[[bytes], Any] | None) -> Any:
    """The request. Raises InvalidError, where gRPC itself would answer UNKNOWN and log what it was sent."""
    try:
        return parse(body) if parse else body
    except DecodeError as error:
        raise InvalidError(REQUEST_UNPARSABLE) from error


def bearer_token(metadata: Any) -> str:
    """The token of exactly one "authorization: Bearer …". Raises UnauthenticatedError."""
    values = [value for key, value in metadata or () if key == "authorization"]
    if len(values) != 1 or not isinstance(values[0], str) or not values[0].startswith(BEARER):
        raise UnauthenticatedError(TOKEN_MISSING)
    return values[0].removeprefix(BEARER)


def call_of(request: Any, method: str, permission: str, caller: Caller) -> Call:
    """What the audit log may say of a request: names only, never what else it holds."""
    changes = is_mutation(permission) and not getattr(request, "validate_only", False)
    tenant = getattr(request, "tenant", None)
    name = getattr(request, "name", "") or getattr(request, "site", "")
    tenant = name if tenant is None else tenant
    return Call(caller.subject, method.lstrip("/"), changes, _name_or_nothing(tenant), _name_or_nothing(name))


def _name_or_nothing(text: str) -> str:
    return text if NAME_PATTERN.fullmatch(text) else ""


def violations_metadata(error: FaosError) -> list[tuple[str, bytes]]:
    """The error's violations as a serialised ResourceViolations: the first ones that fit."""
    if not isinstance(error, CarriesViolations):
        return []
    kept = admin.ResourceViolations()
    for violation in error.violations:
        message = _violation(violation)
        if kept.ByteSize() + message.ByteSize() + 8 > MAX_VIOLATIONS_BYTES:
            break
        kept.violations.append(message)
    return [(VIOLATIONS_KEY, kept.SerializeToString())]


def _violation(violation: Violation) -> admin.ResourceViolation:
    return admin.ResourceViolation(
        kind=violation.kind,
        name=violation.name,
        field_path=violation.field_path,
        code=violation.code,
        message=violation.message,
    )


def _same_shape(handler: Handler) -> Callable[..., Handler]:
    """What makes a handler that streams where this one does."""
    make: dict[tuple[bool, bool], Callable[..., Handler]] = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    return make[handler.request_streaming, handler.response_streaming]
