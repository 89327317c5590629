"""Joining a site, and every way in which it must fail: real TLS, real stores, both planes in one process."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import h2.config
import h2.connection
import h2.events
import pytest

from control_plane.config.revisions import Body
from data_plane.ceiling.models import Ceiling
from data_plane.egress.ledger_verifier import verify
from data_plane.egress.service import ledger_folder
from data_plane.identity.join import join
from data_plane.identity.store import IdentityStore
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core.clock import SystemClock
from faos_core.errors import ConflictError, DeniedError, IntegrityError, InvalidError, UnavailableError
from tests.patience import PATIENCE_S
from tests.system.harness import RunningControlPlane, running_control_plane
from tests.system.samples import MODEL
from tunnel.client import GET_BLOB, SESSION, open_channel
from tunnel.client_calls import WRITE_FAILED
from tunnel.enrolment import enroll
from tunnel.error_mapping import DETAIL_KEY
from tunnel.identity import (
    SERVER_NAME,
    certificate_request,
    decode_join_string,
    encode_join_string,
    enrolment_key,
    key_pem,
    new_key,
    to_pem,
)
from tunnel.tls import CLIENT_OPTIONS, MAX_UPSTREAM_BYTES, Credentials


class MovedClock(SystemClock):
    """The machine's clock, moved."""

    def __init__(self) -> None:
        self.offset = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.offset


class Recorder:
    """A sealer that keeps nothing back: what a hostile client would use instead of the gate."""

    async def seal(self, message: object, *, door: str, destination: str, method: str) -> bytes:
        return message.SerializeToString()  # type: ignore[attr-defined,no-any-return]  # a protobuf message


@pytest.fixture
async def plane(tmp_path: Path, database_url: str) -> AsyncIterator[RunningControlPlane]:
    async with running_control_plane(tmp_path / "cp", database_url=database_url) as plane:
        await plane.create_tenant("mercy", "main", "annex")
        yield plane


async def test_joining_gives_an_identity_that_both_sides_describe_alike(
    plane: RunningControlPlane, tmp_path: Path
) -> None:
    """Two people compare the words; the auditor finds the one message that left."""
    member = await plane.join(tmp_path / "node", site="annex")
    seen = await plane.node(member.identity.node)

    assert (
        member.identity.spiffe_id
        == seen.spiffe_id
        == f"spiffe://faos.internal/tenant/mercy/site/annex/node/{seen.name}"
    )
    assert list(seen.fingerprint_words) == list(member.words)
    assert member.labels["site"] == "annex"
    assert IdentityStore(tmp_path / "node").load() == member
    assert verify(ledger_folder(tmp_path / "node")).size == 1


async def test_a_token_is_used_once(plane: RunningControlPlane, tmp_path: Path) -> None:
    """A string that was intercepted after use opens nothing, and says who used it."""
    string = await plane.join_string()
    first = await join(tmp_path / "a", string, Ceiling())

    with pytest.raises(ConflictError) as caught:
        await join(tmp_path / "b", string, Ceiling())

    assert caught.value.code.code == "join_token.used"
    assert first.identity.node in caught.value.what
    assert not IdentityStore(tmp_path / "b").is_joined()


async def test_an_expired_token_says_so(tmp_path: Path) -> None:
    """The operator must read "expired", not a TLS failure."""
    clock = MovedClock()
    async with running_control_plane(tmp_path / "cp", clock=clock) as plane:
        await plane.create_tenant()
        string = await plane.join_string(ttl_s=60)
        clock.offset = timedelta(seconds=61)

        with pytest.raises(DeniedError) as caught:
            await join(tmp_path / "node", string, Ceiling())

    assert caught.value.code.code == "join_token.expired"


async def test_a_wrong_secret_is_refused(plane: RunningControlPlane) -> None:
    """Knowing a token's id is not knowing the token."""
    wrong = decode_join_string(await plane.join_string())
    wrong.secret = b"w" * 32

    with pytest.raises(UnavailableError):  # the key derived from it does not fit the enrolment certificate
        await enroll(wrong, (key := new_key()), certificate_request(key), sealer=Recorder())


