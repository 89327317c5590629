"""A node's configuration outlives crashes, and damage to it is said, never guessed around."""

import hashlib
import json
import tempfile
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from data_plane.link.config_store import (
    ConfigStore,
    Pointer,
    StoredState,
    Trial,
    decode_state,
    encode_state,
    quarantine_of,
)
from data_plane.link.interfaces import Configuration, ConfigurationError
from data_plane.link.selection import digest
from faos.resource.v1.resource_pb2 import Resource
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core.disk import Disk
from faos_core.errors import IntegrityError
from tests.fixtures.resources_of_a_site import LABELS, agent, model, site
from tests.fixtures.tuf_publisher import Publisher

PUBLISHER = Publisher()
VERIFIED = "APPLY_STATE_VERIFIED"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "config"


def opened(folder: Path) -> ConfigStore:
    store = ConfigStore(folder)
    store.open()
    return store


def commit(store: ConfigStore, revision: int, resources: list[Resource]) -> Pointer:
    """What the verifier does once an offer has been checked."""
    manifest = PUBLISHER.manifest(revision, resources)
    bodies = [resource.SerializeToString(deterministic=True) for resource in resources]
    work = store.work_folder()
    work.mkdir()
    (work / "timestamp.json").write_text(str(revision))
    pointer = Pointer(revision, digest(manifest))
    store.commit_verified(pointer, manifest, {digest(body): body for body in bodies}, work=work)
    return pointer


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_new_node_has_nothing(folder: Path) -> None:
    """Revision 0 is the empty configuration, so a node starts before its first offer."""
    store = opened(folder)

    assert store.last_known_good(LABELS) == Configuration()
    assert (store.trusted_metadata(), store.known_blobs()) == (None, frozenset())
    assert folder.stat().st_mode & 0o777 == 0o700


def test_last_known_good_survives_a_restart(folder: Path) -> None:
    """The cloud may be gone when a node boots."""
    store = opened(folder)
    store.mark_healthy(commit(store, 1, site()))

    configuration = opened(folder).last_known_good(LABELS)

    assert configuration.revision == 1
    assert configuration.agents["helper"].instructions == "Version 1."
    assert configuration.names() == {"helper", "llm", "rules", "time", "allow-time"}


def test_verified_is_not_yet_last_known_good(folder: Path) -> None:
    """Attempted, running and healthy are three facts."""
    store = opened(folder)
    good = commit(store, 1, site("1"))
    store.mark_healthy(good)
    attempted = commit(store, 2, site("2"))

    state = opened(folder).state

    assert (state.attempted, state.running, state.healthy, state.high_water) == (attempted, good, good, attempted)


@pytest.mark.parametrize("revision", [1, 2, 3])
def test_mark_refuses_everything_but_itself_and_above(folder: Path, revision: int) -> None:
    """Also another content under the same number: a revision is immutable."""
    store = opened(folder)
    mark = commit(store, 3, site("3"))

    with pytest.raises(ConfigurationError) as caught:
        commit(store, revision, site("other"))

    assert caught.value.nack.code == tunnel.NACK_CODE_ROLLBACK
    assert store.state.high_water == mark
    assert commit(store, 3, site("3")) == mark
    assert commit(store, 4, site("3")).revision == 4


def test_garbage_goes_and_what_is_pointed_at_stays(folder: Path) -> None:
    """A node in a factory must not fill its disk with years of revisions, nor lose what it may go back to."""
    store = opened(folder)
    for revision in range(1, 6):
        store.mark_healthy(commit(store, revision, site(str(revision))))
    commit(store, 6, site("6"))

    store.collect_garbage()

    kept = files(folder)
    assert len([name for name in kept if name.startswith("manifests/")]) == 2
    assert len([name for name in kept if name.startswith("blobs/")]) == len(site()) + 1
    assert [name for name in kept if name.startswith("metadata/")] == ["metadata/6/timestamp.json"]
    assert opened(folder).last_known_good(LABELS).agents["helper"].instructions == "Version 5."


def test_shared_blob_is_kept_for_the_other_revision(folder: Path) -> None:
    """Content addressing shares bodies between revisions."""
    store = opened(folder)
    store.mark_healthy(commit(store, 1, [model(), agent()]))
    commit(store, 2, [model(), agent(instructions="New.")])
    store.collect_garbage()

    assert len(store.known_blobs()) == 3
    assert store.last_known_good(LABELS).models


