"""Blobs in pieces: resumed, checked, and never mixed from two."""

import hashlib
from typing import Any, cast

import pytest

from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core.errors import IntegrityError, InvalidError, UnavailableError
from tunnel.client import MAX_BLOB_BYTES, MOST_PARTIAL_BLOBS, BlobFetcher, _append
from tunnel.client_calls import closed

BODY = bytes(range(256)) * 10
DIGEST = hashlib.sha256(BODY).digest()


class Line:
    """A link that breaks after so many bytes, each time."""

    def __init__(self, body: bytes, *breaks_at: int) -> None:
        self.body = body
        self.breaks_at = list(breaks_at)
        self.offsets: list[int] = []

    async def get_blob(self, sha256: bytes, data: bytearray) -> None:
        self.offsets.append(len(data))
        end = self.breaks_at.pop(0) if self.breaks_at else None
        data += self.body[len(data) : end]
        if end is not None:
            raise closed("cp:1", "cut")


def fetcher(line: Line) -> BlobFetcher:
    blobs = BlobFetcher()
    blobs.link = cast(Any, line)
    return blobs


async def test_each_try_goes_on_where_the_last_one_stopped() -> None:
    """And over another link, which is another connection."""
    first, second = Line(BODY, 100), Line(BODY, 1000)
    blobs = fetcher(first)
    with pytest.raises(UnavailableError):
        await blobs.get(DIGEST)
    blobs.link = cast(Any, second)
    with pytest.raises(UnavailableError):
        await blobs.get(DIGEST)

    assert await blobs.get(DIGEST) == BODY
    assert (first.offsets, second.offsets) == ([0], [100, 1000])


async def test_two_halves_that_do_not_fit_are_fetched_anew_once() -> None:
    """The first half may have come from a control plane that is another by now."""
    blobs = fetcher(Line(b"x" * len(BODY), 100))
    with pytest.raises(UnavailableError):
        await blobs.get(DIGEST)
    line = Line(BODY)
    blobs.link = cast(Any, line)

    assert await blobs.get(DIGEST) == BODY
    assert line.offsets == [100, 0]


async def test_a_blob_that_is_another_is_refused_and_not_kept() -> None:
    """Digest by digest: whoever holds the control plane chooses bytes, not what they are taken for."""
    line = Line(BODY[::-1])
    blobs = fetcher(line)

    for _ in range(2):
        with pytest.raises(IntegrityError):
            await blobs.get(DIGEST)
    assert line.offsets == [0, 0]


async def test_what_is_kept_of_blobs_that_were_cut_off_is_bounded() -> None:
    """Nobody may fill the node's memory with beginnings."""
    for_each = MOST_PARTIAL_BLOBS + 1
    line = Line(BODY, *[10] * for_each)
    blobs = fetcher(line)
    for number in range(for_each):
        with pytest.raises(UnavailableError):
            await blobs.get(bytes([number]) * 32)
    line.offsets.clear()

    for number in range(for_each):
        with pytest.raises(IntegrityError):
            await blobs.get(bytes([number]) * 32)

    assert line.offsets[0] == 0, "the oldest beginning is forgotten"
    assert line.offsets[1] == 10


async def test_without_a_session_nothing_is_asked() -> None:
    """The caller tries again."""
    with pytest.raises(UnavailableError):
        await BlobFetcher().get(DIGEST)


@pytest.mark.parametrize(
    ("have", "chunk"),
    [
        (0, tunnel.BlobChunk(offset_bytes=1, data=b"x")),
        (5, tunnel.BlobChunk(offset_bytes=0, data=b"x")),
        (0, tunnel.BlobChunk(total_bytes=MAX_BLOB_BYTES + 1, data=b"x")),
        (MAX_BLOB_BYTES, tunnel.BlobChunk(offset_bytes=MAX_BLOB_BYTES, data=b"x")),
    ],
)
def test_chunks_out_of_place_or_too_many_are_refused(have: int, chunk: tunnel.BlobChunk) -> None:
    """Memory is bounded whatever the total claims to be."""
    with pytest.raises((IntegrityError, InvalidError)):
        _append(bytearray(have), chunk)
