"""Offers that nodes share: each gets what its labels select and what it lacks, and the bytes are made once."""

from hashlib import sha256

import pytest

from control_plane.fleet import offers as offers_module
from control_plane.fleet.interfaces import OfferMaterial
from control_plane.fleet.offers import INLINE_BLOB_BYTES, Offers
from faos.resource.v1.resource_pb2 import KIND_AGENT, KIND_MODEL, Manifest, ManifestEntry, Selector
from faos.tunnel.v1 import tunnel_pb2 as tunnel

EVERYWHERE, NORTH, LARGE = b"everywhere", b"north only", b"x" * (INLINE_BLOB_BYTES + 1)
NOTHING: frozenset[bytes] = frozenset()


def digest(body: bytes) -> bytes:
    return sha256(body).digest()


def offers(*, lost: bytes = b"") -> Offers:
    entries = [
        ManifestEntry(kind=KIND_MODEL, name="a", sha256=digest(EVERYWHERE)),
        ManifestEntry(
            kind=KIND_AGENT, name="b", sha256=digest(NORTH), sites=Selector(match_labels={"region": "north"})
        ),
        ManifestEntry(kind=KIND_MODEL, name="c", sha256=digest(LARGE)),
    ]
    manifest = Manifest(tenant="acme", revision=3, entries=entries)
    data = manifest.SerializeToString()
    blobs = {digest(body): body for body in (EVERYWHERE, NORTH, LARGE) if body != lost}
    metadata = tunnel.TufMetadata(timestamp=b"t")
    return Offers(OfferMaterial(3, data, digest(data), manifest, metadata, blobs))


def carried(made: Offers, labels: dict[str, str], known: frozenset[bytes] = NOTHING) -> list[bytes]:
    offer = tunnel.ConfigOffer.FromString(made.encoded(made.selection(labels), known).data)
    assert (offer.revision, offer.metadata.timestamp) == (3, b"t")
    assert offer.manifest == made.material.manifest_bytes
    return [blob.data for blob in offer.blobs]


def test_node_gets_what_its_labels_select() -> None:
    """A resource for one region must not show up, not even by its kind, in another."""
    made = offers()

    assert carried(made, {"region": "north", "site": "s"}) == [EVERYWHERE, NORTH]
    assert carried(made, {"region": "south"}) == [EVERYWHERE]
    assert made.selection({"region": "south"}).target.kinds == {KIND_MODEL}
    assert made.selection({"region": "north"}).target.kinds == {KIND_MODEL, KIND_AGENT}


def test_offer_carries_only_what_is_missing_and_small() -> None:
    """The state is named whole; a push of one changed resource must not cost the size of all."""
    made = offers()

    assert carried(made, {"region": "north"}, frozenset({digest(EVERYWHERE)})) == [NORTH]
    everything = {digest(EVERYWHERE), digest(LARGE), digest(b"of another revision")}
    assert carried(made, {}, frozenset(everything)) == []
    assert made.selection({}).digests == {digest(EVERYWHERE), digest(LARGE)}


def test_nodes_that_lack_the_same_share_the_bytes() -> None:
    """Whatever else they know and however they are labelled: encoding for each of 5,000 nodes is what made Go slow."""
    made = offers()
    first = made.encoded(made.selection({"site": "a"}), frozenset({b"old"}))
    second = made.encoded(made.selection({"site": "b"}), frozenset({b"older"}))

    assert first is second


def test_encoded_offers_are_kept_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenant whose sites all have something of their own must not fill the memory."""
    monkeypatch.setattr(offers_module, "KEPT_BYTES", 1)
    made = offers()
    first = made.encoded(made.selection({"region": "north"}), NOTHING)
    made.encoded(made.selection({}), NOTHING)

    assert made.encoded(made.selection({"region": "north"}), NOTHING) is not first


def test_body_that_the_database_lost_is_left_out() -> None:
    """The node asks for it and says that it is missing, which a person sees; the others must not suffer."""
    assert carried(offers(lost=EVERYWHERE), {"region": "north"}) == [NORTH]
