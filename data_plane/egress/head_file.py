"""The durable head: how many records were acknowledged, and their tree hash; what shows that a tail was cut off.

One slot of 56 bytes at the start of the file `head`, written in place after each group commit and before anybody is
told: the page cache keeps it through `kill -9`. Its own fsync would double the cost of a commit, so it follows when
the writer falls idle and at the latest after a second. The head is therefore never ahead of the records; after a
power loss it may be behind by that second, which is the only tail whose loss it cannot show (the control plane's
copy of the head, sent with each heartbeat, can). A slot lies within one disk sector, which disks write as a whole.
"""

import struct
import zlib
from contextlib import suppress
from pathlib import Path

from data_plane.egress.interfaces import LedgerHead
from data_plane.egress.records import CRC, damaged
from faos_core.disk import Disk
from faos_core.merkle import EMPTY_ROOT

HEAD_NAME = "head"
HEAD_MAGIC = b"FAOSLDH1"
SLOT = struct.Struct(">8sQ32s")
READ_ATTEMPTS = 5  # a reader without the lock may catch the slot while it is being written

EMPTY_HEAD = LedgerHead(0, EMPTY_ROOT)


def pack_head(head: LedgerHead) -> bytes:
    slot = SLOT.pack(HEAD_MAGIC, head.size, head.root_sha256)
    return slot + CRC.pack(zlib.crc32(slot))


def create_head(folder: Path) -> None:
    """The head of an empty ledger, durable before the first segment exists."""
    Disk().put(folder, {HEAD_NAME: pack_head(EMPTY_HEAD)})


def read_head(folder: Path) -> LedgerHead:
    """Raises IntegrityError when there is no valid head."""
    path = folder / HEAD_NAME
    for _ in range(READ_ATTEMPTS):
        with suppress(FileNotFoundError):
            data = path.read_bytes()
            if len(data) == SLOT.size + CRC.size:
                magic, size, root = SLOT.unpack_from(data)
                if magic == HEAD_MAGIC and data == pack_head(LedgerHead(size, root)):
                    return LedgerHead(size, root)
    raise damaged(path, 0, "the head is missing or overwritten")
