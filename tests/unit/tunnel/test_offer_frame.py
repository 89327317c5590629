"""Frames of offers that share their bytes."""

from hypothesis import given
from hypothesis import strategies as st

from faos.tunnel.v1 import tunnel_pb2 as tunnel
from tunnel.offer_frame import EncodedOffer, offer_frame


@given(st.binary(max_size=64), st.integers(0, 2**64 - 1), st.binary(max_size=40_000), st.lists(st.binary(), max_size=3))
def test_frame_is_the_offer_with_its_nonce(nonce: bytes, revision: int, manifest: bytes, bodies: list[bytes]) -> None:
    """Nodes parse what they are sent with the library: by hand or not, it must be the same message."""
    offer = tunnel.ConfigOffer(revision=revision, manifest=manifest, blobs=[tunnel.Blob(data=body) for body in bodies])

    frame = tunnel.CloudFrame.FromString(
        offer_frame(EncodedOffer(revision, offer.SerializeToString(), frozenset()), nonce)
    )

    offer.nonce = nonce
    assert frame == tunnel.CloudFrame(config_offer=offer)
