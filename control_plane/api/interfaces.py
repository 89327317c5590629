"""What the admin API needs of the areas behind it. Only app.py knows who implements these.

`actor` is who asks, as the audit log shall name them. A mutation writes its audit record
(control_plane.audit.service.record) in its own transaction.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, runtime_checkable

from control_plane.config.models import Prepared, Terms, Trust
from faos.resource.v1.resource_pb2 import Kind, ManifestEntry, Resource
from faos_core.ids import NodeIdentity


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call, and what they may do."""

    subject: str
    permissions: frozenset[str] | None  # None means every permission

    def may(self, permission: str) -> bool:
        return self.permissions is None or permission in self.permissions


class Authenticator(Protocol):
    """Knows callers by their bearer token."""

    async def authenticate(self, token: str) -> Caller:
        """Raises UnauthenticatedError for a token that is not, or no longer, good."""


class Change(Protocol):
    """What an apply does, or would do, to one resource."""

    @property
    def kind(self) -> Kind.ValueType: ...
    @property
    def name(self) -> str: ...
    @property
    def change(self) -> int:
        """A number of faos.admin.v1.ChangeType."""


class DetailedChange(Change, Protocol):
    """With what differs, when it is only asked about."""

    @property
    def fields(self) -> Sequence["FieldChange"]: ...
    @property
    def fields_truncated(self) -> bool: ...


class FieldChange(Protocol):
    """One field that differs. None: absent on that side."""

    @property
    def field_path(self) -> str: ...
    @property
    def before(self) -> str | None: ...
    @property
    def after(self) -> str | None: ...


class Applied(Protocol):
    """Answer of an apply, a delete or a rollback."""

    @property
    def revision(self) -> int:
        """That now stands; 0 while there is none."""

    @property
    def changes(self) -> Sequence[DetailedChange]: ...
    @property
    def affected_sites(self) -> Sequence[str]: ...
    @property
    def prepared(self) -> Prepared | None:
        """Of a request to prepare that changes something."""


class StoredResource(Protocol):
    """A resource as it stands."""

    @property
    def resource(self) -> Resource: ...
    @property
    def revision(self) -> int:
        """In which it last changed."""

    @property
    def apply_set(self) -> str:
        """Empty: of none."""

    @property
    def etag(self) -> str:
        """Another for other content."""


class Revision(Protocol):
    """One immutable version of all that a tenant declares."""

    @property
    def tenant(self) -> str: ...
    @property
    def number(self) -> int: ...
    @property
    def created_at(self) -> datetime: ...
    @property
    def author(self) -> str: ...
    @property
    def manifest_sha256(self) -> bytes: ...
    @property
    def changes(self) -> Sequence[Change]: ...
    @property
    def reason(self) -> str: ...
    @property
    def rollback_of(self) -> int:
        """Whose content it brought back; 0: none's."""


class Violation(Protocol):
    """One thing that is wrong with one resource."""

    @property
    def kind(self) -> Kind.ValueType: ...
    @property
    def name(self) -> str: ...
    @property
    def field_path(self) -> str:
        """As in YAML: "spec.tools[0]"."""

    @property
    def code(self) -> str: ...
    @property
    def message(self) -> str: ...


@runtime_checkable
class CarriesViolations(Protocol):
    """The InvalidError of an apply: everything that is wrong at once."""

    violations: Sequence[Violation]


