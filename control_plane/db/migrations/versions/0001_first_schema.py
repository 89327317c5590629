"""The first schema: tenants, sites, nodes, join tokens, signed configuration, requests and audit."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit_records",
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.String(length=255), nullable=False),
        sa.Column("action", sa.String(length=255), nullable=False),
        sa.Column("tenant", sa.String(length=255), nullable=False),
        sa.Column("target", sa.String(length=255), nullable=False),
        sa.Column("outcome", sa.String(length=32), nullable=False),
        sa.Column("leaf_sha256", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_audit_records")),
    )
    op.create_index(op.f("ix_audit_records_tenant_sequence"), "audit_records", ["tenant", "sequence"], unique=False)
    op.create_table(
        "requests",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("request_id", sa.String(length=128), nullable=False),
        sa.Column("response", sa.LargeBinary(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "request_id", name=op.f("pk_requests")),
    )
    op.create_table(
        "tenants",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tuf_root", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_tenants")),
    )
    op.create_table(
        "blobs",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.name"], name=op.f("fk_blobs_tenant")),
        sa.PrimaryKeyConstraint("tenant", "sha256", name=op.f("pk_blobs")),
    )
    op.create_table(
        "revisions",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("author", sa.String(length=255), nullable=False),
        sa.Column("manifest", sa.LargeBinary(), nullable=False),
        sa.Column("manifest_sha256", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.name"], name=op.f("fk_revisions_tenant")),
        sa.PrimaryKeyConstraint("tenant", "number", name=op.f("pk_revisions")),
    )
    op.create_table(
        "sites",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.name"], name=op.f("fk_sites_tenant")),
        sa.PrimaryKeyConstraint("tenant", "name", name=op.f("pk_sites")),
    )
    op.create_table(
        "tuf_metadata",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("role", sa.String(length=32), nullable=False),
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.name"], name=op.f("fk_tuf_metadata_tenant")),
        sa.PrimaryKeyConstraint("tenant", "role", "version", name=op.f("pk_tuf_metadata")),
    )
    op.create_table(
        "join_tokens",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("site", sa.String(length=63), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("secret_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("used_by_node", sa.String(length=63), nullable=True),
        sa.ForeignKeyConstraint(
            ["tenant", "site"], ["sites.tenant", "sites.name"], name=op.f("fk_join_tokens_tenant_site")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_join_tokens")),
    )
    op.create_index(op.f("ix_join_tokens_tenant"), "join_tokens", ["tenant"], unique=False)
    op.create_table(
        "nodes",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("site", sa.String(length=63), nullable=False),
        sa.Column("spiffe_id", sa.String(length=255), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("enrolled_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("public_key_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("certificate_serial", sa.String(length=40), nullable=False),
        sa.Column("certificate_expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("boot_id", sa.LargeBinary(), nullable=True),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("ledger_size", sa.BigInteger(), nullable=False),
        sa.Column("ledger_root", sa.LargeBinary(), nullable=True),
        sa.Column("attempted_revision", sa.BigInteger(), nullable=False),
        sa.Column("running_revision", sa.BigInteger(), nullable=False),
        sa.Column("healthy_revision", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("nack_failed_to_reach", sa.Integer(), nullable=True),
        sa.Column("nack_code", sa.Integer(), nullable=True),
        sa.Column("nack_kind", sa.Integer(), nullable=True),
        sa.Column("nack_resource_name", sa.String(length=63), nullable=True),
        sa.Column("nack_field_path", sa.JSON(), nullable=True),
        sa.Column("status_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("active_runs", sa.BigInteger(), nullable=False),
        sa.Column("finished_runs", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["tenant", "site"], ["sites.tenant", "sites.name"], name=op.f("fk_nodes_tenant_site")),
        sa.PrimaryKeyConstraint("tenant", "name", name=op.f("pk_nodes")),
        sa.UniqueConstraint("spiffe_id", name=op.f("uq_nodes_spiffe_id")),
    )
    op.create_index(op.f("ix_nodes_tenant_site"), "nodes", ["tenant", "site"], unique=False)
    op.create_table(
        "resources",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("kind", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant", "sha256"], ["blobs.tenant", "blobs.sha256"], name=op.f("fk_resources_tenant_sha256")
        ),
        sa.PrimaryKeyConstraint("tenant", "kind", "name", name=op.f("pk_resources")),
    )
    op.create_table(
        "revision_changes",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("revision", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("change", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant", "revision"],
            ["revisions.tenant", "revisions.number"],
            name=op.f("fk_revision_changes_tenant_revision"),
        ),
        sa.PrimaryKeyConstraint("tenant", "revision", "kind", "name", name=op.f("pk_revision_changes")),
    )
    op.create_table(
        "node_config_status",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("node", sa.String(length=63), nullable=False),
        sa.Column("revision", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("nack_failed_to_reach", sa.Integer(), nullable=True),
        sa.Column("nack_code", sa.Integer(), nullable=True),
        sa.Column("nack_kind", sa.Integer(), nullable=True),
        sa.Column("nack_resource_name", sa.String(length=63), nullable=True),
        sa.Column("nack_field_path", sa.JSON(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant", "node"], ["nodes.tenant", "nodes.name"], name=op.f("fk_node_config_status_tenant_node")
        ),
        sa.PrimaryKeyConstraint("tenant", "node", "revision", name=op.f("pk_node_config_status")),
    )
    op.create_index(
        op.f("ix_node_config_status_tenant_revision"), "node_config_status", ["tenant", "revision"], unique=False
    )


def downgrade() -> None:
    raise NotImplementedError("schemas go forward only: restore the backup from before the upgrade")
