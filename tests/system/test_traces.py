"""One trace from an apply to HEALTHY over both planes, one from a run to its tool call; and the metrics beside them.

Each plane keeps its own spans in its own files: nothing of the node's goes up. What joins them is the trace's id.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from control_plane.telemetry.settings import TelemetrySettings as CloudTelemetry
from data_plane.api.server import channel
from data_plane.telemetry.settings import TelemetrySettings
from faos.admin.v1 import admin_pb2 as admin
from faos.admin.v1.admin_pb2_grpc import TelemetryServiceStub
from faos.resource.v1 import resource_pb2 as pb
from faos.site.v1 import site_pb2 as site
from faos.site.v1.site_pb2_grpc import SiteServiceStub
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_cli.traces import Span, Trace, read_traces, trace_id_of
from faos_core import trace_context
from faos_core.telemetry_target import Target
from tests.system.canary import Canary, files_below
from tests.system.harness import TENANT
from tests.system.sites import Site
from tests.system.small_site import agent, allow_all, ask, knowledge_base, model, tool_server

pytestmark = [pytest.mark.needs("model", "embedder", "bwrap"), pytest.mark.slow]

QUESTION = "Is it fine?"


def resources() -> list[pb.Resource]:
    limits = pb.RunLimits(max_tool_calls=1)
    required: dict[str, Any] = {"policies": ["all"], "tool_choice": pb.TOOL_CHOICE_REQUIRED, "limits": limits}
    asking = agent(tools=["rogue"], knowledge=["handbook"], **required)
    return [model(), knowledge_base(), allow_all(), tool_server(), asking]


async def apply_in(whole: Site, context: trace_context.TraceContext, *declared: pb.Resource) -> int:
    """As a pipeline does that has a trace of its own; the revision."""
    metadata = (*whole.plane.metadata, (trace_context.KEY, str(context)))
    request = admin.ApplyResourcesRequest(tenant=TENANT, resources=declared)
    answer = await whole.plane.resources.ApplyResources(request, metadata=metadata)
    return int(answer.revision)


def spans_named(trace: Trace, name: str) -> list[Span]:
    return [span for span in trace.spans if span.name.split()[0] == name]


def only(trace: Trace, name: str) -> Span:
    (found,) = spans_named(trace, name)
    return found


def ancestors(trace: Trace, span: Span) -> Iterator[str]:
    by_id = {each.span_id: each for each in trace.spans}
    while span := by_id.get(span.parent_id):  # type: ignore[assignment]  # None ends it
        yield span.name


async def test_change_and_run_are_one_trace_each_over_both_planes(tmp_path: Path) -> None:
    """Somebody asks why an apply took four minutes, or an answer forty seconds: one picture says where they went."""
    canary, called = Canary(), trace_context.new_trace()
    to_files: dict[str, Any] = {
        "telemetry": CloudTelemetry(to=Target.FILE),
        "node_telemetry": TelemetrySettings(to=Target.FILE),
    }
    async with Site(tmp_path, heartbeat_s=5.0, **to_files) as whole:
        revision = await apply_in(whole, called, *resources())
        await whole.settled(revision=revision, states=[tunnel.APPLY_STATE_HEALTHY])
        before = await metrics_of(whole)
        run, steps = await ask(whole.node.running, f"{QUESTION} {canary.text}")
        after, cloud = await metrics_of(whole), await cloud_metrics(whole)
        await whole.node.stop()
        await whole.stop_control_plane()

        node_dir, cloud_dir = whole.node.data_dir, tmp_path / "cp"
        check_change(read_traces([cloud_dir, node_dir]), called, cloud_dir)
        check_run(read_traces([node_dir]), run, steps)
        check_metrics(before, after, cloud)
        for folder in (node_dir, cloud_dir):
            kept = files_below(folder / "telemetry")
            assert kept.keys() == {"traces.jsonl", "metrics.jsonl"}
            assert canary.search(kept) == []


def check_change(traces: Sequence[Trace], called: trace_context.TraceContext, cloud_dir: Path) -> None:
    (change,) = [each for each in traces if each.trace_id == f"{called.trace_id:032x}"]
    call, push = only(change, "admin.rpc"), only(change, "config.push")
    assert call.parent_id == f"{called.span_id:016x}", "the pipeline's own span is above all"
    assert call.attributes["rpc.method"].endswith("ApplyResources")
    assert push.parent_id == call.span_id
    assert push.attributes["faos.state"] == "APPLY_STATE_HEALTHY"
    phases = spans_named(change, "config.phase")
    assert [each.attributes["faos.state"] for each in phases][-1] == "APPLY_STATE_HEALTHY"
    of_node = [each for each in change.spans if each.service == "node"]
    assert {each.name for each in of_node} >= {"config.verify", "config.stage", "config.activate", "config.soak"}
    assert all("admin.rpc" in list(ancestors(change, each)) for each in [*of_node, *phases]), "one tree"
    (cloud,) = [each for each in read_traces([cloud_dir]) if each.trace_id == change.trace_id]
    assert {each.service for each in cloud.spans} == {"control-plane"}, "no span of the node's is up there"


def check_run(traces: Sequence[Trace], run: site.Run, steps: Sequence[site.Step]) -> None:
    (trace,) = [each for each in traces if each.trace_id == trace_id_of(run.run_id)]
    top = only(trace, "invoke_agent")
    assert (top.name, top.parent_id) == ("invoke_agent assistant", "")
    assert top.attributes["faos.run.id"] == run.run_id
    assert top.attributes["faos.state"] == "succeeded"
    below = [each for each in trace.spans if each is not top]
    assert {each.parent_id for each in below} == {top.span_id}
    told = [(int(each.attributes["faos.step"]), each.name) for each in sorted(below, key=lambda each: each.began_ns)]
    names = {
        site.STEP_KIND_MODEL: "chat smollm2",
        site.STEP_KIND_TOOL: "execute_tool fine",
        site.STEP_KIND_RETRIEVAL: "retrieval",
        site.STEP_KIND_ROUTING: "routing",
    }
    assert told == [(step.sequence, names[step.kind]) for step in steps]
    assert "execute_tool fine" in [name for _, name in told]
    turns = spans_named(trace, "chat")
    assert all(int(each.attributes["gen_ai.usage.output_tokens"]) > 0 for each in turns)


# ---- metrics


async def metrics_of(whole: Site) -> dict[str, float]:
    async with channel(whole.node.data_dir) as connection:
        answer = await SiteServiceStub(connection).GetMetrics(site.GetMetricsRequest())
    return parsed(answer.text)


async def cloud_metrics(whole: Site) -> dict[str, float]:
    stub: Any = TelemetryServiceStub(whole.plane.channel)
    answer = await stub.GetMetrics(admin.GetMetricsRequest(), metadata=whole.plane.metadata)
    assert answer.sessions == 1
    (push,) = answer.pushes
    assert (push.revision, push.state) == (1, tunnel.APPLY_STATE_HEALTHY)
    assert push.duration_ms > 0
    return parsed(answer.text)


def parsed(text: str) -> dict[str, float]:
    """Prometheus' text: series → value."""
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


