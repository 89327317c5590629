"""Keys, certificate requests and join strings: what both ends must agree on before the first connection.

Sources: RFC 5280 (X.509), RFC 2986 (PKCS#10), RFC 5869 (HKDF), arXiv:0901.4016 (proquints).
"""

import base64
import hashlib
import zlib
from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from google.protobuf.message import DecodeError

from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core.errors import InvalidError
from tunnel.errors import JOIN_STRING_MALFORMED

PREFIX = "faos-join-v1."
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
SERVER_NAME = "control-plane.faos.internal"  # the DNS SAN of every control plane; the address may be anything
CLOCK_SKEW = timedelta(minutes=10)  # certificates hold from so long before they were made
CONSONANTS, VOWELS = "bdfghjklmnprstvz", "aiou"


def encode_join_string(join: tunnel.JoinString) -> str:
    """One line to copy and paste; ends in a checksum that tells a cut copy from a whole one."""
    body = join.SerializeToString()
    return PREFIX + base64.urlsafe_b64encode(body + zlib.crc32(body).to_bytes(4)).decode().rstrip("=")


def decode_join_string(text: str) -> tunnel.JoinString:
    """Inverse; white space inside (a wrapped line) is ignored. Raises InvalidError."""
    packed = "".join(text.split())
    try:
        raw = base64.b64decode(packed.removeprefix(PREFIX) + "=" * (-len(packed) % 4 + 2), b"-_", validate=False)
        join = tunnel.JoinString.FromString(raw[:-4])
    except (ValueError, DecodeError) as error:
        raise InvalidError(JOIN_STRING_MALFORMED) from error
    if not packed.startswith(PREFIX) or zlib.crc32(raw[:-4]).to_bytes(4) != raw[-4:]:
        raise InvalidError(JOIN_STRING_MALFORMED)
    return join


def enrolment_key(secret: bytes) -> ec.EllipticCurvePrivateKey:
    """The P-256 key that both ends derive from a join token's secret."""
    derived = HKDF(hashes.SHA256(), 48, salt=None, info=b"faos enrolment key v1").derive(secret)
    return ec.derive_private_key(int.from_bytes(derived) % (P256_ORDER - 1) + 1, ec.SECP256R1())


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PKCS#8 PEM, unencrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Raises ValueError for anything but a P-256 private key."""
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("not an elliptic curve key")  # callers catch one type
    return key


def certificate_request(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PKCS#10 DER that proves possession of the key; the control plane decides the name."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def public_der(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def to_pem(certificates_der: list[bytes]) -> bytes:
    return b"".join(
        x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM) for der in certificates_der
    )


def fingerprint_words(ca_der: bytes, node_public_sha256: bytes) -> list[str]:
    """Three pronounceable words (48 bits) over the CA and the node's public key: the same on both sides, or someone
    is in between.

    node_public_sha256: SHA-256 of the DER of its SubjectPublicKeyInfo.
    """
    digest = hashlib.sha256(hashlib.sha256(ca_der).digest() + node_public_sha256).digest()
    return [_proquint(int.from_bytes(digest[at : at + 2])) for at in (0, 2, 4)]


def _proquint(sixteen_bits: int) -> str:
    shifts = ((CONSONANTS, 12, 15), (VOWELS, 10, 3), (CONSONANTS, 6, 15), (VOWELS, 4, 3), (CONSONANTS, 0, 15))
    return "".join(letters[sixteen_bits >> shift & mask] for letters, shift, mask in shifts)
