"""Every kind of key that a publisher may have, through one suite: what it signs, nodes take."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from control_plane.config import trust
from data_plane.link.trust import Trust
from faos.tunnel.v1.tunnel_pb2 import TufMetadata
from faos_cli import key_references
from faos_cli.key_references import generate_file, open_key, pem_of, signing
from faos_core import publisher
from faos_core.errors import InvalidError, SetupError
from tests.servers import softhsm

HSM, PKCS11 = (pytest.param(kind, marks=pytest.mark.needs("softhsm")) for kind in ("hsm", "pkcs11"))
KINDS = ["ed25519", "p256", "encrypted", HSM, PKCS11]
NOW = datetime.now(UTC)


@pytest.fixture(autouse=True)
def forgotten_secrets() -> Iterator[None]:
    """Each test is a process of its own to whoever types a secret."""
    key_references.secret.cache_clear()
    yield
    key_references.secret.cache_clear()


@pytest.fixture(params=KINDS)
def reference(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Of a key that can be opened."""
    if request.param in ("hsm", "pkcs11"):
        with softhsm.token(tmp_path / "hsm") as token:
            monkeypatch.setenv("FAOS_KEY_PIN", token.pin)
            library = token.environment["PYKCS11LIB"]
            by_rfc = f"pkcs11:token={softhsm.TOKEN};id=%02?module-path={library}"
            yield token.reference if request.param == "hsm" else by_rfc
        return
    passphrase = "correct horse" if request.param == "encrypted" else ""
    monkeypatch.setenv("FAOS_KEY_PASSPHRASE", passphrase)
    generate_file(tmp_path / "key.pem", "p256" if request.param == "p256" else "ed25519", passphrase)
    yield f"file:{tmp_path / 'key.pem'}"


def test_nodes_take_what_it_signs(reference: str, tmp_path: Path) -> None:
    """A signature that only we can check is worth nothing: the node's own verifier decides."""
    key = open_key(reference)
    root = trust.create_tenant_keys(
        tmp_path / "keys", now=NOW, publisher_key=publisher.public_key_of(pem_of(key.public_key).encode())
    )
    with signing(reference):
        targets = publisher.sign_targets(key.signer, manifest=b"m", revision=1, now=NOW)
    keys = trust.load_tenant_keys(tmp_path / "keys")
    signed = trust.sign_revision(keys, manifest=b"m", revision=1, timestamp_version=1, now=NOW, signed_targets=targets)

    metadata = TufMetadata(timestamp=signed.timestamp, snapshot=signed.snapshot, targets=signed.targets)
    Trust(root).check(metadata, b"m", trusted=None, work=tmp_path / "work")

    assert (tmp_path / "work" / "targets.json").exists()


def test_it_can_be_the_roots_key(reference: str) -> None:
    """The last word about who publishes must be able to leave the control plane too."""
    key = open_key(reference)
    empty = publisher.next_root(first_root(), now=NOW, root_key=key.public_key)
    with signing(reference):
        root = publisher.with_signature(empty, key.signer)

    assert publisher.is_root_signed_by(key.public_key, root)
    assert not publisher.is_root_signed_by(key.public_key, empty)


def first_root() -> bytes:
    from securesystemslib.signer import CryptoSigner
    from tuf.api.metadata import Root

    signer = CryptoSigner.generate_ed25519()
    root = Root(expires=NOW + publisher.YEAR)
    for role in root.roles:
        root.add_key(signer.public_key, role)
    return publisher.signed(root, signer)


def test_its_id_is_the_same_each_time(reference: str) -> None:
    """Roots name keys by id; one that changed would lock its holder out."""
    assert open_key(reference).public_key == open_key(reference).public_key
    assert publisher.public_key_of(pem_of(open_key(reference).public_key).encode()) == open_key(reference).public_key


@pytest.mark.parametrize("reference", ["encrypted", HSM], indirect=True)
def test_wrong_secret_says_which(reference: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person who mistyped must not look for a broken key."""
    monkeypatch.setenv("FAOS_KEY_PIN", "99999")
    monkeypatch.setenv("FAOS_KEY_PASSPHRASE", "wrong")

    with pytest.raises(SetupError) as caught:  # noqa: PT012  # a token asks when it signs, a file when it is opened
        key = open_key(reference)
        with signing(reference):
            key.signer.sign(b"x")

    assert caught.value.code.code == "key.secret_wrong"


@pytest.mark.needs("softhsm")
@pytest.mark.parametrize(
    ("reference", "code", "why"),
    [
        ("hsm:9?label=faos-test", "key.unusable", "could not find ECDSA key"),
        ("hsm:2?label=elsewhere", "key.unusable", "No PKCS#11 token found for label elsewhere"),
        ("pkcs11:token=faos-test;id=%02?module-path=/nowhere.so", "key.module_missing", "/nowhere.so is not there"),
        ("hsm:two", "key.reference_malformed", "'two' is no number"),
        ("pkcs11:token=faos-test", "key.reference_malformed", "names no id"),
        ("pkcs11:token=t;id=%02;serial=1", "key.reference_malformed", "'serial'"),
        ("publisher.key", "key.reference_malformed", "names no scheme"),
        ("gcpkms:projects/x", "key.reference_malformed", "names it already"),
        ("file:/nowhere.key", "key.unusable", "FileNotFoundError"),
    ],
)
def test_what_is_missing_is_said(
    reference: str, code: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No token, no key, no library, no such form: each has another remedy."""
    with softhsm.token(tmp_path / "hsm") as token:
        monkeypatch.setenv("FAOS_KEY_PIN", token.pin)
        monkeypatch.setenv("PYKCS11LIB", token.environment["PYKCS11LIB"])  # put back when the reference changes it

        with pytest.raises((SetupError, InvalidError)) as caught:
            open_key(reference)

    assert caught.value.code.code == code
    assert why in caught.value.why


def test_library_that_is_not_named_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """PKCS#11 finds nothing by itself."""
    monkeypatch.delenv("PYKCS11LIB", raising=False)

    with pytest.raises(SetupError) as caught:
        open_key("hsm:2")

    assert caught.value.code.code == "key.module_missing"


def test_key_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    """It counts as known."""
    generate_file(tmp_path / "key.pem", "ed25519", "")
    (tmp_path / "key.pem").chmod(0o644)

    with pytest.raises(SetupError) as caught:
        open_key(f"file:{tmp_path / 'key.pem'}")

    assert caught.value.code.code == "key.file_open"


def test_key_file_is_never_overwritten(tmp_path: Path) -> None:
    """The only copy of a root's key may be in it."""
    generate_file(tmp_path / "key.pem", "ed25519", "")
    before = (tmp_path / "key.pem").read_bytes()

    with pytest.raises(Exception, match=r"key\.file_exists"):
        generate_file(tmp_path / "key.pem", "ed25519", "")

    assert (tmp_path / "key.pem").read_bytes() == before
