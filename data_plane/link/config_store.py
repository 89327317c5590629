"""What a node keeps of its configuration, so that it survives a crash at any moment and the control plane's absence.

    <data_dir>/config/
        state.json           which of the below counts; replaced atomically: the one point of commit
        metadata/<n>/        TUF metadata, one folder per change; state.json names the one that is trusted
        manifests/<sha256>   as received
        blobs/<sha256>       bodies of resources, as received

Everything is written and made durable before state.json names it; what state.json does not name is garbage and is
removed. So a reader finds the old state or the new one, never half of one.
"""

import hashlib
import json
import logging
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from data_plane.link import selection
from data_plane.link.errors import CONTENT_CORRUPT, STATE_CORRUPT
from data_plane.link.interfaces import Configuration
from data_plane.link.nacks import refusal
from faos.resource.v1.resource_pb2 import Manifest, Resource
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core import names
from faos_core.disk import Disk, temporary_in
from faos_core.errors import IntegrityError

log = logging.getLogger(__name__)

FORMAT = 1
QUARANTINE_COUNT = 64  # the oldest are forgotten; high-water marks keep them out all the same
STATE_FILE = "state.json"
CONTENT = ("manifests", "blobs")  # by their SHA-256
FOLDERS = ("metadata", *CONTENT)


@dataclass(frozen=True, slots=True)
class Pointer:
    """One revision by number and content. Revision 0 is none."""

    revision: int = 0
    manifest_sha256: bytes = b""


@dataclass(frozen=True, slots=True)
class Trial:
    """Content that is being activated or watched, and has not come to an end yet. Found at a start, it is what the
    process died of, or died during."""

    manifest_sha256: bytes = b""
    count: int = 0  # how often it was begun and not ended, this time included


@dataclass(frozen=True, slots=True)
class StoredState:
    """The facts that outlive the process."""

    attempted: Pointer = field(default_factory=Pointer)
    running: Pointer = field(default_factory=Pointer)  # of the process that wrote it
    healthy: Pointer = field(default_factory=Pointer)  # last known good
    high_water: Pointer = field(default_factory=Pointer)  # highest verified; never falls
    quarantined: tuple[bytes, ...] = ()  # manifest digests, newest last
    quarantine_codes: tuple[int, ...] = ()  # of tunnel.NackCode, why, as far as is known: for the newest of these
    trial: Trial = field(default_factory=Trial)
    apply_state: str = "APPLY_STATE_UNSPECIFIED"  # how far the attempted one came
    generation: int = 0  # of the TUF metadata; 0 before the first

    def pointers(self) -> tuple[Pointer, ...]:
        return (self.attempted, self.running, self.healthy)


