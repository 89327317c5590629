"""Checks of the machine itself, for both sides: disk, temporary folder, clock. Nothing on it is changed."""

import ctypes
import errno
import os
import re
import shutil
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from faos_core.checkup import Check, Finding, Verdict, in_thread, passed

MIB, GIB = 1 << 20, 1 << 30
LOW_BYTES, LEAST_BYTES = 2 * GIB, 200 * MIB
LOW_INODES, LEAST_INODES = 10_000, 500
SLOW_FSYNC_S = 0.1
UNSYNCHRONISED = 5  # TIME_ERROR of adjtimex(2)
REMOTE = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "lustre", "afs", "vboxsf"})
FLEETING = frozenset({"tmpfs", "ramfs"})
ESCAPED = re.compile(r"\\([0-7]{3})")  # blank, tab, newline and backslash in a mount point; all else is as it is


@dataclass(frozen=True, slots=True)
class Mount:
    point: Path
    kind: str  # of file system


def disk_checks(folder: Path) -> list[Check]:
    """folder: where data is, or will be; it need not exist yet."""
    there = existing(folder)
    return [
        Check("disk space", partial(in_thread, partial(space, there)), str(folder)),
        Check("disk write", partial(in_thread, partial(writes, there)), str(folder)),
        Check("file system", partial(in_thread, partial(file_system, there)), str(folder)),
        Check("temporary folder", partial(in_thread, temporary_folder)),
    ]


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(each for each in (folder, *folder.absolute().parents) if each.is_dir())


def space(folder: Path) -> Finding:
    found, inodes = shutil.disk_usage(folder), os.statvfs(folder)
    free = f"{found.free / GIB:.1f} GiB free of {found.total / GIB:.0f} GiB"
    counted = inodes.f_files > 0  # some file systems have no fixed number of inodes
    if found.free < LEAST_BYTES or (counted and inodes.f_favail < LEAST_INODES):
        verdict = Verdict.FAIL
    elif found.free < LOW_BYTES or (counted and inodes.f_favail < LOW_INODES):
        verdict = Verdict.WARN
    else:
        return passed(free + (f", {inodes.f_favail:,} inodes" if counted else ""))
    short = "inodes" if counted and inodes.f_favail < LOW_INODES else "space"
    return Finding(
        verdict,
        f"{free}, {inodes.f_favail:,} inodes." if counted else f"{free}.",
        f"There is little {short} left; a full disk stops everything that must be recorded first.",
        f"Make room: df -h {folder} && df -i {folder}",
    )


def writes(folder: Path) -> Finding:
    """Writes and fsyncs a file that never has a name."""
    try:
        took_s = _write_nameless(folder)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT):
            return Finding(Verdict.SKIPPED, "This file system has no nameless files to try with.")
        reason = f"The system says: {error.strerror}."
        return Finding(Verdict.FAIL, f"Nothing can be written into {folder}.", reason, f"Look at it: ls -ld {folder}")
    if took_s > SLOW_FSYNC_S:
        cause = "Each message and each step of a run waits for it: slow or shared disks make slow answers."
        return Finding(Verdict.WARN, f"An fsync took {took_s * 1000:.0f} ms.", cause, "Use a faster disk.")
    return passed(f"written and synced in {took_s * 1000:.1f} ms")


def _write_nameless(folder: Path) -> float:
    """Seconds that the fsync took. Raises OSError."""
    file = os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o600)
    try:
        os.write(file, b"\0" * 4096)
        began_s = time.monotonic()
        os.fsync(file)
        return time.monotonic() - began_s
    finally:
        os.close(file)


def file_system(folder: Path) -> Finding:
    mount = mount_of(folder, Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace"))
    where = f"{mount.kind} at {mount.point}"
    if mount.kind in REMOTE or mount.kind.startswith("fuse"):
        cause = "It is another machine's or a program's. Locks and fsync do not hold there as databases need them."
        return Finding(Verdict.FAIL, f"The data is not on a local disk: {where}.", cause, "Choose a folder on one.")
    if mount.kind in FLEETING:
        cause = "It is in memory: identity, ledger and keys are gone when the machine restarts."
        return Finding(Verdict.WARN, f"The data does not last: {where}.", cause, "Choose a folder on a disk.")
    if mount.kind == "overlay":
        cause = "It is a container's own layer, and gone with the container."
        return Finding(Verdict.WARN, f"The data may not last: {where}.", cause, "Put a volume there.")
    return passed(where)


def mount_of(folder: Path, mountinfo: str) -> Mount:
    """The mount that the folder lies in. Source: proc_pid_mountinfo(5). Pure."""
    place, found = folder.resolve(), Mount(Path("/"), "unknown")
    for line in mountinfo.splitlines():
        left, dash, right = line.partition(" - ")
        if dash:
            point = Path(ESCAPED.sub(lambda found: chr(int(found[1], 8)), left.split(" ")[4]))
            if place.is_relative_to(point) and len(point.parts) >= len(found.point.parts):
                found = Mount(point, right.split(" ")[0])
    return found


def temporary_folder() -> Finding:
    folder = Path(tempfile.gettempdir())
    if not os.access(folder, os.W_OK | os.X_OK):
        return Finding(Verdict.FAIL, f"Nothing can be written into {folder}.", "", f"Look at it: ls -ld {folder}")
    if os.statvfs(folder).f_flag & os.ST_NOEXEC:
        cause = "Some libraries and tool servers unpack programs there and start them."
        next_step = "If one of them fails, name another folder: TMPDIR=/var/lib/faos/tmp"
        return Finding(Verdict.WARN, f"Programs in {folder} cannot be run (noexec).", cause, next_step)
    return passed(str(folder))


def clock(now: datetime, earliest: datetime | None, latest: datetime | None) -> Finding:
    """earliest, latest: between which it is by what others have signed; None where nothing says so."""
    said = f"{now:%Y-%m-%d %H:%M:%S}Z"
    if (earliest and now < earliest) or (latest and now > latest):
        bounds = " and ".join(
            f"{word} {at:%Y-%m-%d %H:%M}Z" for word, at in (("after", earliest), ("before", latest)) if at
        )
        return Finding(
            Verdict.FAIL,
            f"This machine's clock is wrong: it says {said}.",
            f"By certificates that were made elsewhere it is {bounds}.",
            "Set it: timedatectl set-ntp true",
        )
    if not is_synchronised():
        cause = "The kernel knows of no time service. Certificates renew and expire by the clock."
        return Finding(Verdict.WARN, f"Nothing keeps this clock right: {said}.", cause, "timedatectl set-ntp true")
    return passed(said)


def is_synchronised() -> bool:
    """What the kernel says of its clock. Source: adjtimex(2), with no mode set, which only reads."""
    try:
        state: int = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))
    except (OSError, AttributeError):
        return True  # no such call: nothing can be said
    return state != UNSYNCHRONISED
