"""faos status, top, metrics and trace: against real planes where there is one, and line by line where there is none."""

import asyncio
import json
import os
import pty
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from control_plane.telemetry.settings import TelemetrySettings
from data_plane.agents.interfaces import RunCounts
from data_plane.agents.sight import ActiveRun
from data_plane.agents.steps import RunState
from data_plane.api.interfaces import Facts, LinkState, ServerHealth, Standing
from data_plane.api.server import SiteServer
from data_plane.api.service import SiteApi
from data_plane.egress.interfaces import LedgerHead
from data_plane.egress.ledger_meter import Total
from data_plane.storage.service import open_storage
from data_plane.telemetry.processes import ProcessUse, family
from faos.admin.v1 import admin_pb2 as admin
from faos.site.v1 import site_pb2 as site
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_cli.activity import CloudActivity, Rates, Sample, rates
from faos_cli.activity_lines import lines_of
from faos_cli.errors import NO_ANSWER
from faos_cli.glance import MOST_NAMED, glance_of_fleet, glance_of_node, trouble_of
from faos_cli.output import byte_size
from faos_cli.traces import Trace, read_traces, trace_id_of
from faos_core.errors import UnavailableError, define
from faos_core.ids import RunId, TenantName
from faos_core.lifecycle import running
from faos_core.meters import Counter, as_prometheus
from faos_core.names import Metric, Span
from faos_core.telemetry_target import Target
from faos_core.timestamps import timestamp
from faos_core.trace_context import new_trace
from faos_core.tracing import OFF
from tests.fakes.runs import make_node
from tests.patience import PATIENCE_S
from tests.system.harness import running_control_plane
from tests.unit.faos_cli.conftest import RunFaos, context_of

NOW = datetime(2026, 1, 2, tzinfo=UTC)
AWAY = define("test.side_away", what="It does not answer.", why="It is away.", next_step="Start it: faos up")


@dataclass
class Seen:
    """A node's insides, as they are shown; the alarm is of the registry."""

    alarms: tuple[str, ...] = ()
    connected: bool = True

    def state(self) -> LinkState:
        return LinkState("spiffe://x/n", self.connected, attempted_revision=3, healthy_revision=2, alarms=self.alarms)

    def head(self) -> LedgerHead:
        return LedgerHead(17, b"")

    def standing(self) -> Standing:
        now = datetime.now(UTC)
        return Standing(
            now - timedelta(hours=3), now - timedelta(minutes=5), "cloud.example:7443", now + timedelta(hours=11.5)
        )

    def tool_servers(self) -> list[ServerHealth]:
        return [ServerHealth("files", 3, ""), ServerHealth("rogue", 1, "tool.definition_changed")]

    def ledger_totals(self) -> Mapping[str, Total]:
        return {"OPERATIONAL": Total(10, 1_000), "IDENTIFIER": Total(7, 1_500), "CUSTOMER": Total()}

    async def events_waiting(self) -> int:
        return 4

    async def ended_runs(self) -> Mapping[RunState, int]:
        return {RunState.SUCCEEDED: 40, RunState.FAILED: 2}

    def counts(self) -> RunCounts:
        return RunCounts(active=1, finished=42)

    def most_runs(self) -> int:
        return 64

    def active_runs(self) -> list[ActiveRun]:
        began = datetime.now(UTC) - timedelta(seconds=7)
        with OFF.span(Span.RUN) as span:
            return [ActiveRun(RunId("run-1"), "assistant", began, span, output_tokens=12)]

    def output_tokens(self) -> int:
        return 12

    async def processes(self) -> list[ProcessUse]:
        return family()

    def metrics_text(self) -> str:
        turns = Counter(Metric.RUN_TURNS, "Turns.")
        turns.add(5)
        return as_prometheus([turns])


@asynccontextmanager
async def serving(folder: Path, seen: Seen) -> AsyncIterator[None]:
    """A node's local API over what is seen here, and the context that leads to it alone."""
    (folder / ".faos").mkdir(exist_ok=True)
    (folder / ".faos" / "context.json").write_text(json.dumps({"node_data_dir": str(folder / "node")}))
    async with open_storage(folder / "node", tenant=TenantName("acme")) as storage:
        node = make_node(storage)
        runs = node.runs()
        api = SiteApi(runs, Facts(seen, node.configuration, seen, seen))
        async with running([runs, SiteServer(folder / "node", api)]):
            yield