class ConfigStore:
    """Durable configuration of one node. Blocking; methods may be called from any thread, one at a time holds."""

    def __init__(self, folder: Path, *, disk: Disk | None = None) -> None:
        """folder: `<data_dir>/config`, used by this process alone. Call `open` before anything else."""
        self._folder = folder
        self._disk = disk or Disk()
        self._lock = threading.Lock()
        self._state = StoredState()
        self._deaths = Trial()  # of processes before this one
        self._is_settled = False  # whether the state file is known to be durable

    def open(self) -> None:
        """Read the state; on the first start, make an empty one. Removes what a crash left unfinished.

        Content that is not what it is stored as is removed, and said: it comes again with the next offer.
        Raises: IntegrityError when the state is damaged, naming the file and what to do; it repairs nothing.
        """
        self._disk.make_folder(self._folder)
        self._disk.sweep(self._folder)
        if (self._folder / STATE_FILE).exists():
            self._state = self._read_state()
            self._deaths = self._state.trial
            self._disk.sync_folder(self._folder)
            self._is_settled = True
        else:
            self._make_state()
        for name in FOLDERS:
            self._disk.make_folder(self._folder / name)
            self._disk.sweep(self._folder / name)
        for name in CONTENT:
            self._drop_damaged(self._folder / name)
        if self._state.generation and not self._metadata(self._state.generation).is_dir():
            raise self._corrupt(f"its metadata folder {self._state.generation} is missing")
        self.collect_garbage()

    def _drop_damaged(self, folder: Path) -> None:
        for path in sorted(folder.iterdir()):
            if selection.digest(path.read_bytes()).hex() != path.name:
                log.error("config.content_damaged", extra={names.PATH: str(path)})
                self._disk.remove(path)

    def _make_state(self) -> None:
        """The state file comes first, so content without one is a loss and not a crash of the first start."""
        if any((self._folder / name).exists() for name in FOLDERS):
            raise self._corrupt("the file is missing, though configuration is there")
        self._write_state(StoredState())

    @property
    def state(self) -> StoredState:
        return self._state

    # ---- reading

    def trusted_metadata(self) -> Path | None:
        """The TUF metadata folder in force; None before the first offer."""
        return self._metadata(self._state.generation) if self._state.generation else None

    def work_folder(self) -> Path:
        """A fresh path for the copy that Trust.check makes; `commit_verified` moves it, `open` removes it."""
        return temporary_in(self._folder / "metadata")

    def known_blobs(self) -> frozenset[bytes]:
        """SHA-256 of the blobs that are here, for Hello and for knowing what to fetch."""
        names = (path.name for path in (self._folder / "blobs").iterdir())
        return frozenset(bytes.fromhex(name) for name in names if not name.startswith("."))

    def blob(self, sha256: bytes) -> bytes:
        """Raises IntegrityError when it is missing or not what it is stored as."""
        return self._content("blobs", sha256)

    def configuration(self, pointer: Pointer, labels: Mapping[str, str]) -> Configuration:
        """A stored revision as this node selects it; empty for revision 0.

        Neither network nor clock: expired metadata does not matter, because it was checked when it came.
        Raises: IntegrityError (content damaged), ConfigurationError (this version of the node cannot read it).
        """
        if not pointer.revision:
            return Configuration()
        return selection.assemble(pointer.revision, pointer.manifest_sha256, self.resources(pointer, labels))

    def resources(self, pointer: Pointer, labels: Mapping[str, str]) -> list[Resource]:
        """The selected resources of a stored revision. Raises as `configuration` does."""
        entries = selection.select(self._manifest(pointer.manifest_sha256), labels)
        return selection.read_resources(entries, self.blob)

    def last_known_good(self, labels: Mapping[str, str]) -> Configuration:
        """The last revision that was healthy; what a node runs when it starts. Raises as `configuration` does."""
        return self.configuration(self._state.healthy, labels)

    def _manifest(self, sha256: bytes) -> Manifest:
        try:
            return Manifest.FromString(self._content("manifests", sha256))
        except DecodeError as error:
            raise refusal(tunnel.NACK_CODE_UNPARSABLE) from error

    def _content(self, folder: str, sha256: bytes) -> bytes:
        path = self._folder / folder / sha256.hex()
        data = path.read_bytes() if path.is_file() else None
        if data is None or selection.digest(data) != sha256:
            raise IntegrityError(CONTENT_CORRUPT, path=str(path), folder=str(self._folder))
        return data

    # ---- writing

    def check_high_water(self, pointer: Pointer) -> None:
        """Raises ConfigurationError (ROLLBACK) for anything not above the mark, but for the marked content itself."""
        mark = self._state.high_water
        if pointer.revision <= mark.revision and pointer != mark:
            raise refusal(tunnel.NACK_CODE_ROLLBACK)

    def commit_verified(self, pointer: Pointer, manifest: bytes, blobs: Mapping[bytes, bytes], *, work: Path) -> None:
        """Make a verified offer and the metadata that vouches for it durable, in one step; raise the high-water mark.

        blobs: checked bodies by SHA-256. work: the folder that Trust.check left.
        Raises: ConfigurationError (ROLLBACK): nothing has changed; OSError: all of it has changed, or nothing.
        """
        with self._lock:
            self.check_high_water(pointer)
            self._disk.put(self._folder / "blobs", {sha256.hex(): data for sha256, data in blobs.items()})
            self._disk.put(self._folder / "manifests", {pointer.manifest_sha256.hex(): manifest})
            adopted = replace(self._state, generation=self._adopt(work))
            raised = replace(adopted, attempted=pointer, high_water=pointer, apply_state="APPLY_STATE_VERIFIED")
            self._write_state(raised)

    def _adopt(self, work: Path) -> int:
        """Move the work folder to where a generation lives. No number is used twice: a state file may name it."""
        there = (int(path.name) for path in (self._folder / "metadata").iterdir() if path.name.isdecimal())
        generation = max(there, default=0) + 1
        self._disk.sync_tree(work)
        self._disk.rename(work, self._metadata(generation))
        self._disk.sync_folder(self._folder / "metadata")
        return generation

    def record(self, apply_state: tunnel.ApplyState.ValueType) -> None:
        """How far the attempted revision has come. Raises OSError."""
        with self._lock:
            self._write_state(replace(self._state, apply_state=tunnel.ApplyState.Name(apply_state)))

    def mark_running(self, pointer: Pointer) -> None:
        """Raises OSError."""
        with self._lock:
            self._write_state(replace(self._state, running=pointer))

    def begin_trial(self, pointer: Pointer) -> None:
        """This revision is about to be activated, and may kill the process. Raises OSError: then do not."""
        with self._lock:
            deaths = self._deaths.count if self._deaths.manifest_sha256 == pointer.manifest_sha256 else 0
            trial = Trial(pointer.manifest_sha256, deaths + 1)
            self._write_state(replace(self._state, trial=trial, apply_state="APPLY_STATE_APPLYING"))

    def end_trial(self) -> None:
        """It came to an end that the process has outlived. Raises OSError."""
        with self._lock:
            is_same = self._deaths.manifest_sha256 == self._state.trial.manifest_sha256
            trial = self._deaths if is_same else Trial()
            if trial != self._state.trial:
                self._write_state(replace(self._state, trial=trial))

    def mark_healthy(self, pointer: Pointer) -> None:
        """This revision is last known good from now on. Raises OSError."""
        with self._lock:
            promoted = replace(self._state, running=pointer, healthy=pointer, apply_state="APPLY_STATE_HEALTHY")
            self._write_state(replace(promoted, trial=Trial()))

    def quarantine(self, manifest_sha256: bytes, code: int = tunnel.NACK_CODE_UNSPECIFIED) -> None:
        """Never try this content again, across restarts. code: of tunnel.NackCode, why. Raises OSError."""
        with self._lock:
            kept = {digest: why for digest, why in quarantine_of(self._state).items() if digest != manifest_sha256}
            newest = [*kept.items(), (manifest_sha256, code)][-QUARANTINE_COUNT:]
            digests, codes = (tuple(column) for column in zip(*newest, strict=True))
            trial = Trial() if self._state.trial.manifest_sha256 == manifest_sha256 else self._state.trial
            self._write_state(replace(self._state, quarantined=digests, quarantine_codes=codes, trial=trial))

    def collect_garbage(self) -> None:
        """Remove manifests, blobs and metadata that no pointer of the state reaches. Raises OSError."""
        with self._lock:
            if not self._is_settled:
                return
            manifests = {pointer.manifest_sha256 for pointer in self._state.pointers() if pointer.revision}
            self._keep("manifests", {sha256.hex() for sha256 in manifests})
            self._keep("metadata", {str(self._state.generation)})
            with suppress(IntegrityError):  # a manifest is lost: which bodies it names is not known
                self._keep("blobs", {sha256.hex() for sha256 in self._blobs_of(manifests)})

    def _blobs_of(self, manifests: Iterable[bytes]) -> set[bytes]:
        return {entry.sha256 for sha256 in manifests for entry in self._manifest(sha256).entries}

    def _keep(self, folder: str, names: set[str]) -> None:
        for path in sorted((self._folder / folder).iterdir()):
            if path.name not in names and not path.name.startswith("."):
                self._disk.remove(path)

    # ---- the state file

    def _metadata(self, generation: int) -> Path:
        return self._folder / "metadata" / str(generation)

    def _write_state(self, state: StoredState) -> None:
        assert state.high_water.revision >= self._state.high_water.revision, "high-water marks never fall"
        self._is_settled = False
        try:
            self._disk.put(self._folder, {STATE_FILE: encode_state(state)})
        except OSError:
            self._reread_state()
            raise
        self._state = state
        self._is_settled = True

    def _reread_state(self) -> None:
        """After a failed write the old file or the new one is there, and which of them a crash would leave is open:
        the store says what the disk says, and removes nothing before a write has succeeded."""
        if (self._folder / STATE_FILE).exists():
            self._state = self._read_state()

    def _read_state(self) -> StoredState:
        try:
            return decode_state((self._folder / STATE_FILE).read_bytes())
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise self._corrupt("its content does not fit its checksum") from error

    def _corrupt(self, reason: str) -> IntegrityError:
        path = self._folder / STATE_FILE
        return IntegrityError(STATE_CORRUPT, path=str(path), reason=reason, folder=str(self._folder))


