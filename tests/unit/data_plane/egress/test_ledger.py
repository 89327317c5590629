"""The ledger against crashes, damage and full disks; the independent verifier is the oracle throughout."""

import asyncio
import dataclasses
import json
import os
import random
import resource
import signal
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_plane.egress import ledger_verifier, records
from data_plane.egress.head_file import read_head
from data_plane.egress.interfaces import Leaf
from data_plane.egress.ledger import Entry, Ledger, open_ledger
from data_plane.egress.reader import read_leaves, summarise
from faos_core.errors import ConflictError, IntegrityError, StopError
from tests.patience import PATIENCE_S

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ROOT = Path(__file__).resolve().parents[4]
SMALL = 700  # bytes of a segment: about two records
RECORDS = 9


def entry(number: int, *, body: bytes | None = None, keep_body: bool = True) -> Entry:
    return Entry(
        at=NOW,
        door="tunnel",
        destination="cp.example:443",
        method="/faos.tunnel.v1.Tunnel/Session",
        message="faos.tunnel.v1.NodeFrame",
        fields_by_class={"IDENTIFIER": 1, "OPERATIONAL": 2},
        body=f"message {number}".encode() if body is None else body,
        keep_body=keep_body,
    )


async def fill(folder: Path, count: int = RECORDS, *, segment_bytes: int = SMALL) -> None:
    async with open_ledger(folder, segment_bytes=segment_bytes) as ledger:
        for number in range(count):
            await ledger.append(entry(number))


@given(
    st.text(),
    st.text(),
    st.dictionaries(st.text(), st.integers(0, 2**40)),
    st.integers(0, 2**63),
    st.binary(min_size=32, max_size=32),
    st.datetimes(timezones=st.just(UTC)),
)
def test_header_is_canonical_json(
    destination: str, method: str, counts: dict[str, int], number: int, digest: bytes, at: datetime
) -> None:
    """The tree is over these bytes, and every verifier there will ever be must make the same of the same leaf."""
    leaf = Leaf(number, at, "tunnel", destination, method, "m", number, counts, digest, None)
    fields = {
        "at": at.isoformat(timespec="microseconds"),
        "body_sha256": digest.hex(),
        "destination": destination,
        "door": "tunnel",
        "fields_by_class": counts,
        "index": number,
        "message": "m",
        "method": method,
        "size_bytes": number,
    }

    assert records.header_of(leaf) == json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


async def reopen(folder: Path) -> int:
    async with open_ledger(folder, segment_bytes=SMALL) as ledger:
        return ledger.head().size


def last_record(folder: Path) -> records.Record:
    return list(records.walk(folder, read_head(folder).size))[-1]


def set_back_head(folder: Path, size: int) -> None:
    """As a crash leaves it: records written that the head does not count yet."""
    other = folder.parent / "other"
    asyncio.run(fill(other, size))
    (folder / "head").write_bytes((other / "head").read_bytes())


async def test_append_returns_indexes_in_order_and_head_verifies(tmp_path: Path) -> None:
    """The head that goes to the control plane must be the one that an auditor computes."""
    async with open_ledger(tmp_path / "ledger", segment_bytes=SMALL) as ledger:
        indexes = await asyncio.gather(*(ledger.append(entry(number)) for number in range(50)))
        head = ledger.head()

        report = ledger_verifier.verify(tmp_path / "ledger")

    assert indexes == list(range(50))
    assert (report.ok, report.size, report.root_sha256) == (True, 50, head.root_sha256.hex())


async def test_leaves_read_back_what_was_recorded_while_the_node_runs(tmp_path: Path) -> None:
    """`faos ledger show` must work without stopping the node."""
    async with open_ledger(tmp_path / "ledger", segment_bytes=SMALL) as ledger:
        for number in range(RECORDS):
            await ledger.append(entry(number))

        leaves = list(read_leaves(tmp_path / "ledger"))

    assert [leaf.body for leaf in leaves] == [f"message {number}".encode() for number in range(RECORDS)]
    assert [leaf.index for leaf in leaves] == list(range(RECORDS))
    assert leaves[0].at == NOW
    assert leaves[0].fields_by_class == {"IDENTIFIER": 1, "OPERATIONAL": 2}
    assert len(records.segments(tmp_path / "ledger")) > 1


