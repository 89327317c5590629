import threading
from pathlib import Path

import pytest

from data_plane.storage.errors import KEK_EXPOSED, KEK_MALFORMED, KEK_MISSING, KEK_UNREADABLE
from data_plane.storage.keys import SiteKey, keyed_hash, load_site_key
from faos_core.errors import SetupError
from faos_core.ids import TenantName


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "site.key"


def test_the_key_is_made_once_for_the_owner_alone(path: Path) -> None:
    """A second start with a fresh key would lose everything sealed by the first."""
    first = load_site_key(path, may_create=True)
    second = load_site_key(path, may_create=True)

    assert first.id == second.id
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_size == 32
    assert list(path.parent.iterdir()) == [path]


def test_starting_twice_at_once_agrees_on_one_key(path: Path) -> None:
    """Two processes at first start must not each keep their own key."""
    barrier = threading.Barrier(8)
    ids: list[bytes] = []

    def start() -> None:
        barrier.wait()
        ids.append(load_site_key(path, may_create=True).id)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(ids) == 8
    assert len(set(ids)) == 1


def test_a_missing_key_is_not_replaced_where_data_exists(path: Path) -> None:
    """Making a new one would hide the loss until the first read."""
    with pytest.raises(SetupError) as caught:
        load_site_key(path, may_create=False)

    assert caught.value.code is KEK_MISSING
    assert str(path) in caught.value.next_step
    assert not path.exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o777])
def test_a_key_that_others_can_reach_is_refused(path: Path, mode: int) -> None:
    """A readable key makes sealing worthless; the person must know at once, with the command that mends it."""
    load_site_key(path, may_create=True)
    path.chmod(mode)

    with pytest.raises(SetupError) as caught:
        load_site_key(path, may_create=True)

    assert caught.value.code is KEK_EXPOSED
    assert caught.value.next_step == f"chmod 600 {path}"


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 33])
def test_a_file_that_is_no_key_is_refused(path: Path, content: bytes) -> None:
    """A truncated restore must not become another key."""
    load_site_key(path, may_create=True)
    path.write_bytes(content)

    with pytest.raises(SetupError) as caught:
        load_site_key(path, may_create=True)

    assert caught.value.code is KEK_MALFORMED
    assert str(len(content)) in caught.value.why


def test_a_path_that_cannot_be_used_says_so(tmp_path: Path) -> None:
    """Not an OSError out of nowhere."""
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(SetupError) as caught:
        load_site_key(tmp_path / "file" / "site.key", may_create=True)

    assert caught.value.code is KEK_UNREADABLE


def test_a_site_key_does_not_print_its_secrets(path: Path) -> None:
    """Keys must not reach a log by accident."""
    key = SiteKey.of(b"q" * 32, path)

    assert repr(key.indexing) not in repr(key)
    assert "AESGCM" not in repr(key)


def test_subject_indexes_tell_tenants_and_subjects_apart(path: Path) -> None:
    """Equal indexes would let one tenant's erasure reach another's rows."""
    key = SiteKey.of(b"q" * 32, path)
    a, b = TenantName("a"), TenantName("ab")

    indexes = {
        key.subject_index(a, "bc"),
        key.subject_index(b, "c"),
        key.subject_index(a, ""),
        key.subject_index(b, ""),
    }

    assert len(indexes) == 4
    assert key.subject_index(a, "bc") == key.subject_index(a, "bc")
    assert key.subject_index(a, "bc") != SiteKey.of(b"r" * 32, path).subject_index(a, "bc")


def test_keyed_hash_does_not_confuse_parts() -> None:
    """("ab", "c") and ("a", "bc") are different things."""
    assert keyed_hash(b"k", b"ab", b"c") != keyed_hash(b"k", b"a", b"bc")
