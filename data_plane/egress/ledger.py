"""The site's own record of every message that left: append, fsync, then send.

Appends that wait together are written and fsynced together by one thread (group commit): one `write` and one
`fdatasync` of the segment, one small write of the head (see head_file for why it needs no fsync of its own).
Opening walks the whole ledger: a tail that a crash left unfinished was never acknowledged, so never sent, and is cut
off with a warning; anything else that is wrong raises IntegrityError and is left as it is.

What no local check can see is the removal of the whole folder: the heads that the control plane keeps can.
"""

import asyncio
import fcntl
import logging
import os
import queue
import threading
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from types import TracebackType

from data_plane.egress.errors import LEDGER_CLOSED, LEDGER_LOCKED, LEDGER_UNWRITABLE
from data_plane.egress.head_file import HEAD_NAME, create_head, pack_head, read_head
from data_plane.egress.interfaces import Leaf, LedgerHead
from data_plane.egress.ledger_meter import LedgerMeter
from data_plane.egress.records import (
    SEGMENT_HEADER_BYTES,
    TornTailError,
    damaged,
    frame,
    header_of,
    leaf_of,
    segment_header,
    segment_name,
    segments,
    walk,
)
from faos_core import names
from faos_core.disk import sync_folder
from faos_core.errors import ConflictError, SetupError, StopError
from faos_core.merkle import EMPTY_ROOT, Frontier, leaf_hash

log = logging.getLogger(__name__)

SEGMENT_BYTES = 64 << 20
GROUP_RECORDS = 1024  # most records of one group commit; bounds its memory
HEAD_SYNC_S = 1.0


@dataclass(frozen=True, slots=True)
class Entry:
    """A message about to leave."""

    at: datetime
    door: str
    destination: str
    method: str
    message: str
    fields_by_class: dict[str, int]
    body: bytes
    keep_body: bool = True  # False: only size and digest are kept (CUSTOMER payloads)


Pending = tuple[Entry, "asyncio.Future[int]", float]  # since when it waits: seconds of time.perf_counter


