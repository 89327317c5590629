"""What nodes of one tenant are offered: chosen once for all with the same labels, encoded once for all that lack the
same bodies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from control_plane.fleet.interfaces import OfferMaterial
from faos.resource.v1.resource_pb2 import ManifestEntry
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from tunnel.offer_frame import EncodedOffer
from tunnel.session import Target

INLINE_BLOB_BYTES = 64 * 1024
INLINE_OFFER_BYTES = 2 * 1024 * 1024
KEPT_BYTES = 16 * 1024 * 1024  # of encoded offers, of one tenant


@dataclass(frozen=True, slots=True)
class Selection:
    """The part of a revision that is for nodes with certain labels."""

    entries: Sequence[ManifestEntry]
    digests: frozenset[bytes]
    target: Target


class Offers:
    """Of one material. Belongs to one event loop."""

    def __init__(self, material: OfferMaterial) -> None:
        self.material = material
        manifest = material.manifest
        self._labels = sorted({key for entry in manifest.entries for key in entry.sites.match_labels})
        self._selections: dict[tuple[str | None, ...], Selection] = {}
        self._common = tunnel.ConfigOffer(
            revision=material.revision,
            metadata=material.metadata,
            manifest=material.manifest_bytes,
            traceparent=material.traceparent,
        ).SerializeToString()
        self._encoded: dict[tuple[frozenset[bytes], frozenset[bytes]], EncodedOffer] = {}
        self._kept_bytes = 0

    def selection(self, labels: Mapping[str, str]) -> Selection:
        key = tuple(labels.get(label) for label in self._labels)
        if key not in self._selections:
            self._selections[key] = self._select(labels)
        return self._selections[key]

    def encoded(self, selection: Selection, known: frozenset[bytes]) -> EncodedOffer:
        """With the small bodies that are not known; the node fetches the others."""
        key = selection.digests, selection.digests - known
        if key not in self._encoded:
            self._keep(key, self._encode(selection, key[1]))
        return self._encoded[key]

    def _select(self, labels: Mapping[str, str]) -> Selection:
        entries = [entry for entry in self.material.manifest.entries if selects(entry, labels)]
        kinds = frozenset(int(entry.kind) for entry in entries)
        target = Target(self.material.revision, self.material.manifest_sha256, kinds)
        return Selection(entries, frozenset(entry.sha256 for entry in entries), target)

    def _encode(self, selection: Selection, missing: frozenset[bytes]) -> EncodedOffer:
        bodies, room = tunnel.ConfigOffer(), INLINE_OFFER_BYTES
        for entry in selection.entries:
            body = self.material.blobs.get(entry.sha256)  # None in a damaged database: the node asks: BLOB_MISSING
            if body is not None and entry.sha256 in missing and len(body) <= min(INLINE_BLOB_BYTES, room):
                bodies.blobs.add(sha256=entry.sha256, data=body)
                room -= len(body)
        data = self._common + bodies.SerializeToString()
        return EncodedOffer(self.material.revision, data, selection.digests)

    def _keep(self, key: tuple[frozenset[bytes], frozenset[bytes]], offer: EncodedOffer) -> None:
        """The newest ones, within `KEPT_BYTES`, and this one in any case."""
        self._encoded[key] = offer
        self._kept_bytes += len(offer.data)
        while self._kept_bytes > KEPT_BYTES and len(self._encoded) > 1:
            self._kept_bytes -= len(self._encoded.pop(next(iter(self._encoded))).data)


def selects(entry: ManifestEntry, labels: Mapping[str, str]) -> bool:
    """Whether a resource is for a node with these labels."""
    return all(labels.get(key) == value for key, value in entry.sites.match_labels.items())
