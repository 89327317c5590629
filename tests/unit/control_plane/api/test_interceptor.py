"""The gate, on RPCs that the admin API does not have (yet): it must fail closed for them, too."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.api.errors import PERMISSION_DENIED, RPC_UNGUARDED, TOKEN_MISSING, TOKEN_WRONG
from control_plane.api.interceptor import (
    MAX_VIOLATIONS_BYTES,
    AdminInterceptor,
    bearer_token,
    call_of,
    current_caller,
    violations_metadata,
)
from control_plane.api.interfaces import Caller
from control_plane.config.errors import ResourcesInvalidError
from control_plane.identity.authority import Authority
from faos.admin.v1 import admin_pb2 as admin
from faos_core.clock import SystemClock
from faos_core.errors import InvalidError, UnauthenticatedError
from faos_core.resource_validation import Violation
from tunnel.error_mapping import from_rpc_error

READER = Caller("reader", frozenset({"things.read"}))
PERMISSIONS = {
    "/t.Things/Read": "things.read",
    "/t.Things/Change": "things.change",
    "/t.Things/Crash": "things.read",
    "/t.Things/Watch": "things.read",
    "/t.Things/WatchChange": "things.change",
    "/t.Things/WatchDenied": "secrets.read",
    "/t.Things/WatchFail": "things.read",
    "/t.Things/WatchCrash": "things.read",
    "/t.Things/Chat": "things.read",
}


class OneReader:
    """An Authenticator with one caller, who may read."""

    async def authenticate(self, token: str) -> Caller:
        if token != "good":
            raise UnauthenticatedError(TOKEN_WRONG)
        return READER


@dataclass
class Remembered:
    """An AuditLog in memory."""

    records: list[tuple[str, str, str]] = field(default_factory=list)

    async def record(self, *, actor: str, action: str, tenant: str, target: str, outcome: str) -> None:
        self.records.append((actor, action, outcome))


async def say_who(request: bytes, context: Any) -> bytes:
    return current_caller().subject.encode()


async def crash(request: bytes, context: Any) -> bytes:
    raise RuntimeError("the patient's name")


async def watch(request: bytes, context: Any) -> AsyncIterator[bytes]:
    yield current_caller().subject.encode()
    yield b"secret"


async def chat(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    yield b"secret"


async def watch_and_fail(request: bytes, context: Any) -> AsyncIterator[bytes]:
    yield b"first"
    raise UnauthenticatedError(TOKEN_WRONG)


async def watch_and_crash(request: bytes, context: Any) -> AsyncIterator[bytes]:
    yield b"first"
    raise RuntimeError("the patient's name")


HANDLERS = {
    "Read": grpc.unary_unary_rpc_method_handler(say_who),
    "Change": grpc.unary_unary_rpc_method_handler(say_who),
    "Crash": grpc.unary_unary_rpc_method_handler(crash),
    "Undeclared": grpc.unary_unary_rpc_method_handler(say_who),
    "Watch": grpc.unary_stream_rpc_method_handler(watch),
    "WatchUndeclared": grpc.unary_stream_rpc_method_handler(watch),
    "WatchChange": grpc.unary_stream_rpc_method_handler(watch),
    "WatchDenied": grpc.unary_stream_rpc_method_handler(watch),
    "WatchFail": grpc.unary_stream_rpc_method_handler(watch_and_fail),
    "WatchCrash": grpc.unary_stream_rpc_method_handler(watch_and_crash),
    "Chat": grpc.stream_stream_rpc_method_handler(chat),
}


@pytest.fixture
def audit() -> Remembered:
    return Remembered()


@pytest.fixture
async def channel(tmp_path: Path, audit: Remembered) -> AsyncIterator[grpc.aio.Channel]:
    """To a server of Things, with the reader's token."""
    credentials = Authority.open(tmp_path, SystemClock()).server_credentials([])
    server = grpc.aio.server(interceptors=[AdminInterceptor(OneReader(), audit, PERMISSIONS)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.Things", HANDLERS),))
    pair = [(credentials.key_pem, credentials.chain_pem)]
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(pair))
    await server.start()
    client = grpc.ssl_channel_credentials(credentials.ca_pem)
    client = grpc.composite_channel_credentials(client, grpc.access_token_call_credentials("good"))
    async with grpc.aio.secure_channel(f"localhost:{port}", client) as channel:
        yield channel
    await server.stop(None)


async def failure(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_caller_is_known_to_what_serves_the_call(channel: grpc.aio.Channel) -> None:
    """The audit record of a success names them."""
    assert await channel.unary_unary("/t.Things/Read")(b"") == b"reader"


async def test_permission_that_is_not_held_is_denied_and_recorded(channel: grpc.aio.Channel, audit: Remembered) -> None:
    """Known, and not allowed: another answer than a wrong token."""
    error = await failure(channel.unary_unary("/t.Things/Change")(b""))

    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert from_rpc_error(error).code.code == PERMISSION_DENIED.code
    assert audit.records == [("reader", "t.Things/Change", "PERMISSION_DENIED")]


async def test_rpc_without_permission_is_nobodys(channel: grpc.aio.Channel) -> None:
    """A forgotten annotation must close the door, not open it."""
    error = await failure(channel.unary_unary("/t.Things/Undeclared")(b""))

    assert from_rpc_error(error).code.code == RPC_UNGUARDED.code


async def answers_of(stream: Any) -> list[bytes]:
    return [answer async for answer in stream]


async def test_stream_of_answers_passes_the_same_gate(channel: grpc.aio.Channel) -> None:
    """Who may read may watch, and what serves the stream knows whom it serves."""
    assert await answers_of(channel.unary_stream("/t.Things/Watch")(b"")) == [b"reader", b"secret"]


@pytest.mark.parametrize("method", ["WatchUndeclared", "WatchChange", "WatchDenied"])
async def test_stream_that_is_not_held_is_refused_before_it_answers(channel: grpc.aio.Channel, method: str) -> None:
    """Without a declared permission, with one that is not held, or one that changes things, which nobody would
    record."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await answers_of(channel.unary_stream(f"/t.Things/{method}")(b""))

    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_stream_of_requests_is_refused(channel: grpc.aio.Channel, audit: Remembered) -> None:
    """The gate parses one request; one that streams them in must not pass beside it."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await answers_of(channel.stream_stream("/t.Things/Chat")(iter([b"x"])))

    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert from_rpc_error(caught.value).code.code == RPC_UNGUARDED.code


async def test_stream_that_fails_says_what_a_call_would(
    channel: grpc.aio.Channel, caplog: pytest.LogCaptureFixture
) -> None:
    """After the first answer, too: an error of ours is told, a crash says nothing of what it held."""
    with pytest.raises(grpc.aio.AioRpcError) as ours:
        await answers_of(channel.unary_stream("/t.Things/WatchFail")(b""))
    with pytest.raises(grpc.aio.AioRpcError) as crashed:
        await answers_of(channel.unary_stream("/t.Things/WatchCrash")(b""))

    assert from_rpc_error(ours.value).code.code == TOKEN_WRONG.code
    assert crashed.value.code() is grpc.StatusCode.INTERNAL
    assert "patient" not in f"{crashed.value.details()} {crashed.value.trailing_metadata()}"


async def test_crash_says_nothing_of_what_it_held(channel: grpc.aio.Channel, caplog: pytest.LogCaptureFixture) -> None:
    """An exception's message may quote what a customer wrote."""
    error = await failure(channel.unary_unary("/t.Things/Crash")(b""))

    assert error.code() is grpc.StatusCode.INTERNAL
    assert "patient" not in f"{error.details()} {error.trailing_metadata()}"
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == ["call.crashed"]


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        [],
        [("authorization", "good")],
        [("authorization", "bearer good")],
        [("authorization", "Basic good")],
        [("authorization", b"Bearer good")],
        [("authorization", "Bearer good"), ("authorization", "Bearer other")],
    ],
)
def test_anything_but_one_bearer_token_is_none(metadata: Any) -> None:
    """Two headers let a proxy and us see two different callers."""
    with pytest.raises(UnauthenticatedError) as caught:
        bearer_token(metadata)

    assert caught.value.code is TOKEN_MISSING


