"""What `faos get` can list: one row per kind of thing, with its names, columns and calls."""

import difflib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from faos.admin.v1 import admin_pb2 as admin
from faos.resource.v1.resource_pb2 import KIND_UNSPECIFIED, Kind
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_cli import admin_client
from faos_cli.admin_client import AdminClient
from faos_cli.errors import NOTHING_NAMED
from faos_cli.output import age, clock_time, duration, enum_text, labels_text, moment
from faos_core import kinds
from faos_core.errors import NotFoundError

Fetch = Callable[[AdminClient, str, int], Awaitable[Sequence[Any]]]
FetchOne = Callable[[AdminClient, str, str], Awaitable[Any]]
Cells = Callable[[Any], Sequence[str]]
SHORT = {"ToolServer": ("ts",), "KnowledgeBase": ("kb",), "Policy": ("pol",), "Agent": ("ag",), "Model": ("mo",)}
MOST_EVENTS = 100  # a control plane keeps thousands of each node
PLURALS = {"Policy": "policies"}


@dataclass(frozen=True, slots=True)
class Listing:
    """One kind of thing."""

    singular: str  # as `-o name` shows it
    plural: str
    short: tuple[str, ...]
    columns: tuple[str, ...]
    wide_columns: tuple[str, ...]  # after those
    fetch: Fetch  # (client, tenant, limit; 0 for all)
    cells: Cells  # columns, then wide columns
    name_of: Callable[[Any], str]
    empty: str  # what to type next
    fetch_one: FetchOne | None = None  # None: looked for in the list
    kind: "Kind.ValueType | None" = field(default=None)  # of resources; KIND_UNSPECIFIED for all of them
    most: int = 0  # listed where nobody says how many; 0: all

    @property
    def names(self) -> tuple[str, ...]:
        return (self.plural, self.singular, *self.short)


def listing_named(name: str) -> Listing:
    """By plural, singular or short name, in any spelling ("ToolServer", "tool-servers"). Raises UsageError."""
    plain = name.lower().replace("-", "").replace("_", "")
    for listing in LISTINGS:
        if plain in (each.replace("-", "") for each in listing.names):
            return listing
    known = [each for listing in LISTINGS for each in listing.names]
    near = difflib.get_close_matches(name.lower(), known, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(each.plural for each in LISTINGS)}."
    raise click.UsageError(f"There is nothing called {name!r} to get. {hint}")


def parse_target(kind: str, name: str | None) -> tuple[Listing, str | None]:
    """What is meant by KIND NAME or KIND/NAME; without a name, all of them. Raises UsageError."""
    kind, _, rest = kind.partition("/")
    if name and rest:
        raise click.UsageError("Write KIND NAME or KIND/NAME, not both.")
    listing, wanted = listing_named(kind), name or rest or None
    if wanted and listing.plural == "revisions":
        revision_number(wanted)
    return listing, wanted


async def fetch_named(listing: Listing, client: AdminClient, tenant: str, name: str) -> Any:
    """One thing. Raises NotFoundError."""
    if listing.fetch_one is not None:
        return await listing.fetch_one(client, tenant, name)
    for item in await listing.fetch(client, tenant, 0):
        if listing.name_of(item) == name:
            return item
    raise NotFoundError(NOTHING_NAMED, kind=listing.singular, name=name, plural=listing.plural)


async def fetch_tenants(client: AdminClient, tenant: str, limit: int) -> Sequence[Any]:
    return await client.list_all(client.tenants.ListTenants, admin.ListTenantsRequest(), limit=limit)


async def fetch_sites(client: AdminClient, tenant: str, limit: int) -> Sequence[Any]:
    return await client.list_all(client.tenants.ListSites, admin.ListSitesRequest(tenant=tenant), limit=limit)


async def fetch_nodes(client: AdminClient, tenant: str, limit: int) -> Sequence[Any]:
    return await client.list_all(client.nodes.ListNodes, admin.ListNodesRequest(tenant=tenant), limit=limit)


async def fetch_node(client: AdminClient, tenant: str, name: str) -> Any:
    return (await admin_client.get_node(client, tenant, name)).node


async def fetch_join_tokens(client: AdminClient, tenant: str, limit: int) -> Sequence[Any]:
    request = admin.ListJoinTokensRequest(tenant=tenant)
    return await client.list_all(client.nodes.ListJoinTokens, request, limit=limit)


async def fetch_revisions(client: AdminClient, tenant: str, limit: int) -> Sequence[Any]:
    request = admin.ListRevisionsRequest(tenant=tenant)
    return await client.list_all(client.resources.ListRevisions, request, limit=limit)


async def fetch_revision(client: AdminClient, tenant: str, name: str) -> Any:
    return (await admin_client.get_revision(client, tenant, revision_number(name))).revision