def facts_in(text: str) -> dict[str, str]:
    pairs = [
        line.strip().split("   ", 1) for line in text.splitlines() if line.startswith("  ") and "   " in line.strip()
    ]
    return {name: value.strip() for name, value in pairs}


# ---- status


async def test_status_says_at_a_glance_how_the_node_is(run_faos: RunFaos, tmp_path: Path) -> None:
    """Since when, with whom, until when, doing what: the first look of whoever is called at night."""
    async with serving(tmp_path, Seen()):
        done = await run_faos("status")
        parsed = await run_faos("status", "-o", "json")

    facts = facts_in(done.out)
    assert (done.code, facts["tunnel"]) == (0, "connected to cloud.example:7443 for 5m")
    assert (facts["up for"], facts["certificate"]) == ("3h", "expires in 11h")
    assert facts["runs"] == "1 under way, 2 failed, 40 succeeded"
    assert facts["ledger"] == "17 messages, 2.5 kB: 10 OPERATIONAL, 7 IDENTIFIER"
    assert facts["events"] == "4 wait for the control plane"
    assert facts["tools"] == "files: 3 tools"
    assert "rogue: 1 tool, tool.definition_changed" in done.out
    assert "not in this context" in done.out, "there is no control plane in it, and that is no fault"
    assert parsed.json["controlPlane"] == {"state": "not in this context"}
    assert (parsed.json["node"]["state"], parsed.json["node"]["activeRuns"]) == ("UP", 1)


async def test_alarm_is_told_with_what_to_type_and_fails_the_command(run_faos: RunFaos, tmp_path: Path) -> None:
    """A code alone sends a person to a search engine; the exit code is for the monitoring."""
    async with serving(tmp_path, Seen(alarms=("test.side_away", "newer.than_this"), connected=False)):
        done = await run_faos("status")
        parsed = await run_faos("status", "-o", "json")

    assert done.code == parsed.code == 1
    assert "test.side_away: It does not answer." in done.out
    assert "next: Start it: faos up" in done.out
    assert "newer.than_this" in done.out
    assert "the site works on" in facts_in(done.out)["tunnel"]
    assert parsed.json["node"]["alarms"] == ["test.side_away", "newer.than_this"]


async def test_side_that_is_down_is_told_beside_the_one_that_is_up(run_faos: RunFaos, tmp_path: Path) -> None:
    """The cloud may be gone for months: one half's outage must not hide the other's well-being."""
    async with serving(tmp_path, Seen()):
        async with running_control_plane(tmp_path / "gone") as plane:
            context = context_of(plane, node_data_dir=str(tmp_path / "node"))
        (tmp_path / ".faos" / "context.json").write_text(json.dumps(context))
        done = await run_faos("status")
        parsed = await run_faos("status", "-o", "json")

    assert done.code == parsed.code == 1
    cloud, node = parsed.json["controlPlane"], parsed.json["node"]
    assert (cloud["state"], node["state"]) == ("DOWN", "UP")
    assert all(cloud[key] for key in ("code", "what", "why", "next"))
    assert cloud["next"] in done.out
    assert "Traceback" not in done.out + done.err


async def test_nowhere_to_look_is_said_with_where_to_begin(run_faos: RunFaos) -> None:
    """The first command that somebody new types, in the wrong folder."""
    for command in ("status", "top", "trace", "metrics"):
        done = await run_faos(command)

        assert (done.code, "faos up" in done.err) == (1, True), command