async def test_readers_never_see_damage_in_a_ledger_that_is_being_written(tmp_path: Path) -> None:
    """An auditor's check beside a busy node must not cry wolf over a record that is half written."""
    folder, body = tmp_path / "ledger", bytes(3000)

    rounds = 0

    async def keep_writing(ledger: Ledger, reading: "asyncio.Future[None]") -> None:
        """200 records for each reading: more would have the reader of a busy machine read ever longer ledgers."""
        while not reading.done():
            if ledger.head().size < 200 * rounds:
                await ledger.append(entry(0, body=body))
            else:
                await asyncio.sleep(0.001)

    def keep_reading(ledger: Ledger) -> None:
        nonlocal rounds
        for rounds in range(1, 21):  # the writers look at it
            while ledger.head().size <= 200 * (rounds - 1):
                time.sleep(0.001)
            acknowledged = ledger.head().size
            report = ledger_verifier.verify(folder)
            assert (report.problem, report.size >= acknowledged) == ("", True)
            assert sum(1 for _ in read_leaves(folder)) >= acknowledged

    async with open_ledger(folder, segment_bytes=50_000) as ledger:
        reading = asyncio.ensure_future(asyncio.to_thread(keep_reading, ledger))
        await asyncio.gather(reading, *(keep_writing(ledger, reading) for _ in range(20)))


@pytest.mark.parametrize("list_segments", [records.segments, ledger_verifier.segments])
def test_listing_that_misses_a_segment_made_meanwhile_is_completed(
    list_segments: Callable[[Path], list[Path]], tmp_path: Path
) -> None:
    """Systems list a folder in any order, and not in one instant: seen in a busy ledger as a record gone missing."""

    class BusyFolder:
        """The first listing passed the place of segment 2 before it was made; segment 4 is made after it."""

        def __init__(self) -> None:
            self._listings = [["3", "1"], ["4", "3", "1", "2"]]

        def glob(self, _pattern: str) -> list[Path]:
            return [tmp_path / f"{name}.seg" for name in self._listings.pop(0)]

    found = list_segments(cast(Path, BusyFolder()))

    assert [path.name for path in found] == ["1.seg", "2.seg", "3.seg"]


async def test_reopen_continues_the_same_tree(tmp_path: Path) -> None:
    """A restart must not begin a new history."""
    await fill(tmp_path / "two", 4)
    await fill(tmp_path / "two", 5)
    async with open_ledger(tmp_path / "one") as ledger:
        for number in (*range(4), *range(5)):
            await ledger.append(entry(number))

    assert ledger_verifier.verify(tmp_path / "two").root_sha256 == ledger.head().root_sha256.hex()
    assert await reopen(tmp_path / "two") == 9


async def test_customer_body_is_recorded_as_size_and_digest_only(tmp_path: Path) -> None:
    """The ledger itself must not become a place where customer data lies in the clear."""
    async with open_ledger(tmp_path / "ledger") as ledger:
        await ledger.append(entry(0, body=b"the patient's name", keep_body=False))

    (leaf,) = read_leaves(tmp_path / "ledger")
    report = ledger_verifier.verify(tmp_path / "ledger")
    assert (leaf.body, leaf.size_bytes) == (None, 18)
    assert (report.ok, report.bodies_dropped) == (True, 1)
    assert b"patient" not in b"".join(path.read_bytes() for path in (tmp_path / "ledger").iterdir())


async def test_empty_body_is_a_body(tmp_path: Path) -> None:
    """An empty message leaves too, and is not one whose body was dropped."""
    async with open_ledger(tmp_path / "ledger") as ledger:
        await ledger.append(entry(0, body=b""))

    (leaf,) = read_leaves(tmp_path / "ledger")
    assert leaf.body == b""
    assert ledger_verifier.verify(tmp_path / "ledger").bodies_dropped == 0


