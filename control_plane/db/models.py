"""The control plane's tables: SQLAlchemy Core on one MetaData, the same on SQLite and PostgreSQL.

Numbers of protobuf enums (kind, state, nack code) are stored as the numbers they travel as. Digests are 32 raw
bytes. Times are aware UTC. No column holds customer content: what a node reports are numbers and names of the
tenant's own resources. Every statement about a tenant's rows names the tenant.
"""

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    Dialect,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
)
from sqlalchemy.types import TypeDecorator


class UtcDateTime(TypeDecorator[datetime]):
    """Aware datetimes in, aware UTC datetimes out, on engines that keep zones and on those that do not.

    Raises ValueError (within SQLAlchemy's StatementError) for a naive datetime: its zone would be a guess.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone cannot be stored")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


NAME = String(63)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    }
)


def _nack_columns() -> list[Column[object]]:
    """Why a revision did not become healthy; all null unless the state is REJECTED or ROLLED_BACK."""
    return [
        Column("nack_failed_to_reach", Integer),
        Column("nack_code", Integer),
        Column("nack_kind", Integer),
        Column("nack_resource_name", NAME),
        Column("nack_field_path", JSON(none_as_null=True)),  # list of numbers: fields from Resource down, and indexes
    ]


tenants = Table(
    "tenants",
    metadata,
    Column("name", NAME, primary_key=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("tuf_root", LargeBinary, nullable=False),  # version 1 of the tenant's TUF root, as signed
)

sites = Table(
    "sites",
    metadata,
    Column("tenant", NAME, primary_key=True),
    Column("name", NAME, primary_key=True),
    Column("labels", JSON, nullable=False),  # {label: value}
    Column("created_at", UtcDateTime, nullable=False),
    ForeignKeyConstraint(["tenant"], ["tenants.name"]),
)

nodes = Table(
    "nodes",
    metadata,
    Column("tenant", NAME, primary_key=True),
    Column("name", NAME, primary_key=True),
    Column("site", NAME, nullable=False),
    Column("spiffe_id", String(255), nullable=False, unique=True),
    Column("labels", JSON, nullable=False),  # as enrolled; what selectors match
    Column("enrolled_at", UtcDateTime, nullable=False),
    Column("last_seen_at", UtcDateTime),  # null: never connected
    Column("version", String(64), nullable=False, default=""),
    Column("public_key_sha256", LargeBinary, nullable=False),  # of the SubjectPublicKeyInfo, DER
    Column("certificate_serial", String(40), nullable=False),  # lower-case hex
    Column("certificate_expires_at", UtcDateTime, nullable=False),
    Column("pending_serial", String(40)),  # of a renewed certificate that no session has used yet; null: none
    Column("pending_expires_at", UtcDateTime),
    Column("pending_key_sha256", LargeBinary),
    Column("recovery_serial", String(40)),  # null: cannot recover after expiry
    Column("recovery_key_sha256", LargeBinary),
    Column("recovery_counter", BigInteger, nullable=False, default=0, server_default="0"),  # last one used
    Column("standing", Integer, nullable=False, default=1, server_default="1"),  # NodeStanding
    Column("standing_reason", String(255), nullable=False, default="", server_default=""),
    Column("alarm", String(63), nullable=False, default="", server_default=""),  # a code of the registry
    Column("connected_to", String(32), nullable=False, default="", server_default=""),  # control plane; empty: none
    Column("boot_id", LargeBinary),
    Column("epoch", BigInteger, nullable=False, default=0),  # process starts of the node; never falls
    Column("ledger_size", BigInteger, nullable=False, default=0),  # highest head that the node showed
    Column("ledger_root", LargeBinary),
    Column("attempted_revision", BigInteger, nullable=False, default=0),
    Column("running_revision", BigInteger, nullable=False, default=0),
    Column("healthy_revision", BigInteger, nullable=False, default=0),
    Column("state", Integer, nullable=False, default=0),  # ApplyState of the attempted revision
    *_nack_columns(),
    Column("status_at", UtcDateTime),  # when the node last reported a state
    Column("active_runs", BigInteger, nullable=False, default=0),
    Column("finished_runs", BigInteger, nullable=False, default=0),
    Column("event_epoch", BigInteger, nullable=False, default=0, server_default="0"),  # key of the newest event; all
    Column("event_sequence", BigInteger, nullable=False, default=0, server_default="0"),  # before it came, or is lost
    Column("event_count", BigInteger, nullable=False, default=0, server_default="0"),  # ever received
    Column("lost_event_count", BigInteger, nullable=False, default=0, server_default="0"),
    ForeignKeyConstraint(["tenant", "site"], ["sites.tenant", "sites.name"]),
    Index(None, "tenant", "site"),
)

# What became of each revision offered to a node: one row per revision, its newest status; of the newest revisions
# (control_plane/db/retention.py).
node_config_status = Table(
    "node_config_status",
    metadata,
    Column("tenant", NAME, primary_key=True),
    Column("node", NAME, primary_key=True),
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("state", Integer, nullable=False),
    *_nack_columns(),
    Column("at", UtcDateTime, nullable=False),
    ForeignKeyConstraint(["tenant", "node"], ["nodes.tenant", "nodes.name"]),
    Index(None, "tenant", "revision"),
)

# What happened at nodes, each once; the newest of each node (control_plane/fleet/events.py).
node_events = Table(
    "node_events",
    metadata,
    Column("tenant", NAME, primary_key=True),
    Column("node", NAME, primary_key=True),
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("received_at_us", BigInteger, nullable=False),  # microseconds since 1970, UTC
    Column("body", LargeBinary, nullable=False),  # faos.tunnel.v1.Event
    ForeignKeyConstraint(["tenant", "node"], ["nodes.tenant", "nodes.name"]),
    Index(None, "tenant", "received_at_us"),
)

# Those that can be used, and for a time after their end (control_plane/db/retention.py).
join_tokens = Table(
    "join_tokens",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("tenant", NAME, nullable=False),
    Column("site", NAME, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("secret_sha256", LargeBinary, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("used_at", UtcDateTime),  # null: not used yet
    Column("used_by_node", NAME),
    ForeignKeyConstraint(["tenant", "site"], ["sites.tenant", "sites.name"]),
    Index(None, "tenant"),
)

# Serialised resources, and whatever else is fetched by digest. Content-addressed, so never updated.
blobs = Table(
    "blobs",
    metadata,
    Column("tenant", NAME, primary_key=True),
    Column("sha256", LargeBinary, primary_key=True),
    Column("data", LargeBinary, nullable=False),
    ForeignKeyConstraint(["tenant"], ["tenants.name"]),
)

# What the tenant declares now; the body is the blob of that digest.
resources = Table(
    "resources",
    metadata,
    Column("tenant", NAME, primary_key=True),
    Column("kind", Integer, primary_key=True, autoincrement=False),
    Column("name", NAME, primary_key=True),
    Column("sha256", LargeBinary, nullable=False),
    Column("revision", BigInteger, nullable=False),  # in which it last changed
    ForeignKeyConstraint(["tenant", "sha256"], ["blobs.tenant", "blobs.sha256"]),
)

# Which set a resource was last applied with. Outlives the resource, so that a rollback brings it back into its set.
apply_set_members = Table(
    "apply_set_members",
    metadata,
    Column("tenant", NAME, primary_key=True),
    Column("kind", Integer, primary_key=True, autoincrement=False),
    Column("name", NAME, primary_key=True),
    Column("apply_set", NAME, nullable=False),
    ForeignKeyConstraint(["tenant"], ["tenants.name"]),
)

revisions = Table(
    "revisions",
    metadata,
    Column("tenant", NAME, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),  # from 1, without gaps
    Column("created_at", UtcDateTime, nullable=False),
    Column("author", String(255), nullable=False),
    Column("manifest", LargeBinary, nullable=False),  # the TUF target, as signed
    Column("manifest_sha256", LargeBinary, nullable=False),
    Column("reason", String(1000)),  # what the author said; null: nothing
    Column("rollback_of", BigInteger),  # revision whose content this brought back; null: none
    Column("traceparent", String(55)),  # W3C trace context of the change; null: none
    ForeignKeyConstraint(["tenant"], ["tenants.name"]),
)

revision_changes = Table(
    "revision_changes",
    metadata,
    Column("tenant", NAME, primary_key=True),
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", Integer, primary_key=True, autoincrement=False),
    Column("name", NAME, primary_key=True),
    Column("change", Integer, nullable=False),  # ChangeType
    ForeignKeyConstraint(["tenant", "revision"], ["revisions.tenant", "revisions.number"]),
)

# Every version of every signed role; of timestamps the newest (control_plane/db/retention.py).
tuf_metadata = Table(
    "tuf_metadata",
    metadata,
    Column("tenant", NAME, primary_key=True),
    Column("role", String(32), primary_key=True),  # root, timestamp, snapshot, targets
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("data", LargeBinary, nullable=False),
    ForeignKeyConstraint(["tenant"], ["tenants.name"]),
)

# Answers of mutations by request_id: the same id gets the same answer, for a time (control_plane/db/retention.py).
requests = Table(
    "requests",
    metadata,
    Column("tenant", NAME, primary_key=True),
    Column("request_id", String(128), primary_key=True),
    Column("response", LargeBinary, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Index(None, "tenant", "at"),
)

# Append-only; each leaf covers its row and the leaf before (control_plane/audit/service.py).
audit_records = Table(
    "audit_records",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),  # from 1, without gaps
    Column("at", UtcDateTime, nullable=False),
    Column("actor", String(255), nullable=False),
    Column("action", String(255), nullable=False),  # full RPC name, or an action of the control plane itself
    Column("tenant", String(255), nullable=False),  # as asked for, which need not exist; empty: no one tenant
    Column("target", String(255), nullable=False),
    Column("outcome", String(32), nullable=False),  # a gRPC status name
    Column("leaf_sha256", LargeBinary, nullable=False),
    Index(None, "tenant", "sequence"),
)