async def test_the_certificate_of_one_token_does_not_open_another(plane: RunningControlPlane) -> None:
    """Each enrolment certificate is bound to its token."""
    mine, other = [decode_join_string(await plane.join_string()) for _ in range(2)]
    mixed = tunnel.JoinString.FromString(mine.SerializeToString())
    mixed.token_id = other.token_id

    with pytest.raises(DeniedError) as caught:
        await enroll(mixed, (key := new_key()), certificate_request(key), sealer=Recorder())

    assert caught.value.code.code == "join_token.unknown"


async def test_a_string_for_another_site_is_refused_before_it_is_used(
    plane: RunningControlPlane, tmp_path: Path
) -> None:
    """The token stays good for the site that it was made for."""
    string = await plane.join_string(site="annex")

    with pytest.raises(InvalidError) as caught:
        await join(tmp_path / "node", string, Ceiling(), site="main")
    member = await join(tmp_path / "node", string, Ceiling(), site="annex")

    assert caught.value.code.code == "join_string.wrong_site"
    assert member.identity.site == "annex"


async def test_a_node_does_not_join_twice(plane: RunningControlPlane, tmp_path: Path) -> None:
    """Joining again would throw the identity away."""
    await plane.join(tmp_path / "node")

    with pytest.raises(ConflictError) as caught:
        await plane.join(tmp_path / "node")

    assert caught.value.code.code == "node.already_joined"


async def test_another_control_plane_is_not_believed(plane: RunningControlPlane, tmp_path: Path) -> None:
    """Whoever answers at the address must hold a certificate of the CA in the string."""
    async with running_control_plane(tmp_path / "impostor") as impostor:
        await impostor.create_tenant()
        string = decode_join_string(await plane.join_string())
        string.addresses[:] = [impostor.tunnel_address]

        with pytest.raises(IntegrityError) as caught:
            await join(tmp_path / "node", encode_join_string(string), Ceiling())

    assert caught.value.code.code == "tls.other_control_plane"
    assert not IdentityStore(tmp_path / "node").is_joined()


async def session_status(plane: RunningControlPlane, credentials: Credentials) -> tuple[grpc.StatusCode, str]:
    """How the control plane answers a session of this certificate that says Hello. Where the call ended while that was
    written, gRPC does not know what the answer was: it is asked again."""
    for _ in range(5):
        status, detail = await _answer_to_hello(plane, credentials)
        if detail != WRITE_FAILED:
            break
    return status, detail


async def _answer_to_hello(plane: RunningControlPlane, credentials: Credentials) -> tuple[grpc.StatusCode, str]:
    async with open_channel(plane.tunnel_address, credentials) as channel:
        call = channel.stream_stream(SESSION, response_deserializer=tunnel.CloudFrame.FromString)()
        try:
            await call.write(tunnel.NodeFrame(hello=tunnel.Hello()).SerializeToString())
            answer = await call.read()
        except grpc.aio.AioRpcError as error:
            if error.details() == WRITE_FAILED:
                return error.code(), WRITE_FAILED
            detail = dict(error.trailing_metadata() or ()).get(DETAIL_KEY, b"")
            return error.code(), bytes(detail).decode()  # type: ignore[arg-type]  # a -bin key carries bytes
        return grpc.StatusCode.OK, str(answer.WhichOneof("frame"))


async def test_a_joined_node_is_welcomed(plane: RunningControlPlane, tmp_path: Path) -> None:
    """The counterpart of the refusals below: the same probe, let in."""
    member = await plane.join(tmp_path / "node")

    assert await session_status(plane, member.credentials) == (grpc.StatusCode.OK, "welcome")


async def test_an_enrolment_certificate_opens_no_session(plane: RunningControlPlane) -> None:
    """A join string must not be worth more than one enrolment."""
    string = decode_join_string(await plane.join_string())
    credentials = Credentials(
        to_pem([string.enrolment_certificate_der]),
        key_pem(enrolment_key(string.secret)),
        to_pem([string.ca_certificate_der]),
    )

    status, detail = await session_status(plane, credentials)

    assert status is grpc.StatusCode.UNAUTHENTICATED
    assert "peer.unknown" in detail