async def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    """What left is itself sensitive; other users of the machine must not read it."""
    await fill(tmp_path / "ledger")

    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "ledger").iterdir()}
    assert modes == {0o600}
    assert stat.S_IMODE((tmp_path / "ledger").stat().st_mode) == 0o700


async def test_second_writer_is_refused(tmp_path: Path) -> None:
    """Two writers would fork the record of what left."""
    async with open_ledger(tmp_path / "ledger") as ledger:
        with pytest.raises(ConflictError) as caught:
            async with open_ledger(tmp_path / "ledger"):
                pass
        assert await ledger.append(entry(0)) == 0

    assert caught.value.code.code == "ledger.locked"
    assert await reopen(tmp_path / "ledger") == 1


async def test_append_after_close_is_refused(tmp_path: Path) -> None:
    """A node that is stopping must not send what nobody records any more."""
    async with open_ledger(tmp_path / "ledger") as ledger:
        pass

    with pytest.raises(StopError) as caught:
        await ledger.append(entry(0))
    assert caught.value.code.code == "ledger.closed"


async def test_summary_counts_by_class_and_door(tmp_path: Path) -> None:
    """`make up` closes with these figures; the verifier must come to the same."""
    await fill(tmp_path / "ledger", 5)

    summary = summarise(tmp_path / "ledger", first_index=2)
    report = ledger_verifier.verify(tmp_path / "ledger")

    assert (summary.total.messages, summary.total.size_bytes) == (3, 27)
    assert summary.by_class == summary.by_class | {"IDENTIFIER": summary.by_door["tunnel"]}
    assert (report.by_door["tunnel"].messages, report.by_class["IDENTIFIER"].size_bytes) == (5, 45)


def test_summary_of_no_ledger_is_empty(tmp_path: Path) -> None:
    """A site that never sent anything has sent nothing; that is no error."""
    assert summarise(tmp_path / "ledger").total.messages == 0


# Durability


class SlowDisk:
    """The real fdatasync, held back until it is let go; counts what was asked of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked, self.free, self.calls = threading.Event(), threading.Event(), 0
        self._fdatasync = os.fdatasync
        monkeypatch.setattr(os, "fdatasync", self)

    def __call__(self, descriptor: int) -> None:
        self.calls += 1
        self.asked.set()
        assert self.free.wait(PATIENCE_S)
        self._fdatasync(descriptor)


async def test_append_returns_only_after_the_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sent before it is durable is sent unrecorded when the power fails; nor may the head run ahead."""
    folder = tmp_path / "ledger"
    async with open_ledger(folder) as ledger:
        disk = SlowDisk(monkeypatch)
        appending = asyncio.ensure_future(ledger.append(entry(0)))
        await asyncio.to_thread(disk.asked.wait, 30)
        before = (appending.done(), ledger.head().size, read_head(folder).size)
        disk.free.set()

        assert await appending == 0
        assert before == (False, 0, 0)
        assert (ledger.head().size, read_head(folder).size) == (1, 1)


async def test_appends_that_wait_together_share_an_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Group commit is what makes an fsync before each send affordable."""
    async with open_ledger(tmp_path / "ledger") as ledger:
        disk = SlowDisk(monkeypatch)
        first = asyncio.ensure_future(ledger.append(entry(0)))
        await asyncio.to_thread(disk.asked.wait, 30)
        others = [asyncio.ensure_future(ledger.append(entry(number))) for number in range(1, 100)]
        await asyncio.sleep(0)
        disk.free.set()
        indexes = await asyncio.gather(first, *others)

    assert indexes == list(range(100))
    assert disk.calls <= 4  # two groups, and the head's own at most twice


async def test_cancelled_append_does_not_disturb_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller that gives up leaves a record of what was never sent: a superset, and no harm to the group."""
    async with open_ledger(tmp_path / "ledger") as ledger:
        disk = SlowDisk(monkeypatch)
        given_up = asyncio.ensure_future(ledger.append(entry(0)))
        await asyncio.to_thread(disk.asked.wait, 30)
        given_up.cancel()
        kept = asyncio.ensure_future(ledger.append(entry(1)))
        disk.free.set()

        assert await kept == 1
    assert given_up.cancelled()
    assert ledger_verifier.verify(tmp_path / "ledger").size == 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_defect_in_the_writer_leaves_nobody_waiting(tmp_path: Path) -> None:
    """A caller that waits for ever would be a node that is silent without saying why."""
    unwritable = dataclasses.replace(entry(0), fields_by_class={"OPERATIONAL": object()})  # type: ignore[dict-item]  # meant

    async with open_ledger(tmp_path / "ledger") as ledger, asyncio.timeout(PATIENCE_S):
        with pytest.raises(StopError):
            await ledger.append(unwritable)
        with pytest.raises(StopError):
            await ledger.append(entry(1))