def node_of(name: str = "node-a", **more: Any) -> admin.Node:
    config = more.pop("config", {})
    defaults: dict[str, Any] = {"liveness": admin.LIVENESS_LIVE, "standing": admin.NODE_STANDING_ADMITTED}
    node = admin.Node(name=name, site="main", tenant="acme", **(defaults | more))
    for key, value in config.items():
        setattr(node.config, key, value)
    return node


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, ""),
        ({"alarm": "node.cloned"}, "node.cloned"),
        ({"standing": admin.NODE_STANDING_REVOKED}, "REVOKED"),
        ({"liveness": admin.LIVENESS_NEVER}, "NEVER"),
        ({"liveness": admin.LIVENESS_DISCONNECTED, "last_seen_at": timestamp(NOW - timedelta(minutes=5))}, "for 5m"),
        ({"config": {"state": tunnel.APPLY_STATE_ROLLED_BACK, "attempted_revision": 7}}, "ROLLED_BACK revision 7"),
        ({"config": {"state": tunnel.APPLY_STATE_SOAKING}}, ""),
    ],
)
def test_what_needs_a_look_is_said_in_a_word(more: dict[str, Any], said: str) -> None:
    """Of a thousand nodes, the two that somebody should look at."""
    found = trouble_of(node_of(**more), now=NOW)

    assert (said in found) if said else found == ""


def test_fleet_with_many_troubles_stays_readable() -> None:
    """An outage of the network is one thing, not five thousand lines; programs get them all."""
    gone = [node_of(f"node-{number}", liveness=admin.LIVENESS_NEVER) for number in range(40)]

    glance = glance_of_fleet([*gone, node_of()], {"address": "x"})

    assert len(glance.facts["attention"].splitlines()) == MOST_NAMED + 1
    assert "30 more" in glance.facts["attention"]
    assert len(glance.document["attention"]) == 40
    assert glance.is_well, "a node that is away is no alarm: its site works on"
    assert not glance_of_fleet([node_of(alarm="node.cloned")], {"address": "x"}).is_well


def test_certificate_that_has_expired_is_shouted() -> None:
    """The node runs on and nobody notices, until it has to reconnect."""
    said = site.GetStatusResponse(certificate_expires_at=timestamp(datetime.now(UTC) - timedelta(hours=2, minutes=1)))

    assert glance_of_node(said, {}).facts["certificate"] == "EXPIRED 2h ago"


# ---- top


def activity(**more: Any) -> site.GetActivityResponse:
    return site.GetActivityResponse(at=timestamp(NOW), **more)


def test_rates_are_what_happened_between_two_looks() -> None:
    """What a total says after a month says nothing about now."""
    one = site.Process(pid=1, name="faos", cpu_seconds=10.0, rss_bytes=1)
    before = Sample(100.0, activity(ledger_leaves=10, ledger_bytes=100, output_tokens=5, processes=[one]), None)
    later = site.Process(pid=1, name="faos", cpu_seconds=11.0, rss_bytes=1)
    new = site.Process(pid=2, name="child", cpu_seconds=50.0, rss_bytes=1)
    after = Sample(
        102.0,
        activity(ledger_leaves=16, ledger_bytes=1_100, output_tokens=25, ended_runs=1, processes=[later, new]),
        None,
    )

    assert rates(before, after) == Rates(3.0, 500.0, 10.0, 0.5, ((1, 0.5),))


def test_node_that_was_started_anew_has_no_negative_rate() -> None:
    """Its counters begin again; so do the readers of this line."""
    before = Sample(1.0, activity(ledger_leaves=500, output_tokens=9), None)

    assert rates(before, Sample(2.0, activity(ledger_leaves=3), None)) == Rates()
    assert rates(None, before) == Rates()
    assert rates(Sample(0.0, UnavailableError(AWAY), None), before) == Rates()


def test_lines_show_what_runs_and_what_is_down() -> None:
    """One half's outage is a few lines, with what to type; the other half goes on."""
    run = site.ActiveRun(
        run_id="run-1",
        agent="assistant",
        started_at=timestamp(NOW - timedelta(seconds=7)),
        step_sequence=2,
        step_kind=site.STEP_KIND_MODEL,
        step_name="smollm2",
        step_started_at=timestamp(NOW - timedelta(milliseconds=1_500)),
        output_tokens=12,
        step_deltas=3,
    )
    sample = Sample(1.0, activity(runs=[run], active_runs=1, most_runs=64, connected=True), UnavailableError(AWAY))

    lines = lines_of(sample, Rates(tokens=2.5))

    text = "\n".join(lines)
    (row,) = [line.split() for line in lines if "run-1" in line]
    assert row == ["run-1", "assistant", "7.00", "s", "2", "model", "smollm2", "1.50", "s", "15"]
    assert "1 of 64 under way" in text
    assert "2.5/s" in text
    assert ("DOWN" in text, "Start it: faos up" in text) == (True, True)