def quarantine_of(state: StoredState) -> Mapping[bytes, int]:
    """Why, as a tunnel.NackCode, by manifest digest, newest last; NACK_CODE_UNSPECIFIED where a version before this one
    did not keep it."""
    unknown = len(state.quarantined) - len(state.quarantine_codes)
    codes = (*[int(tunnel.NACK_CODE_UNSPECIFIED)] * unknown, *state.quarantine_codes)
    return dict(zip(state.quarantined, codes, strict=True))


def encode_state(state: StoredState) -> bytes:
    """JSON that a person can read, with a SHA-256 over the canonical form of the state."""
    body = json.loads(json.dumps(asdict(state), default=bytes.hex))
    document = {"format": FORMAT, "sha256": _checksum(body), "state": body}
    return json.dumps(document, indent=1, sort_keys=True).encode()


def decode_state(data: bytes) -> StoredState:
    """Inverse of `encode_state`. Raises ValueError, TypeError or KeyError for anything else."""
    document = json.loads(data)
    if document["format"] != FORMAT or document["sha256"] != _checksum(document["state"]):
        raise ValueError("checksum")
    body: dict[str, Any] = document["state"]
    pointers = {name: _pointer(body[name]) for name in ("attempted", "running", "healthy", "high_water")}
    lists = {
        "quarantined": tuple(bytes.fromhex(each) for each in body["quarantined"]),
        "quarantine_codes": tuple(body.get("quarantine_codes", ())),
    }
    trial = body.get("trial", {"manifest_sha256": "", "count": 0})  # absent before version 0.2
    kept = {"trial": Trial(bytes.fromhex(trial["manifest_sha256"]), trial["count"])}
    return StoredState(**body | pointers | lists | kept)


def _pointer(value: Mapping[str, Any]) -> Pointer:
    return Pointer(revision=value["revision"], manifest_sha256=bytes.fromhex(value["manifest_sha256"]))


def _checksum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
