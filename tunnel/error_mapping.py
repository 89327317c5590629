"""FaosError ↔ gRPC status, once for every server and client of ours.

A status carries the code and the three sentences as JSON in the trailing metadata key "faos-error-bin", so that a
client shows what the server meant without knowing the code.
"""

import inspect
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc

from faos_core import errors, names
from faos_core.errors import ErrorCode, FaosError, define

log = logging.getLogger(__name__)

DETAIL_KEY = "faos-error-bin"

CALL_FAILED = define(
    "call.failed",
    what="The call failed: {status}.",
    why="{details}",
    next_step="Try again; if it stays, look into the log of the server that was called.",
)
INTERNAL = define(
    "internal.defect",
    what="Something failed that should not have.",
    why="A defect of ours; the server's log says where.",
    next_step="Please report it with the log lines around this moment.",
)

LEAVES: dict[grpc.StatusCode, type[FaosError]] = {
    grpc.StatusCode.UNAVAILABLE: errors.UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineError,
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidError,
    grpc.StatusCode.NOT_FOUND: errors.NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: errors.ConflictError,
    grpc.StatusCode.ABORTED: errors.StaleError,
    grpc.StatusCode.UNAUTHENTICATED: errors.UnauthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: errors.DeniedError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.LimitError,
    grpc.StatusCode.DATA_LOSS: errors.IntegrityError,
    grpc.StatusCode.FAILED_PRECONDITION: errors.SetupError,
}


def detail_of(error: FaosError) -> bytes:
    """What goes into the trailing metadata."""
    detail = {"code": error.code.code, "what": error.what, "why": error.why, "next_step": error.next_step}
    return json.dumps(detail, separators=(",", ":")).encode()


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: FaosError, *extra: tuple[str, bytes]) -> None:
    """End the call with this error's status. Always raises."""
    await context.abort(error.grpc_status, error.what, ((DETAIL_KEY, detail_of(error)), *extra))


def from_rpc_error(error: grpc.aio.AioRpcError) -> FaosError:
    """The error that the server raised; for a failure below the server, one with the transport's own words."""
    leaf = LEAVES.get(error.code(), errors.InternalError)
    for key, value in error.trailing_metadata() or ():
        if key == DETAIL_KEY:
            return leaf(_received(value))
    return leaf(CALL_FAILED, status=error.code().name, details=error.details() or "no details")


def _received(raw: str | bytes) -> ErrorCode:
    """An entry that is outside the registry: its texts are already filled in. Whoever answers may have written
    anything; what is missing or no text is empty."""
    try:
        detail = json.loads(raw)
    except (ValueError, RecursionError):
        detail = None
    said = {key: text for key, text in detail.items() if isinstance(text, str)} if isinstance(detail, dict) else {}
    texts = {key: said.get(key, "").replace("{", "{{").replace("}", "}}") for key in ("what", "why", "next_step")}
    return ErrorCode(said.get("code", "unknown"), **texts)


if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]
else:
    Handler = grpc.RpcMethodHandler  # the class takes parameters in its stubs only


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Maps what a servicer raises; what is not ours becomes INTERNAL and is logged by type and place only."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        return _wrapped(handler) if handler else None


def _wrapped(handler: Handler) -> Handler:
    kinds = {
        "unary_unary": (grpc.unary_unary_rpc_method_handler, _unary),
        "stream_unary": (grpc.stream_unary_rpc_method_handler, _unary),
        "unary_stream": (grpc.unary_stream_rpc_method_handler, _stream),
        "stream_stream": (grpc.stream_stream_rpc_method_handler, _stream),
    }
    for kind, (make, wrap) in kinds.items():
        if behaviour := getattr(handler, kind):
            wrapped: Handler = make(wrap(behaviour), handler.request_deserializer, handler.response_serializer)
            return wrapped
    return handler


def _unary(behaviour: Callable[..., Any]) -> Callable[..., Any]:
    async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        async with _answering(context):
            return await behaviour(request, context)

    return call


def _stream(behaviour: Callable[..., Any]) -> Callable[..., Any]:
    async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        async with _answering(context):
            replies = behaviour(request, context)
            if inspect.isawaitable(replies):
                await replies
                return
            async for reply in replies:
                yield reply

    return call


@asynccontextmanager
async def _answering(context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[None]:
    """Whatever a servicer raises inside ends the call with a status."""
    try:
        yield
    except FaosError as error:
        await abort(context, error)
    except (grpc.aio.AbortError, grpc.RpcError):
        raise
    except Exception as error:  # noqa: BLE001  # the supervisor of the call
        await _abort_internal(context, error)


async def _abort_internal(context: grpc.aio.ServicerContext[Any, Any], error: Exception) -> None:
    log.error("call.crashed", extra={names.ERROR: type(error).__name__}, exc_info=error)
    await abort(context, errors.InternalError(INTERNAL))
