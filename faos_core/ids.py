"""Names and identities that both planes share.

Sources: SPIFFE-ID 1.0 section 2 (the URI); RFC 1123 section 2.1 (labels).
"""

import re
import secrets
import time
from dataclasses import dataclass
from typing import NewType

from faos_core.errors import InvalidError, define

TenantName = NewType("TenantName", str)
SiteName = NewType("SiteName", str)
NodeName = NewType("NodeName", str)
RunId = NewType("RunId", str)

NAME_PATTERN = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
TRUST_DOMAIN = "faos.internal"

NAME_MALFORMED = define(
    "name.malformed",
    what="{name!r} is not a name.",
    why="Names are 1 to 63 of a-z, 0-9 and '-', and begin and end with a letter or digit.",
    next_step="Choose a name such as 'ward-3'.",
)
SPIFFE_MALFORMED = define(
    "spiffe_id.malformed",
    what="The certificate does not name a node of this trust domain.",
    why="Expected spiffe://<trust-domain>/tenant/<t>/site/<s>/node/<n>.",
    next_step="Enrol the node again: faos join STRING.",
)


def check_name(name: str) -> str:
    """The name itself. Raises InvalidError for one that is malformed."""
    if not NAME_PATTERN.fullmatch(name):
        raise InvalidError(NAME_MALFORMED, name=name[:80])
    return name


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """Who a node is; what its certificate says."""

    tenant: TenantName
    site: SiteName
    node: NodeName

    @property
    def spiffe_id(self) -> str:
        return f"spiffe://{TRUST_DOMAIN}/tenant/{self.tenant}/site/{self.site}/node/{self.node}"

    @property
    def recovery_id(self) -> str:
        """What its recovery certificate says; no node's SPIFFE ID, so it opens nothing that a node's does."""
        return f"spiffe://{TRUST_DOMAIN}/tenant/{self.tenant}/site/{self.site}/recovery/{self.node}"

    @classmethod
    def parse(cls, spiffe_id: str) -> "NodeIdentity":
        """Inverse of `spiffe_id`. Raises InvalidError for anything else, other trust domains included."""
        prefix = f"spiffe://{TRUST_DOMAIN}/"
        parts = spiffe_id.removeprefix(prefix).split("/")
        shaped = spiffe_id.startswith(prefix) and len(parts) == 6 and parts[0::2] == ["tenant", "site", "node"]
        if not shaped or not all(NAME_PATTERN.fullmatch(name) for name in parts[1::2]):
            raise InvalidError(SPIFFE_MALFORMED)
        return cls(TenantName(parts[1]), SiteName(parts[3]), NodeName(parts[5]))


def parse_recovery_id(uri: str) -> NodeIdentity:
    """Inverse of `recovery_id`. Raises InvalidError for anything else, a node's own SPIFFE ID included."""
    head, marker, node = uri.rpartition("/recovery/")
    if not marker:
        raise InvalidError(SPIFFE_MALFORMED)
    return NodeIdentity.parse(f"{head}/node/{node}")


def new_id(prefix: str) -> str:
    """A fresh id, "<prefix>-<12 hex of milliseconds><12 hex random>": ids of one prefix sort by time of making."""
    return f"{prefix}-{time.time_ns() // 1_000_000:012x}{secrets.token_hex(6)}"