def test_why_a_side_is_down_does_not_drive_the_terminal() -> None:
    """A control plane that is not ours any more says it, and top draws it on a whole screen."""
    said = UnavailableError(NO_ANSWER, whom="\x1b[2Jcloud", seconds=5)

    assert "\x1b" not in "".join(lines_of(Sample(1.0, None, said), Rates()))


def test_troubled_nodes_come_first_and_a_long_table_is_cut_and_counted() -> None:
    """A screen has forty lines; the one node that matters must be among them."""
    nodes = [node_of(f"node-{number:02}") for number in range(30)]
    nodes += [node_of("zz", liveness=admin.LIVENESS_DISCONNECTED)]
    push = admin.NodePush(tenant="acme", node="node-00", revision=1, duration_ms=1_417)
    sample = Sample(1.0, None, CloudActivity(nodes, admin.GetMetricsResponse(sessions=30, pushes=[push])))

    lines = lines_of(sample, Rates(), most_rows=5)

    rows = [line.split()[0] for line in lines if line.strip().startswith(("node-", "zz"))]
    assert rows == ["zz", "node-00", "node-01", "node-02", "node-03"]
    assert "26 more" in lines[-1]
    assert any("1.42 s" in line for line in lines)


async def test_top_shows_one_picture_in_a_pipe(run_faos: RunFaos, tmp_path: Path) -> None:
    """`faos top | less` and a cron job get a picture that ends, also with a node alone."""
    async with serving(tmp_path, Seen()):
        done = await run_faos("top", "--interval", "0.2")
        parsed = await run_faos("top", "--once", "--interval", "0.2", "-o", "json")

    assert (done.code, done.err) == (0, "")
    assert "run-1" in done.out
    assert "\x1b" not in done.out
    (own,) = [each for each in parsed.json["node"]["processes"] if each["pid"] == family()[0].pid]
    assert int(own["rssBytes"]) > 1_000_000
    assert parsed.json["controlPlane"] is None
    assert parsed.json["node"]["perSecond"].keys() == {"ledgerMessages", "ledgerBytes", "outputTokens", "endedRuns"}


async def test_top_of_a_control_plane_alone(run_faos: RunFaos, tmp_path: Path, plane: Any) -> None:
    """On the cloud's own machine there is no node."""
    await plane.create_tenant()

    done = await run_faos("top", "--once", "--interval", "0.2")

    assert done.code == 0
    assert "0 of 0 connected" in done.out


async def test_top_fails_where_a_side_is_down(run_faos: RunFaos, tmp_path: Path) -> None:
    """A picture of nothing must not pass for a picture."""
    async with serving(tmp_path, Seen()):
        pass

    done = await run_faos("top", "--once", "--interval", "0.2")

    assert (done.code, "faos node run" in done.out) == (1, True)


async def test_top_on_a_terminal_lives_until_ctrl_c_and_leaves_it_as_it_was(tmp_path: Path) -> None:
    """Ctrl-C is how it ends, so it is no error; a screen that is not given back is a terminal lost."""
    async with serving(tmp_path, Seen()):
        ours, theirs = pty.openpty()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "faos_cli", "top", "--interval", "0.2",
            cwd=tmp_path, stdin=theirs, stdout=theirs, stderr=theirs,
            env=os.environ | {"TERM": "xterm", "COLUMNS": "160", "LINES": "50", "XDG_CONFIG_HOME": str(tmp_path)},
        )  # fmt: skip
        os.close(theirs)
        os.set_blocking(ours, False)
        said = b""
        async with asyncio.timeout(PATIENCE_S):
            while said.count(b"run-1") < 2:
                said += await some(ours)
                assert process.returncode is None, said
            process.send_signal(signal.SIGINT)
            while process.returncode is None:  # it may have to be read from to end
                said += await some(ours)
            while more := await some(ours):
                said += more
        os.close(ours)

    assert process.returncode == 0
    assert (b"\x1b[?1049h" in said, b"\x1b[?1049l" in said, b"\x1b[?25h" in said) == (True, True, True)
    assert b"Traceback" not in said