async def fetch_audit(client: AdminClient, tenant: str, limit: int) -> Sequence[Any]:
    request = admin.ListAuditRecordsRequest(tenant=tenant)
    return await client.list_all(client.audit.ListAuditRecords, request, limit=limit)


async def fetch_events(client: AdminClient, tenant: str, limit: int) -> Sequence[Any]:
    return await client.list_all(client.nodes.ListEvents, admin.ListEventsRequest(tenant=tenant), limit=limit)


def fetch_resources(kind: Kind.ValueType) -> Fetch:
    async def fetch(client: AdminClient, tenant: str, limit: int) -> Sequence[Any]:
        request = admin.ListResourcesRequest(tenant=tenant, kind=kind)
        return await client.list_all(client.resources.ListResources, request, limit=limit)

    return fetch


def fetch_resource(kind: Kind.ValueType) -> FetchOne:
    async def fetch(client: AdminClient, tenant: str, name: str) -> Any:
        return await admin_client.get_resource(client, tenant, kind, name)

    return fetch


def revision_number(name: str) -> int:
    """Raises UsageError for what is no number."""
    if not (name.isascii() and name.isdecimal() and 0 < len(name) < 19):
        raise click.UsageError(f"A revision is a number, not {name!r}.")
    return int(name)


def node_cells(node: admin.Node) -> Sequence[str]:
    config = node.config
    facts = (config.attempted_revision, config.running_revision, config.healthy_revision)
    link = enum_text(node, "liveness")
    state = " ".join(each for each in (enum_text(config, "state"), enum_text(config.nack, "code")) if each)
    alarm = node.alarm or ("" if node.standing == admin.NODE_STANDING_ADMITTED else enum_text(node, "standing"))
    seen = age(moment(node, "last_seen_at"))
    wide = (node.tenant, str(node.desired_revision), node.version, str(node.ledger_size), labels_text(node.labels))
    expires = clock_time(moment(node, "certificate_expires_at"))
    return (node.name, node.site, link, state, *(str(each or "") for each in facts), seen, alarm, *wide, expires)


def resource_cells(stored: admin.GetResourceResponse) -> Sequence[str]:
    resource = stored.resource
    kind = kinds.kind_name(kinds.kind_of(resource))
    selector = labels_text(resource.metadata.sites.match_labels)
    return (
        resource.metadata.name,
        kind,
        selector or "all",
        str(stored.revision),
        labels_text(resource.metadata.labels),
        stored.apply_set,
    )


def token_cells(token: admin.JoinToken) -> Sequence[str]:
    used = clock_time(moment(token, "used_at"))
    expires = clock_time(moment(token, "expires_at"))
    created = age(moment(token, "created_at"))
    return (
        token.id,
        token.site,
        expires,
        token.used_by_node or ("used" if used else ""),
        created,
        labels_text(token.labels),
    )


def revision_cells(revision: admin.Revision) -> Sequence[str]:
    gone = admin.CHANGE_TYPE_DELETED
    changed = [change for change in revision.changes if change.change != admin.CHANGE_TYPE_UNCHANGED]
    summary = ", ".join(
        f"{'-' if each.change == gone else ''}{kinds.kind_name(each.kind).lower()}/{each.name}" for each in changed[:3]
    )
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    created = age(moment(revision, "created_at"))
    back = f"back to {revision.rollback_of}" if revision.rollback_of else ""
    reason = "; ".join(each for each in (back, revision.reason) if each)
    return (str(revision.number), created, revision.author, summary + more, reason, revision.manifest_sha256.hex())


def audit_cells(record: admin.AuditRecord) -> Sequence[str]:
    at = clock_time(moment(record, "at"))
    action = record.action.rsplit("/", 1)[-1]
    return (str(record.sequence), at, record.actor, action, record.target, record.outcome, record.tenant, record.action)


def event_name(each: admin.NodeEvent) -> str:
    """Its key: node, start of the node, number in it."""
    return f"{each.node}.{each.event.epoch}.{each.event.sequence}"


def event_cells(each: admin.NodeEvent) -> Sequence[str]:
    received, happened = moment(each, "received_at"), moment(each.event, "at")
    wide = (each.tenant, each.node, clock_time(happened))
    return (event_name(each), clock_time(received), *event_words(each.event), *wide)


