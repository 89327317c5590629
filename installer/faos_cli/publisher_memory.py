"""What this machine has seen of the revisions that a key signs: a small file of the user's, mode 0600.

A control plane that shows an older revision than it did before was restored from a backup, or keeps the newer one back;
one that shows another first root is not the one that it was. Either way a person must look before a key signs.

    {"KEYID/TENANT": {"root_sha256": "…", "revision": 7, "manifest_sha256": "…"}}
"""

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from faos_cli.errors import MEMORY_UNUSABLE
from faos_cli.failures import warn
from faos_cli.key_errors import MEMORY_NOT_KEPT, OTHER_TENANT, SEEN_NEWER
from faos_cli.prepared import Known
from faos_core.disk import Disk
from faos_core.errors import IntegrityError, SetupError

FILE_NAME = "published.json"


@dataclass(frozen=True, slots=True)
class PublisherMemory:
    """Of one user on one machine. Any number of commands may use it at once."""

    file: Path

    @classmethod
    def of_user(cls, environment: Mapping[str, str]) -> "PublisherMemory":
        base = environment.get("XDG_STATE_HOME")
        return cls((Path(base) if base else Path.home() / ".local" / "state") / "faos" / FILE_NAME)

    def check(self, keyid: str, tenant: str, *, first_root: bytes, base: Known) -> None:
        """That what stands is not older than what stood. Raises IntegrityError, SetupError (the file)."""
        seen = self._read().get(f"{keyid}/{tenant}")
        if seen is None:
            return
        if seen["root_sha256"] != sha256(first_root).hexdigest():
            raise IntegrityError(OTHER_TENANT, tenant=tenant, file=self.file)
        same = base.revision != seen["revision"] or base.sha256.hex() == seen["manifest_sha256"]
        if base.revision < seen["revision"] or not same:
            facts = {"number": base.revision, "seen": seen["revision"], "tenant": tenant}
            raise IntegrityError(SEEN_NEWER, **facts, file=self.file)

    def require_usable(self) -> None:
        """Raises SetupError: asked before something stands that is to be remembered."""
        self._read()

    def remember(self, keyid: str, tenant: str, *, first_root: bytes, revision: int, manifest_sha256: bytes) -> None:
        """Whole or not at all; what is newer already, by another command, stays. Raises OSError, SetupError."""
        seen = {
            "root_sha256": sha256(first_root).hexdigest(),
            "revision": revision,
            "manifest_sha256": manifest_sha256.hex(),
        }
        Disk().make_folder(self.file.parent)
        with self._alone():
            everything = self._read()
            before = everything.get(f"{keyid}/{tenant}", seen)
            if before["root_sha256"] == seen["root_sha256"] and before["revision"] > revision:
                return
            everything[f"{keyid}/{tenant}"] = seen
            Disk().put(self.file.parent, {self.file.name: (json.dumps(everything, indent=1) + "\n").encode()})

    def keep(self, keyid: str, tenant: str, what: str, **seen: Any) -> None:
        """As `remember`, for what stands at the control plane already: that it does is no failure of the command, so
        that what could not be written is only said, and the exit code is that of what was asked for.

        what: for a person, "Revision 7".
        """
        try:
            self.remember(keyid, tenant, **seen)
        except (OSError, SetupError) as error:
            reason = (error.strerror or type(error).__name__) if isinstance(error, OSError) else error.why.rstrip(".")
            warn(SetupError(MEMORY_NOT_KEPT, what=what, file=self.file, reason=reason, folder=self.file.parent))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Of all commands of this user; the lock goes with the process, however that ends."""
        with self.file.with_name(f"{self.file.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _read(self) -> dict[str, Any]:
        try:
            everything = json.loads(self.file.read_bytes())
            _ = {each["root_sha256"] + each["manifest_sha256"]: int(each["revision"]) for each in everything.values()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError, LookupError) as error:
            raise SetupError(MEMORY_UNUSABLE, file=self.file, reason=type(error).__name__) from error
        return dict(everything)