@given(st.text(max_size=100), st.text(max_size=100))
def test_audit_takes_names_and_nothing_else(tenant: str, name: str) -> None:
    """Whatever a request says, what enters the log is a name or nothing."""
    call = call_of(admin.CreateSiteRequest(tenant=tenant, name=name), "/a/B", "sites.create", READER)

    for asked, kept in ((tenant, call.tenant), (name, call.target)):
        assert kept in (asked, "")
        assert kept.replace("-", "").isalnum() or kept == ""
        assert kept.isascii()


@given(st.lists(st.text(min_size=0, max_size=3000), max_size=40))
def test_violations_always_fit_into_metadata(messages: list[str]) -> None:
    """And the first ones stay, in order: nothing is skipped to fit a later one."""
    violations = [Violation(1, "a", "spec.model", "x.y", message) for message in messages]
    error = ResourcesInvalidError(violations) if violations else InvalidError(TOKEN_MISSING)

    metadata = violations_metadata(error)

    if not violations:
        assert metadata == []
        return
    raw = metadata[0][1]
    kept = [violation.message for violation in admin.ResourceViolations.FromString(raw).violations]
    assert len(raw) <= MAX_VIOLATIONS_BYTES
    assert kept == messages[: len(kept)]


class Writer(OneReader):
    """Who may change, too."""

    async def authenticate(self, token: str) -> Caller:
        await super().authenticate(token)
        return Caller("writer", frozenset({"things.read", "things.change"}))


async def test_room_is_made_for_calls_that_read_and_are_allowed() -> None:
    """A push makes way for them: nobody without a token may slow it down, and no change its own push."""
    heard: list[str] = []

    async def call(method: str, token: str) -> None:
        details: Any = SimpleNamespace(method=method, invocation_metadata=[("authorization", f"Bearer {token}")])
        called = partial(heard.append, f"{method} {token}")
        interceptor = AdminInterceptor(Writer(), Remembered(), PERMISSIONS, called=called)
        await interceptor.intercept_service(handler, details)

    async def handler(details: Any) -> Any:
        return HANDLERS[details.method.rsplit("/")[-1]]

    for method in ("/t.Things/Read", "/t.Things/Change"):
        await call(method, "good")
        await call(method, "bad")

    assert heard == ["/t.Things/Read good"]