def event_words(event: tunnel.Event) -> tuple[str, str]:
    """What happened, and to what; an event that this version does not know has neither."""
    match event.WhichOneof("event"):
        case "run_ended":
            run = event.run_ended
            told = f"{run.agent}, {run.turns} turns, {run.tool_calls} tool calls, {duration(run.duration_ms / 1000)}"
            return f"run {enum_text(run, 'outcome').lower()}".strip(), f"{run.run_id} of {told}"
        case "alarm_changed":
            return "alarm" if event.alarm_changed.is_raised else "alarm over", event.alarm_changed.code
        case "events_dropped":
            return "events lost", f"{event.events_dropped.count}, the oldest: the node's spool was full"
    return "unknown", ""


def resource_name(stored: admin.GetResourceResponse) -> str:
    return str(stored.resource.metadata.name)


def resource_listing(row: kinds.KindRow) -> Listing:
    singular = row.name.lower()
    return Listing(
        singular=singular,
        plural=PLURALS.get(row.name, f"{singular}s"),
        short=SHORT.get(row.name, ()),
        columns=("NAME", "KIND", "SITES", "REVISION"),
        wide_columns=("LABELS", "SET"),
        fetch=fetch_resources(row.kind),
        fetch_one=fetch_resource(row.kind),
        cells=resource_cells,
        name_of=resource_name,
        empty="Declare one in YAML, then: faos apply -f FILE",
        kind=row.kind,
    )


LISTINGS: tuple[Listing, ...] = (
    Listing(
        singular="node",
        plural="nodes",
        short=("no",),
        columns=("NAME", "SITE", "LINK", "STATE", "ATTEMPTED", "RUNNING", "HEALTHY", "SEEN", "ALARM"),
        wide_columns=("TENANT", "DESIRED", "VERSION", "LEDGER", "LABELS", "CERTIFICATE UNTIL"),
        fetch=fetch_nodes,
        fetch_one=fetch_node,
        cells=node_cells,
        name_of=lambda node: str(node.name),
        empty="Enrol one: faos join-token create --site SITE, then at the site: faos join STRING",
    ),
    Listing(
        singular="site",
        plural="sites",
        short=("si",),
        columns=("NAME", "LABELS", "AGE"),
        wide_columns=("TENANT",),
        fetch=fetch_sites,
        cells=lambda site: (site.name, labels_text(site.labels), age(moment(site, "created_at")), site.tenant),
        name_of=lambda site: str(site.name),
        empty="Make one: faos site create NAME",
    ),
    Listing(
        singular="tenant",
        plural="tenants",
        short=("te",),
        columns=("NAME", "AGE"),
        wide_columns=(),
        fetch=fetch_tenants,
        cells=lambda tenant: (tenant.name, age(moment(tenant, "created_at"))),
        name_of=lambda tenant: str(tenant.name),
        empty="Make one: faos tenant create NAME",
    ),
    Listing(
        singular="resource",
        plural="resources",
        short=("all",),
        columns=("NAME", "KIND", "SITES", "REVISION"),
        wide_columns=("LABELS", "SET"),
        fetch=fetch_resources(KIND_UNSPECIFIED),
        cells=resource_cells,
        name_of=resource_name,
        empty="Declare one in YAML, then: faos apply -f FILE",
        kind=KIND_UNSPECIFIED,
    ),
    *(resource_listing(row) for row in kinds.BY_KIND.values()),
    Listing(
        singular="revision",
        plural="revisions",
        short=("rev",),
        columns=("REVISION", "AGE", "AUTHOR", "CHANGED", "REASON"),
        wide_columns=("MANIFEST",),
        fetch=fetch_revisions,
        fetch_one=fetch_revision,
        cells=revision_cells,
        name_of=lambda revision: str(revision.number),
        empty="Make the first: faos apply -f FILE",
    ),
    Listing(
        singular="join-token",
        plural="join-tokens",
        short=("jt",),
        columns=("ID", "SITE", "EXPIRES", "USED BY", "AGE"),
        wide_columns=("LABELS",),
        fetch=fetch_join_tokens,
        cells=token_cells,
        name_of=lambda token: str(token.id),
        empty="Make one: faos join-token create --site SITE",
    ),
    Listing(
        singular="event",
        plural="events",
        short=("ev",),
        columns=("KEY", "RECEIVED", "EVENT", "OF"),
        wide_columns=("TENANT", "NODE", "AT"),
        fetch=fetch_events,
        cells=event_cells,
        name_of=event_name,
        empty="Nodes tell of the ends of runs, and of alarms; there was none yet.",
        most=MOST_EVENTS,
    ),
    Listing(
        singular="audit-record",
        plural="audit",
        short=("audit-records", "au"),
        columns=("SEQUENCE", "AT", "ACTOR", "ACTION", "TARGET", "OUTCOME"),
        wide_columns=("TENANT", "RPC"),
        fetch=fetch_audit,
        cells=audit_cells,
        name_of=lambda record: str(record.sequence),
        empty="Every change is recorded here; there was none yet.",
    ),
)