def check_metrics(before: dict[str, float], after: dict[str, float], cloud: dict[str, float]) -> None:
    """They exist, and they move."""
    grown = {name: after[name] - before.get(name, 0) for name in after}
    assert grown['faos_runs_finished_total{state="succeeded"}'] == 1
    assert grown['faos_run_duration_seconds_count{state="succeeded"}'] == 1
    assert grown["faos_run_tool_calls_total"] == 1
    assert grown["faos_run_turns_total"] >= 1
    assert grown['faos_run_tokens_total{type="output"}'] > 0
    assert grown["faos_store_commits_total"] > 0
    assert after["faos_link_connected"] == 1
    assert min(after["faos_link_sessions_total"], after["faos_link_offers_total"]) >= 1
    assert after['faos_link_statuses_total{state="APPLY_STATE_HEALTHY"}'] >= 1
    assert after["faos_link_sent_bytes_total"] > 0
    assert after['faos_ledger_leaves_total{door="tunnel"}'] > 0
    assert after["faos_ledger_append_duration_seconds_count"] >= after['faos_ledger_leaves_total{door="tunnel"}']
    assert after["faos_ledger_commit_duration_seconds_count"] > 0
    assert cloud["faos_sessions_live"] == 1
    assert cloud["faos_offers_total"] >= 1
    assert cloud['faos_push_duration_seconds_count{state="APPLY_STATE_HEALTHY"}'] == 1
    assert any(name.startswith("faos_admin_rpc_duration_seconds_count{") for name in cloud)