class ConfigService(Protocol):
    """What tenants declare. Pages as in control_plane.db.paging."""

    async def apply(
        self,
        tenant: str,
        resources: Sequence[Resource],
        *,
        author: str,
        request_id: str,
        validate_only: bool,
        apply_set: str = "",
        prune: bool = False,
        reason: str = "",
        terms: Terms,
    ) -> Applied:
        """Raises: InvalidError with `violations` (CarriesViolations), NotFoundError (tenant), StaleError (terms)."""

    async def delete(
        self,
        tenant: str,
        keys: Sequence[tuple[Kind.ValueType, str]],
        *,
        author: str,
        request_id: str = "",
        validate_only: bool = False,
        reason: str = "",
        terms: Terms,
    ) -> Applied:
        """Raises: InvalidError with `violations` of those who refer to them, NotFoundError (tenant, resource),
        StaleError (terms)."""

    async def rollback(
        self,
        tenant: str,
        number: int,
        *,
        author: str,
        request_id: str = "",
        validate_only: bool = False,
        reason: str = "",
        terms: Terms,
    ) -> Applied:
        """Raises: NotFoundError (tenant, revision), InvalidError with `violations`, StaleError (terms)."""

    async def entries(self, tenant: str, number: int) -> Sequence[ManifestEntry]:
        """Of the manifest of a revision. Raises NotFoundError."""

    async def get_resource(self, tenant: str, kind: Kind.ValueType, name: str) -> StoredResource:
        """Raises NotFoundError."""

    async def list_resources(
        self, tenant: str, kind: Kind.ValueType, *, page_size: int, page_token: str
    ) -> tuple[Sequence[StoredResource], str]:
        """kind: KIND_UNSPECIFIED means every kind. Raises NotFoundError (tenant)."""

    async def list_revisions(self, tenant: str, *, page_size: int, page_token: str) -> tuple[Sequence[Revision], str]:
        """Newest first. Raises NotFoundError (tenant)."""

    async def get_revision(self, tenant: str, number: int) -> Revision:
        """Raises NotFoundError."""


class Rotated(Protocol):
    """What stands after the root was rotated."""

    @property
    def root_version(self) -> int: ...
    @property
    def revision(self) -> int: ...


class TrustService(Protocol):
    """Who may sign for a tenant."""

    async def get(self, tenant: str) -> Trust:
        """Raises NotFoundError."""

    async def rotate(self, tenant: str, root: bytes, *, signed_targets: bytes, actor: str) -> Rotated:
        """Raises: InvalidError, StaleError, NotFoundError (tenant), SetupError (keys)."""


class JoinToken(Protocol):
    """A join token without its secret."""

    @property
    def id(self) -> str: ...
    @property
    def tenant(self) -> str: ...
    @property
    def site(self) -> str: ...
    @property
    def labels(self) -> Mapping[str, str]: ...
    @property
    def created_at(self) -> datetime: ...
    @property
    def expires_at(self) -> datetime: ...
    @property
    def used_at(self) -> datetime | None: ...
    @property
    def used_by_node(self) -> str:
        """Empty: by none yet."""


class JoinTokens(Protocol):
    """Makes and lists join tokens."""

    async def create(
        self, *, actor: str, tenant: str, site: str, labels: Mapping[str, str], ttl_s: int, addresses: Sequence[str]
    ) -> tuple[JoinToken, str]:
        """The token and its join string, which is shown this once.

        ttl_s: 0 means 3600, at most 604800. addresses: empty means those of the settings.
        Raises: NotFoundError (tenant, site), InvalidError.
        """

    async def list(self, *, tenant: str, page_size: int, page_token: str) -> tuple[Sequence[JoinToken], str]:
        """Newest first."""


class Standings(Protocol):
    """What an operator does to a node."""

    async def revoke(self, tenant: str, name: str, *, reason: str, actor: str) -> None:
        """Ban it; its streams are cut before this returns. Raises NotFoundError, InvalidError."""

    async def evict(self, tenant: str, name: str, *, actor: str) -> None:
        """Forget it; its streams are cut before this returns. Raises NotFoundError."""

    async def readmit(self, tenant: str, name: str, *, reason: str, actor: str) -> None:
        """End its quarantine and its alarm. Raises NotFoundError, InvalidError, DeniedError (it is revoked)."""


class Sessions(Protocol):
    """The open sessions, of this process and of others over the same database."""

    def is_live(self, identity: NodeIdentity, *, connected_to: str, last_seen_at: datetime | None) -> bool:
        """Whether a session of the node is open and its heartbeats arrive. The other two: as the database has them."""


class Push(Protocol):
    """An offer to a node, and what became of it."""

    @property
    def revision(self) -> int: ...
    @property
    def state(self) -> int:
        """A number of faos.tunnel.v1.ApplyState: as the node last reported it."""

    @property
    def duration_s(self) -> float | None:
        """None: under way."""


class Metering(Protocol):
    """What this process counts and measures."""

    def text(self) -> str:
        """In Prometheus' text format."""

    def sessions(self) -> int: ...

    def pushes(self) -> Mapping[NodeIdentity, Push]:
        """The latest push to each node that this process knows of."""


FingerprintWords = Callable[[bytes], Sequence[str]]
"""The words that a node's own side shows, from the SHA-256 of its public key (SubjectPublicKeyInfo, DER)."""
