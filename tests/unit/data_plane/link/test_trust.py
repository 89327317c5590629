"""Whoever holds neither the publisher's key nor the freshness keys changes nothing on a node."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, Targets

from data_plane.link.interfaces import ConfigurationError
from data_plane.link.trust import Trust, TrustLimits
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos.tunnel.v1.tunnel_pb2 import NackCode, TufMetadata
from faos_core.clock import SystemClock
from tests.fixtures.tuf_publisher import Publisher, days

PUBLISHER = Publisher()
MANIFEST = b"manifest of revision 1"
NEWER = b"manifest of revision 2"


@pytest.fixture
def publisher() -> Publisher:
    return Publisher()


def refused(
    trust: Trust, metadata: TufMetadata, manifest: bytes, trusted: Path | None, work: Path
) -> NackCode.ValueType:
    with pytest.raises(ConfigurationError) as caught:
        trust.check(metadata, manifest, trusted=trusted, work=work)
    assert not work.exists(), "a refused offer leaves nothing behind"
    return caught.value.nack.code


def accept(publisher: Publisher, folder: Path, revision: int = 1, manifest: bytes = MANIFEST) -> Path:
    """A metadata folder that trusts this revision."""
    trust = Trust(publisher.tuf_root)
    trust.check(publisher.metadata(manifest, revision), manifest, trusted=None, work=folder)
    return folder


def test_first_offer_is_trusted_from_the_pinned_root(publisher: Publisher, tmp_path: Path) -> None:
    """The pinned root is all that a node needs to judge its first offer."""
    folder = accept(publisher, tmp_path / "work")

    assert (folder / "timestamp.json").is_file()


def test_check_only_reads_what_is_trusted(publisher: Publisher, tmp_path: Path) -> None:
    """The folder in force changes by commit alone, even when an offer is good."""
    trusted = accept(publisher, tmp_path / "trusted")
    before = contents(trusted)

    trust = Trust(publisher.tuf_root)
    trust.check(publisher.metadata(NEWER, 2), NEWER, trusted=trusted, work=tmp_path / "work")

    assert contents(trusted) == before
    assert contents(tmp_path / "work") != before


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def expired(role: str) -> Callable[[Publisher], TufMetadata]:
    return lambda publisher: publisher.metadata(NEWER, 2, expires={role: days(-1)})


def signed_by_another(publisher: Publisher) -> TufMetadata:
    return Publisher().metadata(NEWER, 2, timestamp_version=9)


def targets_by_another(publisher: Publisher) -> TufMetadata:
    metadata = publisher.metadata(NEWER, 2)
    metadata.targets = Publisher().metadata(NEWER, 2).targets
    return metadata


def changed_after_signing(publisher: Publisher) -> TufMetadata:
    metadata = publisher.metadata(NEWER, 2)
    metadata.targets = metadata.targets.replace(b'"length":22', b'"length":23')
    return metadata


def older_timestamp(publisher: Publisher) -> TufMetadata:
    return publisher.metadata(NEWER, 2, timestamp_version=1)


def another_target(publisher: Publisher) -> TufMetadata:
    return publisher.metadata(NEWER, 4, target="manifest2")


def another_manifest(publisher: Publisher) -> TufMetadata:
    return publisher.metadata(b"something else", 4)


def lacking(field: str) -> Callable[[Publisher], TufMetadata]:
    def make(publisher: Publisher) -> TufMetadata:
        metadata = publisher.metadata(NEWER, 4)
        metadata.ClearField(field)  # type: ignore[arg-type]  # a name of a field
        return metadata

    return make


def truncated(field: str) -> Callable[[Publisher], TufMetadata]:
    def make(publisher: Publisher) -> TufMetadata:
        metadata = publisher.metadata(NEWER, 4)
        setattr(metadata, field, getattr(metadata, field)[:100])
        return metadata

    return make


def root_of_another(publisher: Publisher) -> TufMetadata:
    stranger = Publisher()
    stranger.rotate("targets")
    return stranger.metadata(NEWER, 4)


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (signed_by_another, tunnel.NACK_CODE_SIGNATURE_INVALID),
        (targets_by_another, tunnel.NACK_CODE_SIGNATURE_INVALID),
        (root_of_another, tunnel.NACK_CODE_SIGNATURE_INVALID),
        (changed_after_signing, tunnel.NACK_CODE_SIGNATURE_INVALID),
        (expired("timestamp"), tunnel.NACK_CODE_METADATA_EXPIRED),
        (expired("snapshot"), tunnel.NACK_CODE_METADATA_EXPIRED),
        (expired("targets"), tunnel.NACK_CODE_METADATA_EXPIRED),
        (older_timestamp, tunnel.NACK_CODE_ROLLBACK),
        (another_target, tunnel.NACK_CODE_DIGEST_MISMATCH),
        (another_manifest, tunnel.NACK_CODE_DIGEST_MISMATCH),
        (lacking("timestamp"), tunnel.NACK_CODE_UNPARSABLE),
        (lacking("snapshot"), tunnel.NACK_CODE_UNPARSABLE),
        (lacking("targets"), tunnel.NACK_CODE_UNPARSABLE),
        (truncated("timestamp"), tunnel.NACK_CODE_UNPARSABLE),
        (truncated("snapshot"), tunnel.NACK_CODE_UNPARSABLE),
        (truncated("targets"), tunnel.NACK_CODE_UNPARSABLE),
    ],
)
def test_bad_metadata_is_refused_by_code(
    publisher: Publisher, tmp_path: Path, make: Callable[[Publisher], TufMetadata], code: NackCode.ValueType
) -> None:
    """An operator learns from the code what to look at: key, clock, replay or transport."""
    publisher.metadata(MANIFEST, 1)
    trusted = accept(publisher, tmp_path / "trusted")

    assert refused(Trust(publisher.tuf_root), make(publisher), NEWER, trusted, tmp_path / "work") == code


def test_older_revision_is_a_rollback(publisher: Publisher, tmp_path: Path) -> None:
    """A control plane cannot go back to a revision that the publisher replaced, even with a fresh timestamp."""
    trusted = accept(publisher, tmp_path / "trusted", 2, NEWER)
    older = publisher.metadata(MANIFEST, 1)

    assert refused(Trust(publisher.tuf_root), older, MANIFEST, trusted, tmp_path / "work") == tunnel.NACK_CODE_ROLLBACK


@pytest.mark.parametrize("role", ["root", "timestamp", "snapshot", "targets"])
def test_rotated_key_is_followed_and_the_old_one_is_dead(publisher: Publisher, tmp_path: Path, role: str) -> None:
    """A stolen key is recovered from by a root rotation, without touching any node."""
    trusted = accept(publisher, tmp_path / "trusted")
    stale = publisher.metadata(NEWER, 2)

    publisher.rotate(role)
    fresh = publisher.metadata(NEWER, 2)
    trust = Trust(publisher.tuf_root)
    trust.check(fresh, NEWER, trusted=trusted, work=tmp_path / "rotated")

    if role != "root":
        stale.roots.extend(publisher.rotated)
        stale.timestamp = fresh.timestamp if role != "timestamp" else stale.timestamp
        stale.snapshot = fresh.snapshot if role != "snapshot" else stale.snapshot
        code = refused(trust, stale, NEWER, trusted, tmp_path / "work")
        assert code == tunnel.NACK_CODE_SIGNATURE_INVALID


def test_root_signed_by_the_new_key_alone_is_refused(publisher: Publisher, tmp_path: Path) -> None:
    """Otherwise anybody could hand a node a root of their own."""
    trusted = accept(publisher, tmp_path / "trusted")
    thief = Publisher()
    thief.root.version = 2
    forged = Metadata(thief.root)
    forged.sign(thief.keys["root"])
    thief.rotated.append(forged.to_bytes())

    code = refused(Trust(publisher.tuf_root), thief.metadata(NEWER, 2), NEWER, trusted, tmp_path / "work")

    assert code == tunnel.NACK_CODE_SIGNATURE_INVALID


@pytest.mark.parametrize(
    "limits",
    [
        TrustLimits(timestamp_bytes=10),
        TrustLimits(snapshot_bytes=10),
        TrustLimits(targets_bytes=10),
        TrustLimits(manifest_bytes=10),
        TrustLimits(root_bytes=10),
        TrustLimits(root_count=0),
    ],
)
def test_sizes_are_bounded_before_parsing(publisher: Publisher, tmp_path: Path, limits: TrustLimits) -> None:
    """Nobody without a key may make a node parse much; the bytes here are garbage and are not looked at."""
    publisher.rotate("targets")
    trust = Trust(publisher.tuf_root, limits=limits)
    bulk = b"x" * 11
    metadata = TufMetadata(roots=[bulk], timestamp=bulk, snapshot=bulk, targets=bulk)

    assert refused(trust, metadata, bulk, None, tmp_path / "work") == tunnel.NACK_CODE_TOO_LARGE


def test_full_disk_is_not_taken_for_an_attack(publisher: Publisher, tmp_path: Path) -> None:
    """The operator should look at the disk and not at the keys."""
    trust = Trust(publisher.tuf_root)
    work = tmp_path / "no such folder" / "work"

    assert refused(trust, publisher.metadata(MANIFEST, 1), MANIFEST, None, work) == tunnel.NACK_CODE_STORAGE_FAILED


def test_redelegated_manifest_is_not_taken(publisher: Publisher, tmp_path: Path) -> None:
    """The manifest stands in targets itself; no delegated role speaks for the tenant."""
    helper = publisher.keys["targets"].public_key
    metadata = publisher.metadata(b"", 1, target="other")
    targets = Metadata[Targets].from_bytes(metadata.targets)
    role = DelegatedRole("helper", [helper.keyid], 1, terminating=False, paths=["*"])
    targets.signed.delegations = Delegations({helper.keyid: helper}, {"helper": role})
    targets.sign(publisher.keys["targets"])
    metadata.targets = targets.to_bytes()

    code = refused(Trust(publisher.tuf_root), metadata, MANIFEST, None, tmp_path / "work")

    assert code == tunnel.NACK_CODE_UNPARSABLE


GOOD = PUBLISHER.metadata(MANIFEST, 1)
PARTS = ("timestamp", "snapshot", "targets")
JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def mutate(data: bytes, at: int, change: int, cut: int | None) -> bytes:
    mutated = bytearray(data)
    mutated[at % len(data)] ^= change
    return bytes(mutated)[:cut]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    part=st.sampled_from(PARTS),
    garbage=st.binary(max_size=200)
    | JSON_LIKE.map(lambda value: repr(value).encode())
    | st.builds(mutate, st.just(GOOD.targets), st.integers(0), st.integers(1, 255), st.none() | st.integers(0, 900))
    | st.builds(mutate, st.just(GOOD.timestamp), st.integers(0), st.integers(1, 255), st.none() | st.integers(0, 500))
    | st.just(b"[" * 60_000)
    | st.just(b'{"signed":' * 1_500),
)
def test_garbage_is_refused_and_never_raises_otherwise(
    tmp_path_factory: pytest.TempPathFactory, part: str, garbage: bytes
) -> None:
    """An unforeseen exception in the parser of hostile bytes would be a way to stop a node."""
    metadata = TufMetadata()
    metadata.CopyFrom(GOOD)
    setattr(metadata, part, garbage)
    work = tmp_path_factory.mktemp("fuzz") / "work"

    code = refused(Trust(PUBLISHER.tuf_root), metadata, MANIFEST, None, work)

    assert code in {
        tunnel.NACK_CODE_UNPARSABLE,
        tunnel.NACK_CODE_SIGNATURE_INVALID,
        tunnel.NACK_CODE_DIGEST_MISMATCH,
        tunnel.NACK_CODE_TOO_LARGE,
        tunnel.NACK_CODE_ROLLBACK,
    }


def test_what_has_expired_is_said_by_the_nodes_clock(publisher: Publisher, tmp_path: Path) -> None:
    """python-tuf asks the machine by itself; a node of a simulation, or of a test, lives at another time."""

    class InAYear(SystemClock):
        def now(self) -> datetime:
            return days(365)

    metadata = publisher.metadata(MANIFEST, 1)
    later = Trust(publisher.tuf_root, clock=InAYear())

    assert refused(later, metadata, MANIFEST, None, tmp_path / "work") == tunnel.NACK_CODE_METADATA_EXPIRED
    Trust(publisher.tuf_root).check(metadata, MANIFEST, trusted=None, work=tmp_path / "work")
