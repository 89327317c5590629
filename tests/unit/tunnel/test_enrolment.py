"""What a node believes of an answer to its enrolment or renewal: nothing unread, and nothing that cannot be read."""

import socket
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from google.protobuf.message import Message

from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core.errors import IntegrityError, UnavailableError
from tunnel import enrolment
from tunnel.enrolment import accept_renewal, enroll
from tunnel.identity import certificate_request, new_key

NOW = datetime(2026, 11, 23, tzinfo=UTC)
SPIFFE_ID = "spiffe://faos/tenant/t/site/s/node/n"


def certificate(key: ec.EllipticCurvePrivateKey, *, names: bytes | None = None) -> bytes:
    """Self-signed DER; names: what stands where the names should, as DER."""
    name = x509.Name([])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(7).not_valid_before(NOW).not_valid_after(NOW + timedelta(minutes=1))
    if names is not None:
        identifier = x509.oid.ExtensionOID.SUBJECT_ALTERNATIVE_NAME
        builder = builder.add_extension(x509.UnrecognizedExtension(identifier, names), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


KEY = new_key()
CA = certificate(KEY)
UNREADABLE = {
    "nothing": [],
    "no certificate": [b"no certificate"],
    "names that are none": [certificate(KEY, names=b"no names")],
}


@pytest.mark.parametrize("chain", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_an_answer_that_cannot_be_read_is_refused(chain: list[bytes]) -> None:
    """A renewal is asked for by a process that must not end over what it is answered."""
    pem = x509.load_der_x509_certificate(CA).public_bytes(Encoding.PEM)

    with pytest.raises(IntegrityError):
        accept_renewal(tunnel.RenewResponse(certificate_chain_der=chain), SPIFFE_ID, KEY, pem)


class Plain:
    """A gate that lets everything pass."""

    async def seal(self, message: Message, *, door: str, destination: str, method: str) -> bytes:
        return message.SerializeToString()


async def test_an_address_that_says_nothing_is_no_reason_not_to_try_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """A firewall that swallows, or a hung balancer, before the address that works: a join string names several."""
    monkeypatch.setattr(enrolment, "DIAL_TIMEOUT_S", 0.5)
    silent = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in silent]
    join = tunnel.JoinString(addresses=addresses, ca_certificate_der=CA, enrolment_certificate_der=CA, secret=b"s" * 32)

    with pytest.raises(UnavailableError) as caught:
        await enroll(join, KEY, certificate_request(KEY), sealer=Plain())

    for each in silent:
        each.close()
    assert addresses[1] in caught.value.what