# Crashes


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_unfinished_tail_is_cut_off_with_a_warning(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """A crash in the middle of a write leaves any prefix of it; what was acknowledged before must still open."""
    folder = tmp_path_factory.mktemp("torn") / "ledger"
    asyncio.run(fill(folder))
    last = last_record(folder)
    set_back_head(folder, RECORDS - 1)
    start = last.end - len(records.frame(last.header, last.body))
    cut = data.draw(st.integers(start + 1, last.end - 1))
    os.truncate(last.segment, cut)
    caplog.clear()

    assert len(list(read_leaves(folder))) == RECORDS - 1
    assert ledger_verifier.verify(folder).notes
    assert asyncio.run(reopen(folder)) == RECORDS - 1
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    report = ledger_verifier.verify(folder)
    assert (report.ok, report.notes) == (True, [])


@pytest.mark.parametrize("left", [b"", b"FAOSLDG", b"\0" * 20])
async def test_unfinished_segment_start_is_removed(tmp_path: Path, left: bytes) -> None:
    """A crash while a segment begins must not keep the node from starting."""
    await fill(tmp_path / "ledger")
    unfinished = tmp_path / "ledger" / records.segment_name(RECORDS)
    unfinished.write_bytes(left)
    assert ledger_verifier.verify(tmp_path / "ledger").ok

    assert await reopen(tmp_path / "ledger") == RECORDS

    assert not unfinished.exists()


async def test_zeros_after_power_loss_are_cut_off(tmp_path: Path) -> None:
    """Some filesystems leave zeros where an unsynced write was."""
    await fill(tmp_path / "ledger")
    with records.segments(tmp_path / "ledger")[-1].open("ab") as segment:
        segment.write(b"\0" * 5000)

    assert ledger_verifier.verify(tmp_path / "ledger").ok
    assert await reopen(tmp_path / "ledger") == RECORDS


def test_whole_records_past_the_head_are_kept(tmp_path: Path) -> None:
    """After a power loss the head may be a second behind; those records were sent."""
    folder = tmp_path / "ledger"
    asyncio.run(fill(folder))
    set_back_head(folder, RECORDS - 3)

    assert asyncio.run(reopen(folder)) == RECORDS
    assert read_head(folder).size == RECORDS


CHILD = """
import asyncio, sys
from datetime import UTC, datetime
from pathlib import Path
from typing import cast
from data_plane.egress.ledger import Entry, open_ledger

async def appends(ledger, worker):
    while True:
        body = f"worker {worker}".encode() * 20
        entry = Entry(datetime.now(UTC), "tunnel", "cp:1", "/m", "M", {"OPERATIONAL": 1}, body)
        print(await ledger.append(entry), flush=True)

async def main():
    async with open_ledger(Path(sys.argv[1]), segment_bytes=20000) as ledger:
        await asyncio.gather(*(appends(ledger, worker) for worker in range(8)))

asyncio.run(main())
"""


def test_kill_9_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """Promise 5: what was acknowledged is there, whenever the process dies; ten kills over one ledger."""
    folder, chance, acknowledged = tmp_path / "ledger", random.Random(3), -1
    for _ in range(10):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(folder)],
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "proto")])},
        )
        assert child.stdout is not None
        for _ in range(chance.randint(1, 400)):
            acknowledged = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read().split(b"\n")[:-1]
        acknowledged = max([acknowledged, *map(int, rest)])
        child.stdout.close()
        assert child.wait() == -signal.SIGKILL

        report = ledger_verifier.verify(folder)

        assert report.problem == ""
        assert report.size > acknowledged
    assert asyncio.run(reopen(folder)) > acknowledged


