"""Signing of revisions, judged by python-tuf's own client."""

import json
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadHTTPError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.ngclient import FetcherInterface, Updater

from control_plane.config import trust
from faos_core.errors import SetupError

NOW = datetime.now(UTC)


@dataclass
class Offer(FetcherInterface):
    """Serves what an offer carries from memory; everything else is not there."""

    files: dict[str, bytes] = field(default_factory=dict)

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = url.rsplit("/", 1)[-1]
        if name not in self.files:
            raise DownloadHTTPError("not in the offer", 404)
        yield self.files[name]


def offer(manifest, signed):
    return Offer(
        {
            "manifest": manifest,
            "timestamp.json": signed.timestamp,
            "snapshot.json": signed.snapshot,
            "targets.json": signed.targets,
        }
    )


def take(folder, root, files):
    """The TUF client workflow over the bytes of one offer, in a client's own folder."""
    folder.mkdir(exist_ok=True)
    (folder / "targets").mkdir(exist_ok=True)
    updater = Updater(str(folder), "memory:///", str(folder / "targets"), "memory:///", fetcher=files, bootstrap=root)
    info = updater.get_targetinfo(trust.TARGET_PATH)
    assert info is not None
    return Path(updater.download_target(info)).read_bytes()


@pytest.fixture
def keys(tmp_path):
    trust.create_tenant_keys(tmp_path / "keys" / "acme", now=NOW)
    return trust.load_tenant_keys(tmp_path / "keys" / "acme")


def sign(keys, manifest=b"manifest", revision=1, timestamp_version=1, now=NOW):
    return trust.sign_revision(keys, manifest=manifest, revision=revision, timestamp_version=timestamp_version, now=now)


def test_signed_revision_is_accepted(keys, tmp_path):
    """What we sign must pass the client that nodes use, from nothing but the pinned root."""
    assert take(tmp_path / "node", keys.root, offer(b"manifest", sign(keys))) == b"manifest"


def test_next_revision_is_accepted_by_a_client_that_has_the_first(keys, tmp_path):
    """Every later revision goes over what the node already trusts."""
    take(tmp_path / "node", keys.root, offer(b"one", sign(keys, b"one")))

    taken = take(tmp_path / "node", keys.root, offer(b"two", sign(keys, b"two", 2, 2)))

    assert taken == b"two"


def test_tampered_manifest_is_refused(keys, tmp_path):
    """A control plane that was broken into must not be able to change what was published."""
    with pytest.raises((LengthOrHashMismatchError, RepositoryError)):
        take(tmp_path / "node", keys.root, offer(b"manifesT", sign(keys)))


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_metadata_of_another_tenants_key_is_refused(keys, tmp_path, role):
    """Each role's key is pinned by the tenant's root: no other tenant's key can stand in for it."""
    trust.create_tenant_keys(tmp_path / "other", now=NOW)
    others = sign(trust.load_tenant_keys(tmp_path / "other"))
    files = offer(b"manifest", sign(keys))
    files.files[f"{role}.json"] = getattr(others, role)

    with pytest.raises((UnsignedMetadataError, LengthOrHashMismatchError)):
        take(tmp_path / "node", keys.root, files)


def test_publisher_cannot_be_replaced_by_online_key(keys, tmp_path):
    """Whoever holds only the online keys can withhold, never publish."""
    online_only = replace(keys, references={**keys.references, "targets": "file:snapshot.pem"})

    with pytest.raises(SetupError):
        sign(online_only)


def test_older_revision_is_refused(keys, tmp_path):
    """Rolling a node back to an old, valid revision would bring back what was fixed since."""
    old = sign(keys, b"old", 1, 1)
    take(tmp_path / "node", keys.root, offer(b"new", sign(keys, b"new", 2, 2)))

    with pytest.raises(BadVersionNumberError):
        take(tmp_path / "node", keys.root, offer(b"old", old))


def test_older_revision_under_a_fresh_timestamp_is_refused(keys, tmp_path):
    """A thief of the online keys can make new timestamps, but not roll back."""
    take(tmp_path / "node", keys.root, offer(b"new", sign(keys, b"new", 2, 2)))

    with pytest.raises(BadVersionNumberError):
        take(tmp_path / "node", keys.root, offer(b"old", sign(keys, b"old", 1, 3)))


def test_expired_timestamp_is_refused(keys, tmp_path):
    """A control plane that is held back must be noticed within a week."""
    stale = sign(keys, now=NOW - trust.TIMESTAMP_LIFETIME - timedelta(seconds=1))

    with pytest.raises(ExpiredMetadataError):
        take(tmp_path / "node", keys.root, offer(b"manifest", stale))


def test_resigned_timestamp_makes_an_old_revision_fresh(keys, tmp_path):
    """A tenant that changes nothing for months must still enrol new nodes."""
    old = sign(keys, now=NOW - timedelta(days=200))
    fresh = trust.resign_timestamp(keys, old.timestamp, timestamp_version=2, now=NOW)

    assert take(tmp_path / "node", keys.root, offer(b"manifest", replace(old, timestamp=fresh))) == b"manifest"
    assert trust.expires_at(fresh) == (NOW + trust.TIMESTAMP_LIFETIME).replace(microsecond=0)


def test_signing_is_a_pure_function_of_its_inputs(keys):
    """Two replicas that sign the same revision must not disagree (Ed25519 is deterministic)."""
    assert sign(keys) == sign(keys)


def test_key_files_are_readable_by_the_owner_only(keys):
    """A key that others on the machine can read is not a key."""
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in keys.directory.iterdir()}

    assert set(modes) == {"root.pem", "targets.pem", "snapshot.pem", "timestamp.pem", "keys.json", "1.root.json"}
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(keys.directory.stat().st_mode) == 0o700


def test_creating_keys_again_keeps_those_that_are_there(keys):
    """A retried tenant creation must not lock out the nodes that pinned the first root."""
    assert trust.create_tenant_keys(keys.directory, now=NOW + timedelta(days=1)) == keys.root


def test_root_key_is_not_needed_to_sign_a_revision(keys, tmp_path):
    """The root key must be able to leave the machine."""
    (keys.directory / "root.pem").unlink()

    assert take(tmp_path / "node", keys.root, offer(b"manifest", sign(keys))) == b"manifest"


@pytest.mark.parametrize("damage", ["missing", "garbage", "other key", "unknown scheme"])
def test_unusable_key_says_which(keys, damage):
    """An operator must learn which key of which tenant is gone, before anything is stored."""
    path = keys.directory / "snapshot.pem"
    if damage == "missing":
        path.unlink()
    elif damage == "garbage":
        path.write_bytes(b"not a key")
    elif damage == "other key":
        path.write_bytes((keys.directory / "timestamp.pem").read_bytes())
    else:
        references = {**keys.references, "snapshot": "nowhere:key"}
        (keys.directory / "keys.json").write_text(json.dumps(references))

    with pytest.raises(SetupError) as caught:
        sign(trust.load_tenant_keys(keys.directory))

    assert "snapshot" in caught.value.what
    assert str(keys.directory) in caught.value.why


def test_missing_key_folder_is_a_setup_error(tmp_path):
    """Half a restore from backup must say so, not crash."""
    with pytest.raises(SetupError):
        trust.load_tenant_keys(tmp_path)
