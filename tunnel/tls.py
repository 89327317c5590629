"""TLS for both ends: mutual, 1.3, and bound to SPIFFE identities."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from cryptography import x509

from faos_core.errors import SetupError, UnauthenticatedError
from tunnel.errors import PEER_UNKNOWN, PORT_TAKEN, TLS_TOO_OLD
from tunnel.identity import SERVER_NAME

MAX_FRAME_BYTES = 16 * 1024 * 1024  # after decompression
MAX_UPSTREAM_BYTES = 1024 * 1024
KEEPALIVE_MS = 30_000

KEEPALIVE_OPTIONS: Sequence[tuple[str, Any]] = (
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)
CLIENT_OPTIONS: Sequence[tuple[str, Any]] = (
    ("grpc.ssl_target_name_override", SERVER_NAME),
    ("grpc.max_receive_message_length", MAX_FRAME_BYTES),
    ("grpc.enable_http_proxy", 0),  # a proxy of the environment is not the node's: see data_plane.egress.relay
    ("grpc.enable_retries", 0),  # the ledger holds every message once; a transparent retry would send it twice
    *KEEPALIVE_OPTIONS,
    ("grpc.use_local_subchannel_pool", 1),  # a new channel is a new connection with the current certificate
)


def server_options(*, max_receive_bytes: int, max_send_bytes: int) -> Sequence[tuple[str, Any]]:
    """Of every server that listens on the network. Sizes are of one message, after decompression."""
    return (
        ("grpc.max_receive_message_length", max_receive_bytes),
        ("grpc.max_send_message_length", max_send_bytes),
        *KEEPALIVE_OPTIONS,
        ("grpc.http2.min_recv_ping_interval_without_data_ms", KEEPALIVE_MS // 3),
        ("grpc.http2.max_ping_strikes", 0),  # pings that a stalled machine sends late, in a bunch, are no attack
        ("grpc.so_reuseport", 0),  # two servers on one port is a mistake here, not a feature
    )


@dataclass(frozen=True, slots=True)
class Credentials:
    """PEM bytes of one end: its chain (leaf first), its key, and the CAs that it trusts."""

    chain_pem: bytes
    key_pem: bytes
    ca_pem: bytes

    def for_client(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(self.ca_pem, self.key_pem, self.chain_pem)

    def for_server(self, *, mutual: bool = True) -> grpc.ServerCredentials:
        """mutual: client certificates are demanded, and verified in the handshake."""
        pair = [(self.key_pem, self.chain_pem)]
        return grpc.ssl_server_credentials(pair, self.ca_pem if mutual else None, require_client_auth=mutual)


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of a connection, from its verified certificate."""

    uri: str
    serial: int


def bind(server: grpc.aio.Server, listen: str, credentials: grpc.ServerCredentials, *, setting: str) -> int:
    """The port it listens on. setting: what says `listen`. Raises SetupError (port.taken)."""
    try:
        port = server.add_secure_port(listen, credentials)
    except RuntimeError as error:
        raise SetupError(PORT_TAKEN, address=listen, setting=setting) from error
    if port == 0:
        raise SetupError(PORT_TAKEN, address=listen, setting=setting)
    return port


def peer_of(context: grpc.aio.ServicerContext[Any, Any]) -> Peer:
    """Raises UnauthenticatedError for TLS below 1.3, no certificate, or not exactly one URI name in it."""
    facts = context.auth_context()
    refuse_old_tls(facts)
    pems = list(facts.get("x509_pem_cert", []))
    if not pems:
        raise UnauthenticatedError(PEER_UNKNOWN, reason="There is no client certificate.")
    certificate = x509.load_pem_x509_certificate(bytes(pems[0]))
    uris = uris_of(certificate)
    if len(uris) != 1:
        raise UnauthenticatedError(PEER_UNKNOWN, reason="Its certificate does not carry exactly one SPIFFE ID.")
    return Peer(uris[0], certificate.serial_number)


def refuse_old_tls(facts: Any) -> None:
    """gRPC Python cannot pin the version; it tells what was negotiated."""
    version = next((bytes(value).decode() for value in facts.get("ssl_tls_version", [])), "no TLS")
    if version != "TLSv1.3":
        raise UnauthenticatedError(TLS_TOO_OLD, version=version)


def uris_of(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)