# Disk full


@contextmanager
def no_file_larger_than(size_bytes: int) -> Iterator[None]:
    """The kernel refuses writes beyond; the same path as a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_full_disk_refuses_then_recovers(tmp_path: Path) -> None:
    """Nothing may be sent that could not be recorded, and room made later must be enough to go on."""
    async with open_ledger(tmp_path / "ledger") as ledger:
        await ledger.append(entry(0))
        with no_file_larger_than(1 << 20), pytest.raises(StopError) as caught:
            await ledger.append(entry(1, body=bytes(2 << 20)))
        assert ledger.head().size == 1
        assert ledger_verifier.verify(tmp_path / "ledger").notes == []

        assert await ledger.append(entry(2)) == 1

    assert caught.value.code.code == "ledger.unwritable"
    assert ledger_verifier.verify(tmp_path / "ledger").ok


async def test_failed_fsync_stops_the_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failed fsync the kernel may have dropped the pages; trying again would acknowledge what is not there."""
    async with open_ledger(tmp_path / "ledger") as ledger:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", failing_fsync)
            with pytest.raises(StopError):
                await ledger.append(entry(0))

        with pytest.raises(StopError):
            await ledger.append(entry(1))
        assert ledger.head().size == 0


def failing_fsync(descriptor: int) -> None:
    raise OSError(5, "Input/output error")


async def test_folder_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    """The person who starts the node must learn what to repair."""
    (tmp_path / "ledger").write_text("a file")

    with pytest.raises(StopError) as caught:
        await asyncio.to_thread(Ledger(tmp_path / "ledger").open)
    assert "ledger" in caught.value.what


# Damage: each must be found by the ledger itself and by the independent verifier


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x40
    path.write_bytes(bytes(data))


def second(folder: Path) -> Path:
    return records.segments(folder)[1]


