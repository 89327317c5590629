"""Values of the areas → messages of faos.admin.v1. The only direction: requests are few and flat."""

from collections.abc import Sequence

from control_plane.api.interfaces import (
    Change,
    DetailedChange,
    FieldChange,
    JoinToken,
    Push,
    Revision,
    StoredResource,
)
from control_plane.api.nack_texts import explanation_of
from control_plane.api.node_queries import ConfigFacts, EventFacts, NackFacts, NodeFacts, RevisionStatus
from control_plane.audit.models import AuditRecord
from control_plane.config.models import Prepared, SignedManifest, Trust
from control_plane.tenants.models import Site, Tenant
from faos.admin.v1 import admin_pb2 as admin
from faos.resource.v1.resource_pb2 import Kind
from faos.tunnel.v1.tunnel_pb2 import ApplyState, NackCode
from faos_core.errors import REGISTRY
from faos_core.ids import NodeIdentity
from faos_core.kinds import BY_KIND, field_path_names
from faos_core.timestamps import timestamp


def tenant_message(tenant: Tenant) -> admin.Tenant:
    return admin.Tenant(name=tenant.name, created_at=timestamp(tenant.created_at))


def site_message(site: Site) -> admin.Site:
    return admin.Site(tenant=site.tenant, name=site.name, labels=site.labels, created_at=timestamp(site.created_at))


def node_message(node: NodeFacts, *, live: bool, words: Sequence[str]) -> admin.Node:
    return admin.Node(
        tenant=node.identity.tenant,
        site=node.identity.site,
        name=node.identity.node,
        spiffe_id=node.identity.spiffe_id,
        labels=node.labels,
        liveness=liveness_of(node, live=live),
        enrolled_at=timestamp(node.enrolled_at),
        last_seen_at=timestamp(node.last_seen_at),
        version=node.version,
        fingerprint_words=words,
        certificate_expires_at=timestamp(node.certificate_expires_at),
        desired_revision=node.desired_revision,
        config=config_message(node.config),
        ledger_size=node.ledger_size,
        ledger_root_sha256=node.ledger_root,
        active_runs=node.active_runs,
        finished_runs=node.finished_runs,
        standing=admin.NodeStanding.ValueType(node.standing),
        standing_reason=node.standing_reason,
        alarm=node.alarm,
        alarm_explanation=alarm_text(node),
        event_count=node.event_count,
        lost_event_count=node.lost_event_count,
    )


def alarm_text(node: NodeFacts) -> str:
    """Empty where there is none, or where a newer control plane over the same database raised it."""
    code = REGISTRY.get(node.alarm)
    if code is None:
        return ""
    return " ".join((code.what, code.why, code.next_step)).format(node=node.identity.node)


def event_message(event: EventFacts) -> admin.NodeEvent:
    message = admin.NodeEvent(tenant=event.tenant, node=event.node, received_at=timestamp(event.received_at))
    message.event.MergeFromString(event.body)
    return message


def liveness_of(node: NodeFacts, *, live: bool) -> admin.Liveness.ValueType:
    if live:
        return admin.Liveness.LIVENESS_LIVE
    return admin.Liveness.LIVENESS_DISCONNECTED if node.last_seen_at else admin.Liveness.LIVENESS_NEVER


def config_message(config: ConfigFacts) -> admin.NodeConfig:
    return admin.NodeConfig(
        attempted_revision=config.attempted_revision,
        running_revision=config.running_revision,
        healthy_revision=config.healthy_revision,
        state=ApplyState.ValueType(config.state),
        nack=nack_message(config.nack) if config.nack else None,
        at=timestamp(config.at),
    )


def nack_message(nack: NackFacts) -> admin.NackDetail:
    """The node's numbers as names, with what they mean."""
    kind = Kind.ValueType(nack.kind)
    return admin.NackDetail(
        failed_to_reach=ApplyState.ValueType(nack.failed_to_reach),
        code=NackCode.ValueType(nack.code),
        kind=BY_KIND[kind].name if kind in BY_KIND else "",
        resource_name=nack.resource_name,
        field_path=field_path_names(nack.field_path, kind),
        explanation=explanation_of(nack.code),
    )


def status_message(status: RevisionStatus) -> admin.RevisionNodeStatus:
    return admin.RevisionNodeStatus(node=status.node, site=status.site, config=config_message(status.config))


def join_token_message(token: JoinToken) -> admin.JoinToken:
    return admin.JoinToken(
        id=token.id,
        tenant=token.tenant,
        site=token.site,
        labels=token.labels,
        created_at=timestamp(token.created_at),
        expires_at=timestamp(token.expires_at),
        used_at=timestamp(token.used_at),
        used_by_node=token.used_by_node,
    )


def change_message(change: Change) -> admin.ResourceChange:
    return admin.ResourceChange(kind=change.kind, name=change.name, change=admin.ChangeType.ValueType(change.change))


def detailed_message(change: DetailedChange) -> admin.ResourceChange:
    message = change_message(change)
    message.fields.extend(map(field_message, change.fields))
    message.fields_truncated = change.fields_truncated
    return message


def field_message(field: FieldChange) -> admin.FieldChange:
    return admin.FieldChange(field_path=field.field_path, before=field.before, after=field.after)


def stored_message(stored: StoredResource) -> admin.GetResourceResponse:
    return admin.GetResourceResponse(
        resource=stored.resource, revision=stored.revision, apply_set=stored.apply_set, etag=stored.etag
    )


def prepared_message(prepared: Prepared | None) -> admin.PreparedRevision | None:
    if prepared is None:
        return None
    return admin.PreparedRevision(
        revision=prepared.revision,
        manifest=prepared.manifest,
        base=signed_message(prepared.base),
        source=signed_message(prepared.source),
        bodies=prepared.bodies,
        roots=prepared.roots,
    )


def signed_message(signed: SignedManifest | None) -> admin.SignedManifest | None:
    return admin.SignedManifest(manifest=signed.manifest, targets=signed.targets) if signed else None


def trust_message(trust: Trust) -> admin.GetTrustResponse:
    return admin.GetTrustResponse(
        roots=trust.roots,
        has_root_key=trust.has_root_key,
        has_publisher_key=trust.has_publisher_key,
        renewal=prepared_message(trust.renewal),
    )


def revision_message(revision: Revision) -> admin.Revision:
    return admin.Revision(
        tenant=revision.tenant,
        number=revision.number,
        created_at=timestamp(revision.created_at),
        author=revision.author,
        manifest_sha256=revision.manifest_sha256,
        changes=map(change_message, revision.changes),
        reason=revision.reason,
        rollback_of=revision.rollback_of,
    )


def push_message(identity: NodeIdentity, push: Push) -> admin.NodePush:
    return admin.NodePush(
        tenant=identity.tenant,
        node=identity.node,
        revision=push.revision,
        duration_ms=None if push.duration_s is None else round(push.duration_s * 1000),
        state=ApplyState.ValueType(push.state),
    )


def audit_message(record: AuditRecord) -> admin.AuditRecord:
    return admin.AuditRecord(
        sequence=record.sequence,
        at=timestamp(record.at),
        actor=record.actor,
        action=record.action,
        tenant=record.tenant,
        target=record.target,
        outcome=record.outcome,
    )
