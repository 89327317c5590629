"""An offer to many nodes: encoded once, and framed for each of them with a nonce of its own.

A protobuf message is the concatenation of its fields in any order, so the nonce can be put before bytes that are
shared. Source: protobuf encoding, "Message structure".
"""

from dataclasses import dataclass

from faos.tunnel.v1 import tunnel_pb2 as tunnel

LENGTH_DELIMITED = 2
NONCE_FIELD = tunnel.ConfigOffer.NONCE_FIELD_NUMBER
OFFER_FIELD = tunnel.CloudFrame.CONFIG_OFFER_FIELD_NUMBER


@dataclass(frozen=True, slots=True)
class EncodedOffer:
    """A ConfigOffer without its nonce, as all nodes are sent it that lack the same."""

    revision: int
    data: bytes
    digests: frozenset[bytes]  # SHA-256 of every body that is for the node, carried or not


def offer_frame(offer: EncodedOffer, nonce: bytes) -> bytes:
    """The serialised CloudFrame."""
    body = _field(NONCE_FIELD, nonce) + offer.data
    return _field(OFFER_FIELD, body)


def serialised(frame: "tunnel.CloudFrame | bytes") -> bytes:
    """A CloudFrame, or one that is encoded already."""
    return frame if isinstance(frame, bytes) else frame.SerializeToString()


def _field(number: int, value: bytes) -> bytes:
    return b"".join((_varint(number << 3 | LENGTH_DELIMITED), _varint(len(value)), value))


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