def rewrite(folder: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    """Put changed records, validly framed, in the place of those of the second segment."""
    path = second(folder)
    index = int(path.stem)
    frames = [records.frame(record.header, record.body) for record in records.read_segment(path, index)]
    path.write_bytes(records.segment_header(index) + b"".join(change(frames)))


def other_body(folder: Path) -> None:
    path = second(folder)
    first, *_ = records.read_segment(path, int(path.stem))
    forged = [records.frame(first.header, b"another" + first.body[7:])]
    rewrite(folder, lambda frames: forged + frames[1:])


def other_header(folder: Path) -> None:
    path = second(folder)
    first = next(records.read_segment(path, int(path.stem)))
    forged = records.frame(first.header.replace(b"cp.example", b"cp.exampel"), first.body)
    rewrite(folder, lambda frames: [forged, *frames[1:]])


def loose_header(folder: Path) -> None:
    path = second(folder)
    first = next(records.read_segment(path, int(path.stem)))
    spaced = json.dumps(json.loads(first.header), sort_keys=True).encode()
    rewrite(folder, lambda frames: [records.frame(spaced, first.body), *frames[1:]])


def no_header(folder: Path) -> None:
    rewrite(folder, lambda frames: [records.frame(b"[]", b""), *frames[1:]])


def truncate_inside(folder: Path) -> None:
    last = last_record(folder)
    os.truncate(last.segment, last.end - 3)


def truncate_at_record(folder: Path) -> None:
    last = last_record(folder)
    os.truncate(last.segment, last.end - len(records.frame(last.header, last.body)))


def unlink_segments(folder: Path) -> None:
    for path in records.segments(folder):
        path.unlink()


def huge_length(folder: Path) -> None:
    data = bytearray(second(folder).read_bytes())
    struct.pack_into(">I", data, records.SEGMENT_HEADER_BYTES, 1 << 30)
    second(folder).write_bytes(bytes(data))


FIRST = records.SEGMENT_HEADER_BYTES
DAMAGE: dict[str, Callable[[Path], object]] = {
    "flip in segment magic": lambda folder: flip(second(folder), 0),
    "flip in segment index": lambda folder: flip(second(folder), 15),
    "flip in segment crc": lambda folder: flip(second(folder), 17),
    "flip in length of header": lambda folder: flip(second(folder), FIRST + 3),
    "flip in length of body": lambda folder: flip(second(folder), FIRST + 7),
    "flip in crc": lambda folder: flip(second(folder), FIRST + 9),
    "flip in header": lambda folder: flip(second(folder), FIRST + 40),
    "flip in body": lambda folder: flip(second(folder), second(folder).stat().st_size - 2),
    "flip in last body": lambda folder: flip(records.segments(folder)[-1], last_record(folder).end - 2),
    "huge length": huge_length,
    "other body, framed": other_body,
    "other header, framed": other_header,
    "header not canonical": loose_header,
    "header not an object": no_header,
    "record dropped": lambda folder: rewrite(folder, lambda frames: frames[1:]),
    "record repeated": lambda folder: rewrite(folder, lambda frames: [frames[0], *frames]),
    "records reordered": lambda folder: rewrite(folder, lambda frames: frames[::-1]),
    "tail cut inside a record": truncate_inside,
    "tail cut between records": truncate_at_record,
    "first segment gone": lambda folder: records.segments(folder)[0].unlink(),
    "middle segment gone": lambda folder: second(folder).unlink(),
    "last segment gone": lambda folder: records.segments(folder)[-1].unlink(),
    "all segments gone": unlink_segments,
    "head gone": lambda folder: (folder / "head").unlink(),
    "head flipped": lambda folder: flip(folder / "head", 12),
    "head cut": lambda folder: os.truncate(folder / "head", 20),
    "segment renamed": lambda folder: second(folder).rename(folder / records.segment_name(99)),
}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_damage_is_found_and_left_as_it_is(tmp_path: Path, damage: str) -> None:
    """Promise 2 rests on this: no part of the record changes unseen, and nothing is repaired silently."""
    folder = tmp_path / "ledger"
    await fill(folder)
    assert len(records.segments(folder)) > 2
    DAMAGE[damage](folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    report = ledger_verifier.verify(folder)
    with pytest.raises(IntegrityError) as caught:
        await reopen(folder)

    assert not report.ok
    assert report.problem.endswith(".")
    assert {"file", "index"} <= caught.value.fields.keys()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@settings(max_examples=60, deadline=None)
@given(place=st.integers(min_value=0), bit=st.integers(0, 7))
def test_any_flipped_bit_is_found(
    sound_ledger: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory, place: int, bit: int
) -> None:
    """The list above is what we thought of; this is every bit of every file."""
    folder = tmp_path_factory.mktemp("flipped")
    every = [(name, offset) for name, data in sorted(sound_ledger.items()) for offset in range(len(data))]
    flipped, offset = every[place % len(every)]
    for name, data in sound_ledger.items():
        (folder / name).write_bytes(data)
    changed = bytearray(sound_ledger[flipped])
    changed[offset] ^= 1 << bit
    (folder / flipped).write_bytes(bytes(changed))

    assert not ledger_verifier.verify(folder).ok
    with pytest.raises(IntegrityError):
        asyncio.run(reopen(folder))


@pytest.fixture(scope="module")
def sound_ledger(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("sound") / "ledger"
    asyncio.run(fill(folder))
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "lock"}


def test_history_rewritten_consistently_is_found_by_the_witness(tmp_path: Path) -> None:
    """Whoever holds the disk can make a new, sound ledger; only a head seen elsewhere shows it."""
    asyncio.run(fill(tmp_path / "true", 3))
    seen = (3, ledger_verifier.verify(tmp_path / "true").root_sha256)
    asyncio.run(fill(tmp_path / "true", 2))
    asyncio.run(fill(tmp_path / "false", 2))
    asyncio.run(fill(tmp_path / "false", 3))

    assert ledger_verifier.verify(tmp_path / "true", witness=seen).ok
    assert ledger_verifier.verify(tmp_path / "false").ok
    assert "rewritten" in ledger_verifier.verify(tmp_path / "false", witness=seen).problem
    assert "missing" in ledger_verifier.verify(tmp_path / "true", witness=(6, seen[1])).problem