async def test_a_certificate_of_another_ca_is_refused_in_the_handshake(
    plane: RunningControlPlane, tmp_path: Path
) -> None:
    """Another control plane's node is nobody here."""
    async with running_control_plane(tmp_path / "other") as other:
        await other.create_tenant()
        stranger = await other.join(tmp_path / "node")
    ours = (plane.data_dir / "ca" / "ca.pem").read_bytes()
    credentials = Credentials(stranger.credentials.chain_pem, stranger.credentials.key_pem, ours)

    status, _ = await session_status(plane, credentials)

    assert status is grpc.StatusCode.UNAVAILABLE


async def test_a_certificate_of_another_tenant_reads_nothing(plane: RunningControlPlane, tmp_path: Path) -> None:
    """Blobs are a tenant's; knowing a digest is not a right to the content."""
    await plane.create_tenant("rival")
    await plane.apply(MODEL)
    rival = await plane.join(tmp_path / "rival", tenant="rival")
    mine = await plane.join(tmp_path / "mine")
    wanted = tunnel.GetBlobRequest(sha256=Body.of(MODEL).digest)

    assert await blob_status(plane, mine.credentials, wanted) is grpc.StatusCode.OK
    assert await blob_status(plane, rival.credentials, wanted) is grpc.StatusCode.NOT_FOUND


async def blob_status(
    plane: RunningControlPlane, credentials: Credentials, request: tunnel.GetBlobRequest
) -> grpc.StatusCode:
    async with open_channel(plane.tunnel_address, credentials) as channel:
        call = channel.unary_stream(GET_BLOB, response_deserializer=tunnel.BlobChunk.FromString)(
            request.SerializeToString()
        )
        try:
            async for _ in call:
                pass
        except grpc.aio.AioRpcError:
            return await call.code()
        return await call.code()


async def test_a_frame_that_grows_over_the_limit_when_decompressed_is_refused(
    plane: RunningControlPlane, tmp_path: Path
) -> None:
    """A few kilobytes of gzip must not become gigabytes in the control plane."""
    member = await plane.join(tmp_path / "node")
    bomb = tunnel.NodeFrame(hello=tunnel.Hello(node_version="0" * (MAX_UPSTREAM_BYTES + 1))).SerializeToString()
    credentials = member.credentials.for_client()

    async with grpc.aio.secure_channel(
        plane.tunnel_address, credentials, options=CLIENT_OPTIONS, compression=grpc.Compression.Gzip
    ) as channel:
        call = channel.stream_stream(SESSION, response_deserializer=tunnel.CloudFrame.FromString)()
        await call.write(bomb)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()

    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_tls_1_2_is_refused_with_its_reason(plane: RunningControlPlane, tmp_path: Path) -> None:
    """gRPC negotiates 1.2 when asked; every RPC on such a connection is refused, whoever makes it."""
    member = await plane.join(tmp_path / "node")

    assert await over_tls(plane, member.credentials, ssl.TLSVersion.TLSv1_2, tmp_path) == ("16", "TLSv1.2")
    assert (await over_tls(plane, member.credentials, ssl.TLSVersion.TLSv1_3, tmp_path))[0] != "16"


async def over_tls(
    plane: RunningControlPlane, credentials: Credentials, version: ssl.TLSVersion, scratch: Path
) -> tuple[str, str]:
    """grpc-status of a GetBlob call over exactly this version of TLS, and the version negotiated."""
    (scratch / "chain.pem").write_bytes(credentials.chain_pem)
    (scratch / "key.pem").write_bytes(credentials.key_pem)
    context = ssl.create_default_context(cadata=credentials.ca_pem.decode())
    context.load_cert_chain(scratch / "chain.pem", scratch / "key.pem")
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2"])
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", plane.endpoints.tunnel_port, ssl=context, server_hostname=SERVER_NAME
    )
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    connection.initiate_connection()
    headers = [(":method", "POST"), (":scheme", "https"), (":path", GET_BLOB), (":authority", SERVER_NAME)]
    connection.send_headers(1, [*headers, ("te", "trailers"), ("content-type", "application/grpc")])
    connection.send_data(1, bytes(5), end_stream=True)  # an empty message
    negotiated = writer.get_extra_info("ssl_object").version()
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                writer.write(connection.data_to_send())
                for event in connection.receive_data(await reader.read(65536)):
                    found = dict(getattr(event, "headers", None) or ())
                    if status := found.get(b"grpc-status"):
                        return status.decode(), negotiated
    finally:
        writer.close()
