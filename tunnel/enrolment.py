"""Enrolment as a node does it: prove the token, get a certificate, and believe none of it unchecked."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core.errors import FaosError, IntegrityError, RetryError, UnavailableError
from faos_core.ids import NodeIdentity
from tunnel.client import DOOR, ENROLL, open_channel
from tunnel.client_calls import DIAL_TIMEOUT_S, parsed, reached
from tunnel.egress import Sealer
from tunnel.errors import CERTIFICATE_REFUSED, CONTROL_PLANE_UNREACHABLE
from tunnel.identity import CLOCK_SKEW, enrolment_key, fingerprint_words, key_pem, public_der, to_pem
from tunnel.route import Direct, Route
from tunnel.tls import Credentials, uris_of


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What a node keeps of its enrolment."""

    identity: NodeIdentity
    credentials: Credentials
    tuf_root: bytes
    labels: dict[str, str]
    words: tuple[str, ...]
    address: str  # the one that answered
    recovery_chain_pem: bytes = b""  # for the recovery key; empty: none


async def enroll(
    join: tunnel.JoinString,
    key: ec.EllipticCurvePrivateKey,
    csr_der: bytes,
    *,
    sealer: Sealer,
    recovery_csr_der: bytes = b"",
    route: Route | None = None,
) -> Enrolled:
    """Try each address of the join string once.

    Raises: IntegrityError (the answer does not hold), DeniedError / ConflictError (the token), RetryError (nobody
    answered), and what the route makes of that.
    """
    route = route or Direct()
    bootstrap = Credentials(
        to_pem([join.enrolment_certificate_der]), key_pem(enrolment_key(join.secret)), to_pem([join.ca_certificate_der])
    )
    failure: FaosError = UnavailableError(
        CONTROL_PLANE_UNREACHABLE, address="", details="the join string names no address", timeout_s=0
    )
    for address in join.addresses:
        try:
            response = await _call(address, bootstrap, join, csr_der, recovery_csr_der, sealer, route)
        except RetryError as error:
            failure = await route.explain(address, error, bootstrap.ca_pem)
            continue
        return accept(response, join, key, address)
    raise failure


async def _call(
    address: str,
    credentials: Credentials,
    join: tunnel.JoinString,
    csr_der: bytes,
    recovery_csr_der: bytes,
    sealer: Sealer,
    route: Route,
) -> tunnel.EnrollResponse:
    request = tunnel.EnrollRequest(
        token_id=join.token_id, secret=join.secret, csr_der=csr_der, recovery_csr_der=recovery_csr_der
    )
    raw = await sealer.seal(request, door=DOOR, destination=address, method=ENROLL)
    async with open_channel(await route.target(address), credentials) as channel:
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(ENROLL)
        try:
            answer = await method(raw, timeout=DIAL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise reached(error, address) from error
    return parsed(tunnel.EnrollResponse, answer)


def accept(
    response: tunnel.EnrollResponse, join: tunnel.JoinString, key: ec.EllipticCurvePrivateKey, address: str
) -> Enrolled:
    """Check every claim of the answer. Raises IntegrityError, InvalidError."""
    identity = NodeIdentity.parse(response.spiffe_id)
    leaf = _leaf(response.certificate_chain_der)
    ca = x509.load_der_x509_certificate(join.ca_certificate_der)
    ours = public_der(key.public_key())
    _require(_public(leaf) == ours, "the certificate is for another key")
    _require(uris_of(leaf) == [response.spiffe_id], "the certificate carries another name")
    _require(_issued(leaf, ca), "the certificate is not by the CA of the join string")
    _require((identity.tenant, identity.site) == (join.tenant, join.site), "it is for another tenant or site")
    _require(hashlib.sha256(response.tuf_root).digest() == join.tuf_root_sha256, "the TUF root is not the pinned one")
    words = fingerprint_words(join.ca_certificate_der, hashlib.sha256(ours).digest())
    _require(list(response.fingerprint_words) == words, "the fingerprint words differ")
    credentials = Credentials(_chain(response.certificate_chain_der), key_pem(key), to_pem([join.ca_certificate_der]))
    recovery = _chain(response.recovery_chain_der)
    return Enrolled(identity, credentials, response.tuf_root, dict(response.labels), tuple(words), address, recovery)


def accept_renewal(
    response: tunnel.RenewResponse, spiffe_id: str, key: ec.EllipticCurvePrivateKey, ca_pem: bytes
) -> Credentials:
    """The next pair, once every claim about it holds. Raises IntegrityError."""
    leaf = _leaf(response.certificate_chain_der)
    _require(_public(leaf) == public_der(key.public_key()), "the certificate is for another key")
    _require(uris_of(leaf) == [spiffe_id], "the certificate carries another name")
    _require(_issued(leaf, x509.load_pem_x509_certificate(ca_pem)), "the certificate is not by the CA of this node")
    return Credentials(_chain(response.certificate_chain_der), key_pem(key), ca_pem)


def _leaf(chain: Sequence[bytes]) -> x509.Certificate:
    """One whose key, names and times can be read: whoever answers made it. Raises IntegrityError."""
    _require(len(chain) > 0, "there is no certificate in it")
    try:
        leaf = x509.load_der_x509_certificate(chain[0])
        _ = leaf.public_key(), uris_of(leaf), leaf.not_valid_before_utc + CLOCK_SKEW, leaf.not_valid_after_utc
    except Exception as error:  # cryptography raises several kinds; all mean that it is none
        raise IntegrityError(CERTIFICATE_REFUSED, reason="its certificate cannot be read") from error
    return leaf


def _chain(chain: Sequence[bytes]) -> bytes:
    """PEM. Raises IntegrityError."""
    try:
        return to_pem(list(chain))
    except ValueError as error:
        raise IntegrityError(CERTIFICATE_REFUSED, reason="a certificate of its chain cannot be read") from error


def _public(certificate: x509.Certificate) -> bytes:
    key = certificate.public_key()
    return public_der(key) if isinstance(key, ec.EllipticCurvePublicKey) else b""


def _issued(leaf: x509.Certificate, ca: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(ca)
    except Exception:  # noqa: BLE001  # cryptography raises several kinds; all mean no
        return False
    return True


def _require(holds: bool, reason: str) -> None:
    if not holds:
        raise IntegrityError(CERTIFICATE_REFUSED, reason=reason)