async def some(descriptor: int) -> bytes:
    """What is there to read; nothing where there is nothing now, or the other end is gone."""
    await asyncio.sleep(0.02)
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""


# ---- metrics and traces


async def test_metrics_are_printed_as_they_are(run_faos: RunFaos, tmp_path: Path, plane: Any) -> None:
    """For a scraper's text collector, and for grep; of either side."""
    cloud = await run_faos("metrics", "--control-plane")
    async with serving(tmp_path, Seen()):
        node = await run_faos("metrics")

    assert (
        node.out == "# HELP faos_run_turns_total Turns.\n# TYPE faos_run_turns_total counter\nfaos_run_turns_total 5\n"
    )
    assert "\nfaos_sessions_live 0\n" in cloud.out


async def test_traces_of_a_control_plane_are_listed_and_shown(run_faos: RunFaos, tmp_path: Path) -> None:
    """From the file that it wrote itself, while it is gone: what took how long, by the id that the list gave."""
    async with running_control_plane(tmp_path / "cp", telemetry=TelemetrySettings(to=Target.FILE)) as plane:
        await plane.create_tenant("mercy")
        context = context_of(plane, control_plane_data_dir=str(tmp_path / "cp"))
    (tmp_path / ".faos").mkdir()
    (tmp_path / ".faos" / "context.json").write_text(json.dumps(context))

    listed = await run_faos("trace")
    parsed = await run_faos("trace", "-o", "json")
    heading, *rows = [line.split() for line in listed.out.splitlines()]
    shown = await run_faos("trace", rows[0][0])
    unknown = await run_faos("trace", "run-nobody")

    assert heading == ["TRACE", "OF", "WHAT", "AGE", "TOOK", "SPANS", "ERRORS"]
    assert {row[1] for row in rows} == {"control-plane"}
    assert len(rows) == 2, "the tenant and its site"
    assert [each["traceId"] for each in parsed.json["items"]] == [row[0] for row in rows]
    assert (shown.code, "admin.rpc" in shown.out) == (0, True)
    assert (unknown.code, "faos trace" in unknown.err) == (1, True)


async def test_no_traces_yet_says_what_to_switch_on(run_faos: RunFaos, tmp_path: Path) -> None:
    """They are off where nobody switched them on; an empty list would look like a fault."""
    async with serving(tmp_path, Seen()):
        pass

    done = await run_faos("trace")

    assert (done.code, done.out, "[telemetry]" in done.err) == (0, "", True)


def line(span_id: str, parent_id: str = "", *, trace_id: str = "ab", began: int = 1, **more: Any) -> str:
    span = {"traceId": trace_id, "spanId": span_id, "parentSpanId": parent_id, "name": span_id, **more}
    span |= {"startTimeUnixNano": str(began), "endTimeUnixNano": str(began + 10)}
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]})


def trace_in(folder: Path, *lines: str) -> Trace:
    (folder / "telemetry").mkdir(parents=True)
    (folder / "telemetry" / "traces.jsonl").write_text("\n".join(lines))
    (trace,) = read_traces([folder])
    return trace


def test_tree_is_in_order_and_a_part_whose_parent_is_elsewhere_stands_at_the_top(tmp_path: Path) -> None:
    """A node's file holds half a trace where the control plane's is on another machine."""
    lines = [line("d", "elsewhere", began=9), line("c", "a", began=5), line("b", "a", began=2), line("a", began=1)]

    trace = trace_in(tmp_path, *lines)

    assert [(depth, span.name) for depth, span in trace.tree()] == [(0, "a"), (1, "b"), (1, "c"), (0, "d")]
    assert trace.first.name == "a"
    assert trace.duration_s == pytest.approx(18e-9)


@pytest.mark.parametrize(
    "bad", ['{"resourceSp', "[]", "null", '{"resourceSpans": [7]}', '{"resourceSpans": 1}', "\x00"]
)
def test_line_that_is_damaged_costs_that_line(tmp_path: Path, bad: str) -> None:
    """A power cut leaves half a line; the rest is still what somebody needs."""
    trace = trace_in(tmp_path, bad, line("a"), bad)

    assert [span.name for span in trace.spans] == ["a"]


