"""The transport CA: signs the certificates of nodes, of enrolment and of the control plane itself.

ECDSA P-256, SPIFFE IDs as the only URI name of clients. A client certificate has no DNS name and no serverAuth, so a
node cannot pose as a control plane. Source: DESIGN section 4; SPIFFE X.509-SVID section 4.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from control_plane.identity.errors import CA_INCOMPLETE, REQUEST_MALFORMED
from faos_core.address import parse_address
from faos_core.clock import Clock
from faos_core.disk import Disk
from faos_core.errors import InvalidError, SetupError
from faos_core.ids import TRUST_DOMAIN, NodeIdentity
from tunnel.identity import CLOCK_SKEW, SERVER_NAME, enrolment_key, key_pem, load_key, new_key
from tunnel.tls import Credentials

CA_LIFETIME = timedelta(days=3650)
NODE_LIFETIME = timedelta(hours=24)  # nodes renew at half of it
SERVER_LIFETIME = timedelta(days=90)  # made anew at every start
CA_BACKDATED = timedelta(days=2)  # a site's clock may be a day behind, and ours a day ahead when this is made


def enrolment_uri(token_id: str) -> str:
    return f"spiffe://{TRUST_DOMAIN}/enrolment/{token_id}"


@dataclass(frozen=True, slots=True)
class Authority:
    """The CA's key and certificate. Immutable; safe to share."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    clock: Clock
    node_lifetime: timedelta = NODE_LIFETIME

    @classmethod
    def open(cls, directory: Path, clock: Clock, *, node_lifetime: timedelta = NODE_LIFETIME) -> "Authority":
        """Read the authority, or make one where there is none. Raises SetupError when only half of it is there."""
        key_file, certificate_file = directory / "ca.key", directory / "ca.pem"
        if not key_file.exists() and not certificate_file.exists():
            _create(directory, clock)
        try:
            key = load_key(key_file.read_bytes())
            certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
        except (OSError, ValueError) as error:
            raise SetupError(CA_INCOMPLETE, directory=directory) from error
        if certificate.public_key() != key.public_key():
            raise SetupError(CA_INCOMPLETE, directory=directory)
        return cls(key, certificate, clock, node_lifetime)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def node_certificate(self, csr_der: bytes, identity: NodeIdentity) -> x509.Certificate:
        """For the key of the request, under the name that the control plane chose. Raises InvalidError."""
        names = [x509.UniformResourceIdentifier(identity.spiffe_id)]
        made_at = self.clock.now() - CLOCK_SKEW  # which the node renews by
        usage = ExtendedKeyUsageOID.CLIENT_AUTH
        return self._sign(_requested_key(csr_der), names, self.node_lifetime, usage, since=made_at)

    def recovery_certificate(self, csr_der: bytes, identity: NodeIdentity) -> x509.Certificate:
        """Lives as long as this authority, and opens nothing but Recover. Raises InvalidError."""
        names = [x509.UniformResourceIdentifier(identity.recovery_id)]
        return self._sign(_requested_key(csr_der), names, CA_LIFETIME, ExtendedKeyUsageOID.CLIENT_AUTH)

    def enrolment_certificate(self, secret: bytes, token_id: str, lifetime: timedelta) -> x509.Certificate:
        """Opens nothing but Enroll. It outlives its token a little, so that "expired" can be said in plain words."""
        names = [x509.UniformResourceIdentifier(enrolment_uri(token_id))]
        key = enrolment_key(secret).public_key()
        return self._sign(key, names, lifetime + timedelta(days=30), ExtendedKeyUsageOID.CLIENT_AUTH)

    def server_credentials(self, addresses: Sequence[str]) -> Credentials:
        """A fresh key and certificate for the tunnel's and the admin API's servers.

        addresses: host:port under which they are reached; their hosts become names besides SERVER_NAME.
        """
        key = new_key()
        names: list[x509.GeneralName] = [x509.DNSName(SERVER_NAME), x509.DNSName("localhost"), _host("127.0.0.1")]
        names += [name for name in map(_host, map(_host_part, addresses)) if name not in names]
        certificate = self._sign(key.public_key(), names, SERVER_LIFETIME, ExtendedKeyUsageOID.SERVER_AUTH)
        return Credentials(certificate.public_bytes(serialization.Encoding.PEM), key_pem(key), self.pem)

    def _sign(
        self,
        key: ec.EllipticCurvePublicKey,
        names: Sequence[x509.GeneralName],
        lifetime: timedelta,
        usage: x509.ObjectIdentifier,
        *,
        since: datetime | None = None,
    ) -> x509.Certificate:
        """since: from when on it holds; None: from when the authority does, since a clock that is wrong when it is made
        must not make it useless once the clock is right."""
        now = self.clock.now()
        since = since or self.certificate.not_valid_before_utc
        not_after = min(now + lifetime, self.certificate.not_valid_after_utc)
        builder = _builder(key, self.certificate.subject, x509.Name([]))
        builder = builder.not_valid_before(since).not_valid_after(not_after)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        return builder.add_extension(issuer, critical=False).sign(self.key, hashes.SHA256())


def _builder(key: ec.EllipticCurvePublicKey, issuer: x509.Name, subject: x509.Name) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
    )


def _create(directory: Path, clock: Clock) -> None:
    """Both files or neither: a crash leaves no half of an authority."""
    key, now = new_key(), clock.now()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "FAOS transport CA")])
    builder = _builder(key.public_key(), name, name)
    builder = builder.not_valid_before(now - CA_BACKDATED).not_valid_after(now + CA_LIFETIME)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_signing_only(), critical=True)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = builder.add_extension(identifier, critical=False).sign(key, hashes.SHA256())
    files = {"ca.key": key_pem(key), "ca.pem": certificate.public_bytes(serialization.Encoding.PEM)}
    Disk().put_folder(directory, files)


def _signing_only() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )


def _requested_key(csr_der: bytes) -> ec.EllipticCurvePublicKey:
    try:
        request = x509.load_der_x509_csr(csr_der)
        signed = request.is_signature_valid
        key = request.public_key()
    except (ValueError, InvalidSignature) as error:
        raise InvalidError(REQUEST_MALFORMED) from error
    if not signed or not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidError(REQUEST_MALFORMED)
    return key


def _host_part(address: str) -> str:
    return parse_address(address).host


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