class Ledger:
    """The writer. Make one with `open_ledger`; `append` from any number of tasks of one event loop, recorded in the
    order of the calls.

    After a failed fsync nothing is appended any more until the ledger is opened again: what the kernel kept of that
    write is unknown. After a full disk the next append tries again.
    """

    def __init__(self, folder: Path, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        """No I/O; see `open`."""
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._queue: queue.SimpleQueue[Pending | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="egress-ledger", daemon=True)
        self._entrance = threading.Lock()  # nothing is queued behind the mark that ends the thread
        self._closed = False
        self._fatal = Fatal()
        self._frontier = Frontier()
        self._head = LedgerHead(0, EMPTY_ROOT)
        self._head_synced_s = time.monotonic()
        self._head_dirty = False
        self._segment_size = 0
        self._lock = self._segment = self._head_file = -1
        self.meter = LedgerMeter()

    def head(self) -> LedgerHead:
        """Head over everything that is durable."""
        return self._head

    async def append(self, entry: Entry) -> int:
        """Record the message; return its index once that is durable.

        A cancelled caller's entry may still be recorded: the ledger is a superset of what was sent.
        The queue is as long as there are callers that wait. Raises StopError: nothing may be sent.
        """
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        with self._entrance:
            if self._closed:
                raise SetupError(LEDGER_CLOSED, folder=self._folder)
            self._queue.put((entry, done, time.perf_counter()))
        return await done

    def open(self) -> None:
        """Lock the folder, check everything in it, cut off an unfinished tail, start the writer. Blocks.

        Raises: ConflictError (another writer), IntegrityError (damage), StopError (cannot be written).
        """
        with ExitStack() as undo:
            undo.callback(self._close_files)
            try:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._folder.chmod(0o700)
                self._lock = lock_folder(self._folder)
                self._recover()
            except OSError as error:
                raise self._unwritable(reason_of(error)) from error
            undo.pop_all()
        self._thread.start()

    def close(self) -> None:
        """Write what is queued, make the head durable, unlock. Blocks; idempotent; only after `open`."""
        with self._entrance:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()
        self._close_files()

    def _close_files(self) -> None:
        for descriptor in (self._segment, self._head_file, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._lock = self._segment = self._head_file = -1

    def _unwritable(self, reason: str) -> StopError:
        return SetupError(LEDGER_UNWRITABLE, folder=self._folder, reason=reason)

    # Opening

    def _recover(self) -> None:
        if not (self._folder / HEAD_NAME).exists():
            self._begin()
        self._check(read_head(self._folder))
        self._head = LedgerHead(self._frontier.size, self._frontier.root())
        self._head_file = os.open(self._folder / HEAD_NAME, os.O_WRONLY)
        self._open_last_segment()
        os.fdatasync(self._segment)
        self._write_head()
        os.fdatasync(self._head_file)

    def _begin(self) -> None:
        if found := segments(self._folder):
            raise damaged(found[0], 0, "the head file beside it is gone")
        create_head(self._folder)
        sync_folder(self._folder)

    def _check(self, durable: LedgerHead) -> None:
        """Grow the tree over every record. Raises IntegrityError."""
        try:
            for record in walk(self._folder, durable.size):
                leaf = leaf_of(record)
                self.meter.found(leaf.fields_by_class, leaf.size_bytes)
                self._frontier.append(leaf_hash(record.header))
                if self._frontier.size == durable.size:
                    self._check_root(durable)
        except TornTailError as torn:
            cut_off(torn)

    def _check_root(self, durable: LedgerHead) -> None:
        if self._frontier.root() != durable.root_sha256:
            problem = "the records up to here are not those that the head was made of"
            raise damaged(self._folder / HEAD_NAME, durable.size - 1, problem)

    def _open_last_segment(self) -> None:
        """Go on in it; it may hold nothing but its header."""
        if found := segments(self._folder):
            self._segment = os.open(found[-1], os.O_WRONLY | os.O_APPEND)
            self._segment_size = found[-1].stat().st_size
        else:
            self._segment = self._create_segment()

    # The writer thread

    def _run(self) -> None:
        batch: list[Pending] = []
        try:
            while batch := self._next_batch():
                self._commit(batch)
                self._sync_head(at_latest=True)
        finally:
            self._finish(batch)

    def _next_batch(self) -> list[Pending]:
        """What waits, in order; empty when the ledger is being closed. Idle time makes the head durable."""
        try:
            item = self._queue.get(timeout=HEAD_SYNC_S) if self._head_dirty else self._queue.get()
        except queue.Empty:
            self._sync_head()
            item = self._queue.get()
        batch: list[Pending] = []
        while item is not None:
            batch.append(item)
            if len(batch) == GROUP_RECORDS or self._queue.empty():
                return batch
            item = self._queue.get()
        if batch:
            self._queue.put(None)
        return batch

    def _commit(self, batch: list[Pending]) -> None:
        """Write, fsync, publish the head, then tell the callers; or tell all of them that nothing may be sent."""
        if self._fatal.reason:
            settle(batch, self._unwritable(self._fatal.reason))
            return
        frontier = self._frontier.copy()
        began_s = time.perf_counter()
        data = b"".join(self._encode(entry, frontier) for entry, *_ in batch)
        try:
            self._make_room()
            self._write(data)
            self._frontier, self._head = frontier, LedgerHead(frontier.size, frontier.root())
            self._write_head()
        except OSError as error:
            log.error("ledger.unwritable", extra={names.PATH: str(self._folder), names.ERROR: reason_of(error)})
            settle(batch, self._unwritable(reason_of(error)))
        else:
            settle(batch, self._head.size - len(batch))
            self._measure(batch, began_s)

    def _measure(self, batch: list[Pending], began_s: float) -> None:
        now_s = time.perf_counter()
        for entry, *_ in batch:
            self.meter.found(entry.fields_by_class, len(entry.body))
            self.meter.sent(entry.door, len(entry.body))
        self.meter.committed([now_s - since_s for _, _, since_s in batch], now_s - began_s)

    def _encode(self, entry: Entry, frontier: Frontier) -> bytes:
        leaf = Leaf(
            index=frontier.size,
            at=entry.at,
            door=entry.door,
            destination=entry.destination,
            method=entry.method,
            message=entry.message,
            size_bytes=len(entry.body),
            fields_by_class=entry.fields_by_class,
            body_sha256=sha256(entry.body).digest(),
            body=None,
        )
        header = header_of(leaf)
        frontier.append(leaf_hash(header))
        return frame(header, entry.body if entry.keep_body else b"")

    def _make_room(self) -> None:
        """Begin a new segment when this one is full."""
        if self._segment_size >= self._segment_bytes:
            full, self._segment = self._segment, self._create_segment()
            os.close(full)

    def _create_segment(self) -> int:
        """Its header and its name are durable before a record goes in. A failed attempt leaves nothing behind."""
        path = self._folder / segment_name(self._head.size)
        segment = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            write_all(segment, segment_header(self._head.size))
            os.fsync(segment)
            sync_folder(self._folder)
        except OSError:
            os.close(segment)
            path.unlink()
            raise
        self._segment_size = SEGMENT_HEADER_BYTES
        return segment

    def _write(self, data: bytes) -> None:
        """Append durably; what a full disk took of it is taken back."""
        try:
            write_all(self._segment, data)
        except OSError:
            with self._fatal:
                os.ftruncate(self._segment, self._segment_size)
            raise
        with self._fatal:
            os.fdatasync(self._segment)
        self._segment_size += len(data)

    def _write_head(self) -> None:
        with self._fatal:
            os.pwrite(self._head_file, pack_head(self._head), 0)
        self._head_dirty = True

    def _sync_head(self, *, at_latest: bool = False) -> None:
        """at_latest: only when the durable head is a second behind. A failure shows at the next append."""
        if at_latest and time.monotonic() - self._head_synced_s < HEAD_SYNC_S:
            return
        with suppress(OSError), self._fatal:
            os.fdatasync(self._head_file)
        self._head_synced_s, self._head_dirty = time.monotonic(), False

    def _finish(self, batch: list[Pending]) -> None:
        """However the thread ends, nobody waits for ever."""
        with self._entrance:
            self._closed = True
        with suppress(queue.Empty):
            while True:
                item = self._queue.get_nowait()
                batch = [*batch, item] if item else batch
        settle(batch, SetupError(LEDGER_CLOSED, folder=self._folder))
        self._sync_head()


class Fatal:
    """A context in which an OSError ends all writing; for use again and again."""

    def __init__(self) -> None:
        self.reason = ""  # why nothing can be written any more

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, OSError):
            self.reason = reason_of(error)


@asynccontextmanager
async def open_ledger(folder: Path, *, segment_bytes: int = SEGMENT_BYTES) -> AsyncIterator[Ledger]:
    """The ledger of a folder, made when there is none. Raises as `Ledger.open`."""
    ledger = Ledger(folder, segment_bytes=segment_bytes)
    await asyncio.to_thread(ledger.open)
    try:
        yield ledger
    finally:
        await asyncio.shield(asyncio.to_thread(ledger.close))


def settle(batch: list[Pending], outcome: int | StopError) -> None:
    """Tell the callers, from the writer's thread: the index of the first, or why nothing may be sent."""
    if batch:
        loop = batch[0][1].get_loop()
        loop.call_soon_threadsafe(settle_in_loop, [done for _, done, _ in batch], outcome)


def settle_in_loop(futures: list["asyncio.Future[int]"], outcome: int | StopError) -> None:
    for place, done in enumerate(futures):
        if done.done():
            continue
        if isinstance(outcome, int):
            done.set_result(outcome + place)
        else:
            done.set_exception(type(outcome)(outcome.code, **outcome.fields))


def reason_of(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else type(error).__name__


def lock_folder(folder: Path) -> int:
    """A descriptor that holds the lock until it is closed. Raises ConflictError."""
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise ConflictError(LEDGER_LOCKED, folder=folder) from error
    return lock


def cut_off(torn: TornTailError) -> None:
    """Remove an unfinished tail, durably."""
    extra = {names.PATH: torn.segment.name, names.SEQUENCE: torn.index}
    cut_bytes = torn.segment.stat().st_size - torn.offset
    log.warning("ledger.unfinished_record_cut_off", extra=extra | {names.BYTES: cut_bytes})
    if torn.offset == 0:
        torn.segment.unlink()
    else:
        os.truncate(torn.segment, torn.offset)
    sync_folder(torn.segment.parent)


def write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
