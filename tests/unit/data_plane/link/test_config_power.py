"""The power goes at any operation of any change to the configuration: what returned stands, what is there loads."""

from contextlib import suppress
from random import Random

import pytest

from data_plane.link.config_store import ConfigStore, Pointer, Trial
from data_plane.link.selection import digest
from faos_core.errors import IntegrityError
from tests.fixtures.resources_of_a_site import LABELS, site
from tests.fixtures.tuf_publisher import Publisher
from tests.sim.memory_disk import MemoryDisk, MemoryFiles
from tests.sim.virtual_loop import PowerCutError

REVISIONS = 3
BAD = 2  # the revision that is quarantined in place of becoming healthy
LOTTERIES = 24  # what of the unsynced is left is drawn so often for each operation
PUBLISHER = Publisher()
CONTENT = {number: site(str(number)) for number in range(1, REVISIONS + 1)}
MANIFESTS = {number: PUBLISHER.manifest(number, CONTENT[number]) for number in CONTENT}


class Acknowledged:
    """What the calls that returned have promised."""

    def __init__(self) -> None:
        self.verified = self.healthy = 0
        self.quarantined: set[bytes] = set()
        self.trial = Trial()


def store_on(files: MemoryFiles, cut_in: int | None = None) -> tuple[ConfigStore, MemoryDisk]:
    disk = MemoryDisk(files, cut_in=cut_in)
    return ConfigStore(files.path("config"), disk=disk), disk  # type: ignore[arg-type]  # as much of a path as it uses


def pointer(revision: int) -> Pointer:
    return Pointer(revision, digest(MANIFESTS[revision]))


def commit(store: ConfigStore, revision: int) -> None:
    work = store.work_folder()
    work.mkdir()
    (work / "timestamp.json").write_bytes(str(revision).encode())
    bodies = [resource.SerializeToString(deterministic=True) for resource in CONTENT[revision]]
    store.commit_verified(pointer(revision), MANIFESTS[revision], {digest(it): it for it in bodies}, work=work)


def live(store: ConfigStore, done: Acknowledged) -> None:
    """What a node does with its configuration, from wherever the life before stopped, to the last revision."""
    store.open()
    for revision in range(1, REVISIONS + 1):
        here = pointer(revision)
        if revision <= store.state.healthy.revision or here.manifest_sha256 in store.state.quarantined:
            continue
        commit(store, revision)
        done.verified = revision
        store.begin_trial(here)
        done.trial = store.state.trial
        store.mark_running(here)
        if revision == BAD:
            store.quarantine(here.manifest_sha256, 66)
            done.quarantined.add(here.manifest_sha256)
        else:
            store.mark_healthy(here)
            done.healthy = revision
        done.trial = Trial()
        store.collect_garbage()


def check(store: ConfigStore, done: Acknowledged) -> None:
    """Old or new, never half, never older than what was acknowledged."""
    state = store.state
    assert state.high_water.revision >= done.verified
    assert state.healthy.revision >= done.healthy
    assert set(state.quarantined) >= done.quarantined
    if done.trial.count:
        over = state.healthy.manifest_sha256 == done.trial.manifest_sha256
        assert over or done.trial.manifest_sha256 in (state.trial.manifest_sha256, *state.quarantined), (
            "what may have killed the process is known"
        )
    good = store.last_known_good(LABELS)
    assert good.revision == state.healthy.revision
    if good.revision:
        assert good.agents["helper"].instructions == f"Version {good.revision}."
    if state.high_water.revision:
        assert store.configuration(state.attempted, LABELS).revision == state.high_water.revision
    trusted = store.trusted_metadata()
    named = (trusted / "timestamp.json").read_bytes() if trusted else b"0"
    assert int(named) == state.high_water.revision, "metadata and marks change together"


def operations() -> int:
    """Of a whole life without a fault."""
    endless = 10_000
    store, disk = store_on(MemoryFiles(), cut_in=endless)
    live(store, Acknowledged())
    assert disk.cut_in is not None
    return endless - disk.cut_in


@pytest.mark.parametrize("lottery", range(LOTTERIES))
def test_power_goes_before_every_operation(lottery: int) -> None:
    """Twice in a row, at that, for what mends the first cut may be cut as well; then the node goes on to the end."""
    total = operations()
    assert total > 60
    reached = set()
    for cut_in in range(total):
        rng = Random(f"{lottery}/{cut_in}")
        files, done = MemoryFiles(), Acknowledged()
        for life, cut in enumerate((cut_in, rng.randrange(total))):
            store, disk = store_on(files, cut_in=cut)
            with suppress(PowerCutError):
                live(store, done)
            assert disk.is_dead or life == 1, "the second had less to do"
            files.cut_power(rng)
            survivor, _ = store_on(files)
            survivor.open()
            check(survivor, done)
            reached.add(survivor.state.healthy.revision)
        store, _ = store_on(files)
        live(store, done)
        check(store, done)
        assert store.state.healthy.revision == REVISIONS
    assert reached == {0, 1, REVISIONS}


def test_a_state_that_was_not_synced_would_be_found() -> None:
    """Without this, a disk that forgets nothing would pass."""

    class Forgetful(MemoryDisk):
        def sync_folder(self, folder: object) -> None:
            self.point("fsync folder")

    lost = 0
    for seed in range(20):
        files, done = MemoryFiles(), Acknowledged()
        live(ConfigStore(files.path("config"), disk=Forgetful(files)), done)  # type: ignore[arg-type]  # as above
        files.cut_power(Random(seed))
        try:
            survivor, _ = store_on(files)
            survivor.open()
            check(survivor, done)
        except (AssertionError, IntegrityError):
            lost += 1
    assert lost
