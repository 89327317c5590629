"""The lines of faos top."""

from collections.abc import Sequence
from datetime import UTC, datetime

from faos.admin.v1 import admin_pb2 as admin
from faos.site.v1 import site_pb2 as site
from faos_cli.activity import CloudActivity, Rates, Sample
from faos_cli.glance import trouble_of
from faos_cli.output import age, aligned, byte_size, duration, enum_text, moment, printable
from faos_core.errors import FaosError

MOST_ROWS = 12  # of each table, where nobody says how many there is room for
NOT_HERE = "not in this context"
Rows = list[Sequence[str]]


def lines_of(sample: Sample, rate: Rates, *, most_rows: int = MOST_ROWS) -> list[str]:
    """most_rows: of each table; more are counted."""
    return ["node", *node_lines(sample, rate, most_rows), "", "control plane", *cloud_lines(sample, most_rows)]


def down_lines(error: FaosError) -> list[str]:
    told = (("DOWN", error.what), ("why", error.why), ("next", error.next_step))
    return [f"  {word:4}  {printable(text)}" for word, text in told]


def table(columns: Sequence[str], rows: Rows, most_rows: int) -> list[str]:
    if not rows:
        return []
    found = ["", *(f"  {line}" for line in aligned([columns, *rows[:most_rows]]))]
    return found if len(rows) <= most_rows else [*found, f"  … and {len(rows) - most_rows} more"]


# ---- the node


def node_lines(sample: Sample, rate: Rates, most_rows: int) -> list[str]:
    if sample.node is None:
        return [f"  {NOT_HERE}"]
    if isinstance(sample.node, FaosError):
        return down_lines(sample.node)
    now = sample.node
    head = [
        ("tunnel", "connected" if now.connected else "not connected; the site works on", ""),
        ("runs", f"{now.active_runs} of {now.most_runs} under way, {now.ended_runs} ended", f"{rate.runs:.1f}/s"),
        ("tokens", str(now.output_tokens), f"{rate.tokens:.1f}/s"),
        ("ledger", f"{now.ledger_leaves} messages, {byte_size(now.ledger_bytes)}", ledger_rate(rate)),
        ("events", f"{now.events_waiting} wait for the control plane", ""),
    ]
    at = now.at.ToDatetime(UTC)
    return [
        *(f"  {line}" for line in aligned(head)),
        *table(("RUN", "AGENT", "FOR", "STEP", "FOR", "TOKENS"), [run_row(run, at) for run in now.runs], most_rows),
        *table(("PID", "PROCESS", "CPU", "MEMORY"), process_rows(now, rate), most_rows),
    ]


def ledger_rate(rate: Rates) -> str:
    return f"{rate.ledger_messages:.1f}/s, {byte_size(rate.ledger_bytes)}/s"


def run_row(run: site.ActiveRun, at: datetime) -> Sequence[str]:
    step = f"{run.step_sequence} {enum_text(run, 'step_kind').lower()} {run.step_name}".strip()
    tokens = run.output_tokens + run.step_deltas  # a piece is about a token
    lasted = (lasting(moment(run, name), at) for name in ("started_at", "step_started_at"))
    whole, of_step = lasted
    return run.run_id, run.agent, whole, step if run.step_sequence else "", of_step, str(tokens)


def lasting(began: datetime | None, at: datetime) -> str:
    return "" if began is None else duration(max(0.0, (at - began).total_seconds()))


def process_rows(activity: site.GetActivityResponse, rate: Rates) -> Rows:
    """CPU as top shows it: 100 % is a processor. Nothing before there are two samples of a process."""
    cpu = dict(rate.cpu)
    return [
        (str(it.pid), it.name, f"{cpu[it.pid] * 100:.0f} %" if it.pid in cpu else "", byte_size(it.rss_bytes))
        for it in activity.processes
    ]


# ---- the control plane


def cloud_lines(sample: Sample, most_rows: int) -> list[str]:
    if sample.cloud is None:
        return [f"  {NOT_HERE}"]
    if isinstance(sample.cloud, FaosError):
        return down_lines(sample.cloud)
    nodes = sample.cloud.nodes
    live = sum(node.liveness == admin.LIVENESS_LIVE for node in nodes)
    head = [
        ("nodes", f"{live} of {len(nodes)} connected, {sample.cloud.metrics.sessions} to this process"),
        ("runs", f"{sum(node.active_runs for node in nodes)} under way"),
    ]
    columns = ("NODE", "SITE", "LINK", "STATE", "RUNNING", "HEALTHY", "RUNS", "LEDGER", "PUSHED IN", "SEEN", "LOOK AT")
    return [*(f"  {line}" for line in aligned(head)), *table(columns, node_rows(sample.cloud), most_rows)]


def node_rows(cloud: CloudActivity) -> Rows:
    """Those that somebody should look at first."""
    pushes = {(push.tenant, push.node): push for push in cloud.metrics.pushes}
    ordered = sorted(cloud.nodes, key=lambda node: (not trouble_of(node), -node.active_runs, node.tenant, node.name))
    return [node_row(node, pushes.get((node.tenant, node.name))) for node in ordered]


def node_row(node: admin.Node, push: admin.NodePush | None) -> Sequence[str]:
    config = node.config
    took = duration(push.duration_ms / 1000) if push is not None and push.HasField("duration_ms") else ""
    numbers = (config.running_revision, config.healthy_revision, node.active_runs, node.ledger_size)
    return (
        node.name,
        node.site,
        enum_text(node, "liveness"),
        enum_text(config, "state"),
        *(str(number or "") for number in numbers),
        took,
        age(moment(node, "last_seen_at")),
        trouble_of(node),
    )