def test_spans_that_are_each_others_parents_are_shown_once(tmp_path: Path) -> None:
    """Nothing writes such a file, and a reader that never ends on it is worse than what it says."""
    trace = trace_in(tmp_path, line("a", "b"), line("b", "a", began=2))

    assert sorted(span.name for _, span in trace.tree()) == ["a", "b"]


def test_failure_is_told_by_its_code(tmp_path: Path) -> None:
    """In the list already: which of these twenty went wrong, and why."""
    attribute = {"key": "error.type", "value": {"stringValue": "tool.server_died"}}

    trace = trace_in(tmp_path, line("a", status={"code": 2}, attributes=[attribute]))

    assert trace.errors == ["tool.server_died"]


def test_run_is_found_by_its_own_id() -> None:
    """Whoever has an answer has its run's id, and never heard of a trace's."""
    assert len(trace_id_of("run-1")) == 32
    assert trace_id_of("ABCD") == "abcd"


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1_500, "1.5 kB"), (2.5e6, "2.5 MB"), (3e9, "3.0 GB")]
)
def test_size_is_read_at_a_glance(count: float, text: str) -> None:
    """Nobody counts digits."""
    assert byte_size(count) == text


def test_calls_that_only_looked_are_left_out_of_the_list(tmp_path: Path) -> None:
    """A dashboard asks every two seconds; the apply of an hour ago must be on the first page."""
    method = {"key": "rpc.method", "value": {"stringValue": "NodeService/ListNodes"}}
    look = trace_in(tmp_path / "looks", line("a", attributes=[method]))
    change = trace_in(tmp_path / "changes", line("a", attributes=[method]), line("b"))

    assert (look.is_look, change.is_look) == (True, False)
    assert look.first.what == "a NodeService/ListNodes"


POLICY = """
apiVersion: faos/v1
kind: Policy
metadata: {name: all}
spec: {rules: [{name: all, effect: ALLOW}]}
"""


async def test_apply_belongs_to_the_trace_of_the_pipeline_that_called_it(
    run_faos: RunFaos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deployment's trace goes from its pipeline to the last node; without a pipeline, it begins at the command."""
    called = new_trace()
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / ".faos").mkdir()
    async with running_control_plane(tmp_path / "cp", telemetry=TelemetrySettings(to=Target.FILE)) as plane:
        await plane.create_tenant("mercy")
        (tmp_path / ".faos" / "context.json").write_text(json.dumps(context_of(plane)))
        monkeypatch.setenv("TRACEPARENT", str(called))
        done = await run_faos("apply", "-f", "policy.yaml")
        monkeypatch.setenv("TRACEPARENT", "Jane Roe has diabetes")
        alone = await run_faos("delete", "-f", "policy.yaml")

    found = {trace.trace_id: trace for trace in read_traces([tmp_path / "cp"])}
    (call,) = found[f"{called.trace_id:032x}"].spans
    assert done.code == 0, done.err
    assert (call.what, call.parent_id) == ("admin.rpc ResourceService/ApplyResources", f"{called.span_id:016x}")
    assert alone.code == 0, alone.err
    assert [each for each in found.values() if "ResourceService/DeleteResources" in each.first.what]


def test_folder_that_cannot_be_looked_into_is_not_called_empty(tmp_path: Path) -> None:
    """The data folder is its service's alone: whoever asks as another user must not hear that there are no traces."""
    (tmp_path / "telemetry").write_text("no folder")

    with pytest.raises(OSError, match="telemetry"):
        read_traces([tmp_path])


def test_lines_that_are_no_traces_are_passed_over(tmp_path: Path) -> None:
    """A power cut leaves half a line; the rest must still be seen."""
    (tmp_path / "telemetry").mkdir()
    lines = ["{", "[" * 100_000, "null", '{"resourceSpans": [{"scopeSpans": [{"spans": [{}]}]}]}']
    (tmp_path / "telemetry" / "traces.jsonl").write_text("\n".join(lines))

    assert read_traces([tmp_path, tmp_path / "absent"]) == []