def test_quarantine_is_remembered_and_bounded(folder: Path) -> None:
    """What broke this node once is not tried after a restart; and the list cannot grow for ever."""
    store = opened(folder)
    for number in range(100):
        store.quarantine(number.to_bytes(32))

    quarantined = opened(folder).state.quarantined

    assert quarantined[-1] == (99).to_bytes(32)
    assert len(quarantined) == 64


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize("how", ["empty", "cut", "garbage", "edited", "missing", "flipped", "nested"])
def test_damaged_state_stops_the_start_with_what_to_do(folder: Path, how: str) -> None:
    """High-water marks live here: guessing at them would open the door to old configurations."""
    store = opened(folder)
    store.mark_healthy(commit(store, 3, site()))
    path = folder / "state.json"
    data = path.read_bytes()
    edited = json.loads(data)
    edited["state"]["high_water"]["revision"] = 1
    damage = {
        "empty": b"",
        "cut": data[:-20],
        "garbage": b"\xff\x00",
        "edited": json.dumps(edited).encode(),
        "flipped": flipped(data, data.index(b"attempted")),
        "nested": b"[" * 100_000,
    }
    path.unlink()
    if how != "missing":
        path.write_bytes(damage[how])

    with pytest.raises(IntegrityError) as caught:
        opened(folder)

    assert str(path) in caught.value.what
    assert "mv" in caught.value.next_step
    assert path.exists() == (how != "missing"), "nothing is repaired silently"


def test_missing_metadata_stops_the_start(folder: Path) -> None:
    """Without it the node would take an old timestamp for its first."""
    store = opened(folder)
    commit(store, 1, site())
    trusted = store.trusted_metadata()
    assert trusted is not None
    (trusted / "timestamp.json").unlink()
    trusted.rmdir()

    with pytest.raises(IntegrityError):
        opened(folder)


@pytest.mark.parametrize("change", ["flip", "remove"])
def test_damaged_body_is_never_run(folder: Path, change: str) -> None:
    """Digests are checked on every read, not only when the bytes came."""
    store = opened(folder)
    store.mark_healthy(commit(store, 1, [model()]))
    (blob,) = (folder / "blobs").iterdir()
    if change == "flip":
        blob.write_bytes(flipped(blob.read_bytes(), 5))
    else:
        blob.unlink()

    with pytest.raises(IntegrityError) as caught:
        opened(folder).last_known_good(LABELS)

    assert str(blob) in caught.value.what


class FullDisk(Disk):
    """Works for a number of operations, then has no space left for one."""

    def __init__(self, operations: int) -> None:
        self.left = operations

    def point(self, name: str) -> None:
        self.left -= 1
        if self.left == 0:
            raise OSError(28, "No space left on device")


@pytest.mark.parametrize("operations", range(1, 32))
def test_full_disk_changes_all_or_nothing(folder: Path, operations: int) -> None:
    """Memory and disk agree on what is in force, whatever operation failed, and nothing of it is collected."""
    disk = FullDisk(-1)
    store = ConfigStore(folder, disk=disk)
    store.open()
    store.mark_healthy(commit(store, 1, site("1")))
    before = store.state
    after = Pointer(2, digest(PUBLISHER.manifest(2, site("2"))))

    disk.left = operations
    try:
        commit(store, 2, site("2"))
    except OSError:
        assert store.state in (
            before,
            replace(before, attempted=after, high_water=after, generation=2, apply_state=VERIFIED),
        )
    disk.left = -1
    store.collect_garbage()

    assert opened(folder).state == store.state
    assert opened(folder).last_known_good(LABELS).revision == 1
    assert commit(store, 2, site("2")).revision == 2
    assert opened(folder).state.high_water.revision == 2


class WatchingDisk(Disk):
    """Knows which names a power cut would lose at any time."""

    def __init__(self) -> None:
        self.unsynced: set[Path] = set()  # folders
        self.synced_trees: set[Path] = set()
        self.commits = 0

    def rename(self, source: Path, target: Path) -> None:
        if target.name == "state.json":
            self.commits += 1
            assert self.unsynced <= {target.parent}, "everything that the state names is durable before it is named"
        if source.is_dir():
            assert source in self.synced_trees, "a folder is durable inside before it gets its name"
        super().rename(source, target)
        self.unsynced.add(target.parent)

    def sync_folder(self, folder: Path) -> None:
        super().sync_folder(folder)
        self.unsynced.discard(folder)

    def sync_tree(self, folder: Path) -> None:
        super().sync_tree(folder)
        self.synced_trees.add(folder)


def test_power_cut_finds_all_that_the_state_names(folder: Path) -> None:
    """Killing a process cannot show a missing fsync; the order of operations can."""
    disk = WatchingDisk()
    store = ConfigStore(folder, disk=disk)
    store.open()

    for revision in (1, 2):
        store.mark_healthy(commit(store, revision, site(str(revision))))
        assert disk.unsynced == set(), "what has returned is durable"

    assert disk.commits == 5


