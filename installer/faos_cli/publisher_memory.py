"""What this machine has seen of the revisions that a key signs: a small file of the user's, mode 0600.

A control plane that shows an older revision than it did before was restored from a backup, or keeps the newer one back;
one that shows another first root is not the one that it was. Either way a person must look before a key signs.

    {"KEYID/TENANT": {"root_sha256": "…", "revision": 7, "manifest_sha256": "…"}}
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from faos_cli.errors import MEMORY_UNUSABLE
from faos_cli.key_errors import OTHER_TENANT, SEEN_NEWER
from faos_cli.prepared import Known
from faos_core.disk import Disk
from faos_core.errors import IntegrityError, SetupError

FILE_NAME = "published.json"


@dataclass(frozen=True, slots=True)
class PublisherMemory:
    """Of one user on one machine."""

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

    def remember(self, keyid: str, tenant: str, *, first_root: bytes, revision: int, manifest_sha256: bytes) -> None:
        """Whole or not at all. Raises OSError, SetupError."""
        seen = {
            "root_sha256": sha256(first_root).hexdigest(),
            "revision": revision,
            "manifest_sha256": manifest_sha256.hex(),
        }
        everything = self._read() | {f"{keyid}/{tenant}": seen}
        Disk().make_folder(self.file.parent)
        Disk().put(self.file.parent, {self.file.name: (json.dumps(everything, indent=1) + "\n").encode()})

    def _read(self) -> dict[str, Any]:
        try:
            everything = json.loads(self.file.read_bytes())
            _ = {each["root_sha256"] + each["manifest_sha256"]: int(each["revision"]) for each in everything.values()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError, LookupError) as error:
            raise SetupError(MEMORY_UNUSABLE, file=self.file, reason=type(error).__name__) from error
        return dict(everything)
