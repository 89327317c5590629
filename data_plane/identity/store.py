"""A node's identity on disk: `identity/` in the data folder, mode 0700.

node.key, node.pem, ca.pem   the key born here, its certificate, and the CA of the join string
root.json                    version 1 of the tenant's TUF root, as the join string pinned it
identity.json                written last: with it the enrolment is whole
epoch                        counts process starts
next.pair                    key and certificate of a renewal that no session has used yet
node.pair                    those that one has used; then node.key and node.pem are history
recovery.pem                 opens nothing but Recover; its key and its counter lie beside `identity/`, so that a
                             machine that joins again is known by it
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from data_plane.identity.errors import ALREADY_JOINED, IDENTITY_DAMAGED, NOT_JOINED
from faos_core.disk import Disk
from faos_core.errors import ConflictError, IntegrityError, InvalidError, SetupError
from faos_core.ids import NodeIdentity
from tunnel.enrolment import Enrolled
from tunnel.identity import key_pem, load_key, new_key
from tunnel.tls import Credentials

FOLDER = "identity"
RECOVERY_KEY, RECOVERY_COUNTER = "recovery.key", "recovery.counter"


@dataclass(frozen=True, slots=True)
class Membership:
    """What a node is: the outcome of its enrolment."""

    identity: NodeIdentity
    addresses: tuple[str, ...]
    labels: Mapping[str, str]
    words: tuple[str, ...]
    credentials: Credentials
    ca_der: bytes
    tuf_root: bytes


class IdentityStore:
    """Blocking; a handful of small files."""

    def __init__(self, data_dir: Path, disk: Disk | None = None) -> None:
        self.folder = data_dir / FOLDER
        self._data_dir = data_dir
        self._disk = disk or Disk()

    def is_joined(self) -> bool:
        return (self.folder / "identity.json").exists()

    def refuse_second(self) -> None:
        """Raises ConflictError when there is an identity already."""
        if self.is_joined():
            identity = self.load().identity
            raise ConflictError(ALREADY_JOINED, node=identity.node, site=identity.site)

    def keep(self, enrolled: Enrolled, addresses: tuple[str, ...]) -> Membership:
        """Make an enrolment durable; a crash in between leaves no identity."""
        facts = {
            "spiffe_id": enrolled.identity.spiffe_id,
            "addresses": addresses,
            "labels": enrolled.labels,
            "words": enrolled.words,
        }
        self._disk.make_folder(self.folder)
        files = {
            "node.key": enrolled.credentials.key_pem,
            "node.pem": enrolled.credentials.chain_pem,
            "ca.pem": enrolled.credentials.ca_pem,
            "root.json": enrolled.tuf_root,
            "recovery.pem": enrolled.recovery_chain_pem,
            "identity.json": json.dumps(facts, indent=1).encode(),
        }
        self._disk.put(self.folder, files)
        return self.load()

    def load(self) -> Membership:
        """Raises SetupError (never joined), IntegrityError (damaged)."""
        if not self.is_joined():
            raise SetupError(NOT_JOINED, directory=self.folder)
        try:
            return self._read()
        except (OSError, ValueError, KeyError, InvalidError) as error:
            raise IntegrityError(IDENTITY_DAMAGED, directory=self.folder, reason=type(error).__name__) from error

    def next_epoch(self) -> int:
        """One more than at the last start; durable before it returns."""
        file = self.folder / "epoch"
        epoch = int(file.read_text()) + 1 if file.exists() else 1
        self._disk.put(self.folder, {"epoch": str(epoch).encode()})
        return epoch

    def load_next(self) -> Credentials | None:
        """The renewed pair that no session has used yet; None without one. A damaged one counts as none."""
        try:
            return self._pair("next.pair")
        except (OSError, ValueError):
            return None

    def put_next(self, credentials: Credentials) -> None:
        """Durable when it returns; whole or absent after a crash."""
        self._disk.put(self.folder, {"next.pair": credentials.key_pem + credentials.chain_pem})

    def promote(self) -> None:
        """The next pair is the current one from now on."""
        self._disk.rename(self.folder / "next.pair", self.folder / "node.pair")
        self._disk.sync_folder(self.folder)

    def discard_next(self) -> None:
        self._disk.remove(self.folder / "next.pair")

    def recovery_key(self) -> ec.EllipticCurvePrivateKey:
        """This machine's recovery key; made once, and kept when it joins again. Raises ValueError when damaged."""
        file = self._data_dir / RECOVERY_KEY
        if not file.exists():
            self._disk.make_folder(self._data_dir)
            self._disk.put_new(file, key_pem(new_key()))
        return load_key(file.read_bytes())

    def recovery(self) -> Credentials | None:
        """None for a node that joined before there was recovery, or lost its key."""
        chain, key = self.folder / "recovery.pem", self._data_dir / RECOVERY_KEY
        if not chain.exists() or not chain.read_bytes() or not key.exists():
            return None
        return Credentials(chain.read_bytes(), key.read_bytes(), self._bytes("ca.pem"))

    def next_recovery_counter(self) -> int:
        """One more than was ever used; durable before it returns."""
        file = self._data_dir / RECOVERY_COUNTER
        counter = int(file.read_text()) + 1 if file.exists() else 1
        self._disk.put(self._data_dir, {RECOVERY_COUNTER: str(counter).encode()})
        return counter

    def _pair(self, name: str) -> Credentials:
        pem = self._bytes(name)
        at = pem.index(b"-----BEGIN CERTIFICATE-----")
        credentials = Credentials(pem[at:], pem[:at], self._bytes("ca.pem"))
        _check_pair(credentials)
        return credentials

    def _credentials(self) -> Credentials:
        if (self.folder / "node.pair").exists():
            return self._pair("node.pair")
        credentials = Credentials(self._bytes("node.pem"), self._bytes("node.key"), self._bytes("ca.pem"))
        _check_pair(credentials)
        return credentials

    def _read(self) -> Membership:
        facts = json.loads(self._bytes("identity.json"))
        credentials = self._credentials()
        ca = x509.load_pem_x509_certificate(credentials.ca_pem)
        return Membership(
            identity=NodeIdentity.parse(facts["spiffe_id"]),
            addresses=tuple(facts["addresses"]),
            labels=facts["labels"],
            words=tuple(facts["words"]),
            credentials=credentials,
            ca_der=ca.public_bytes(serialization.Encoding.DER),
            tuf_root=self._bytes("root.json"),
        )

    def _bytes(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()


def _check_pair(credentials: Credentials) -> None:
    """A node whose certificate or key cannot be used would dial for ever and never say why. Raises ValueError."""
    certificate = x509.load_pem_x509_certificates(credentials.chain_pem)[0]
    key = serialization.load_pem_private_key(credentials.key_pem, password=None)
    if key.public_key() != certificate.public_key():
        raise ValueError("the certificate is for another key")