pointers = st.builds(Pointer, st.integers(0, 2**64 - 1), st.binary(max_size=32))
states = st.builds(
    StoredState,
    attempted=pointers,
    running=pointers,
    healthy=pointers,
    high_water=pointers,
    quarantined=st.lists(st.binary(min_size=32, max_size=32), max_size=3).map(tuple),
    quarantine_codes=st.lists(st.integers(0, 99), max_size=3).map(tuple),
    trial=st.builds(Trial, st.binary(max_size=32), st.integers(0, 9)),
    generation=st.integers(0, 10**9),
)


def test_deaths_are_counted_over_restarts_and_ends_are_not(folder: Path) -> None:
    """What kills the process never gets to say so: the count must be durable before it can."""
    store = opened(folder)
    bad, other = commit(store, 1, site("1")), Pointer(2, b"\2" * 32)

    store.begin_trial(bad)
    assert opened(folder).state.trial == Trial(bad.manifest_sha256, 1)

    store = opened(folder)
    for _ in range(3):
        store.begin_trial(bad)
    assert opened(folder).state.trial.count == 2, "within one life it can kill once"
    store.end_trial()
    assert opened(folder).state.trial.count == 1, "this life it has not killed"
    store.begin_trial(other)
    assert opened(folder).state.trial == Trial(other.manifest_sha256, 1)
    store.mark_healthy(bad)
    assert opened(folder).state.trial == Trial()


def test_quarantine_keeps_why_and_knows_what_it_does_not_know(folder: Path) -> None:
    """The state of a version before this one names digests alone."""
    store = opened(folder)
    store.quarantine(b"\1" * 32, 66)
    assert quarantine_of(opened(folder).state) == {b"\1" * 32: 66}

    before = StoredState(quarantined=(b"\1" * 32, b"\2" * 32), quarantine_codes=(66,))
    assert quarantine_of(before) == {b"\1" * 32: 0, b"\2" * 32: 66}


def test_state_of_the_version_before_is_read(folder: Path) -> None:
    """An upgrade keeps last known good, and everything else."""
    state = StoredState(healthy=Pointer(3, b"\3" * 32), quarantined=(b"\1" * 32,), generation=2)
    document = json.loads(encode_state(state))
    body = {key: value for key, value in document["state"].items() if key not in ("trial", "quarantine_codes")}
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    old = {"format": 1, "sha256": hashlib.sha256(canonical).hexdigest(), "state": body}

    assert decode_state(json.dumps(old).encode()) == state


@given(states)
def test_state_file_says_what_was_written(state: StoredState) -> None:
    """Nothing is lost on the way to the disk and back."""
    assert decode_state(encode_state(state)) == state


@given(states, st.integers(0), st.integers(1, 255))
def test_any_changed_byte_is_noticed_or_means_the_same(state: StoredState, at: int, change: int) -> None:
    """A bit that rots must not move a high-water mark."""
    data = bytearray(encode_state(state))
    data[at % len(data)] ^= change

    try:
        decoded = decode_state(bytes(data))
    except (ValueError, TypeError, KeyError):
        return
    assert decoded == state


class Storing(RuleBasedStateMachine):
    """Any order of commits, promotions, quarantines and restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.folders = temporary_folders()
        self.folder = next(self.folders)
        self.store = opened(self.folder)
        self.highest = 0
        self.known: list[Pointer] = []

    @rule(revision=st.integers(1, 6), version=st.sampled_from(["a", "b"]))
    def commit(self, revision: int, version: str) -> None:
        try:
            self.known = [commit(self.store, revision, site(version))]
        except ConfigurationError:
            assert revision <= self.highest
        else:
            assert revision >= self.highest

    @rule()
    def promote(self) -> None:
        for pointer in self.known:
            self.store.mark_healthy(pointer)

    @rule()
    def collect(self) -> None:
        self.store.collect_garbage()

    @rule()
    def restart(self) -> None:
        before = self.store.state
        self.store = opened(self.folder)
        assert self.store.state == before

    @invariant()
    def high_water_never_falls(self) -> None:
        assert self.store.state.high_water.revision >= self.highest
        self.highest = self.store.state.high_water.revision

    @invariant()
    def last_known_good_loads(self) -> None:
        assert self.store.last_known_good(LABELS).revision == self.store.state.healthy.revision

    def teardown(self) -> None:
        self.folders.close()


def temporary_folders() -> Generator[Path, None, None]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name) / "config"


TestStoring = Storing.TestCase
TestStoring.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)
