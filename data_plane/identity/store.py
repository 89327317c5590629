"""A node's identity on disk: `identity/` in the data folder, mode 0700.

node.key, node.pem, ca.pem   the key born here, its certificate, and the CA of the join string
root.json                    version 1 of the tenant's TUF root, as the join string pinned it
identity.json                written last: with it the enrolment is whole
epoch                        counts process starts
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from data_plane.identity.errors import ALREADY_JOINED, IDENTITY_DAMAGED, NOT_JOINED
from faos_core.disk import Disk
from faos_core.errors import ConflictError, IntegrityError, InvalidError, SetupError
from faos_core.ids import NodeIdentity
from tunnel.enrolment import Enrolled
from tunnel.tls import Credentials

FOLDER = "identity"


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

    def _read(self) -> Membership:
        facts = json.loads(self._bytes("identity.json"))
        credentials = Credentials(self._bytes("node.pem"), self._bytes("node.key"), self._bytes("ca.pem"))
        _check_pair(credentials)
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
