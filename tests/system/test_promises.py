"""What the design promises, over the real pair of planes with the real model: tests that fail when a promise breaks."""

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from control_plane.fleet.frame_record import read_frames
from data_plane.app import Node, node
from data_plane.ceiling.models import Ceiling
from data_plane.egress.ledger_verifier import verify
from data_plane.egress.reader import read_leaves
from data_plane.egress.service import ledger_folder
from data_plane.identity.join import join
from data_plane.settings import ApplyTimes, NodeSettings
from faos.resource.v1 import resource_pb2 as pb
from faos.site.v1 import site_pb2 as site
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core.clock import SystemClock
from tests.system.canary import Canary, EveryLogLine, files_below, forms_of
from tests.system.counting_proxy import counting_proxy
from tests.system.harness import running_control_plane
from tests.system.small_site import (
    agent,
    allow_all,
    ask,
    fill_small_site,
    knowledge_base,
    model,
    running_node,
    tool_server,
    until_settled,
)
from tunnel.identity import decode_join_string, encode_join_string

pytestmark = [pytest.mark.needs("model", "embedder", "bwrap"), pytest.mark.slow]

# What TLS 1.3, HTTP/2 and gRPC add to the bodies, as TCP payload: a handshake with the node's certificate chain,
# settings and headers per connection; record, frame and message headers, window updates and pings per leaf.
BYTES_PER_CONNECTION = 3_000
BYTES_PER_LEAF = 200
TOOLS = ("says", "dies", "hangs", "garbage")
ENDS = [[""], ["tool.server_died"], ["tool.server_hung"], ["tool.server_garbage"]]  # of their calls, in a run's journal


def leaky_resources() -> list[pb.Resource]:
    """One agent over the documents, and one for each way in which the leaky server spills."""
    timeouts = {"hangs": 2}
    servers = [tool_server(f"server-{tool}", tools=[tool], call_timeout_s=timeouts.get(tool, 60)) for tool in TOOLS]
    required = {"policies": ["all"], "tool_choice": pb.TOOL_CHOICE_REQUIRED, "limits": pb.RunLimits(max_tool_calls=1)}
    agents = [agent(f"agent-{tool}", tools=[f"server-{tool}"], **required) for tool in TOOLS]
    return [model(), knowledge_base(), allow_all(), agent(knowledge=["handbook"]), *servers, *agents]


def plant(canary: Canary, folder: Path) -> Path:
    """A site whose documents, their names and whose tool all tell the canary; the path of site.toml."""
    folder.mkdir()
    (folder / "spill.txt").write_text(canary.planted())
    site_toml = fill_small_site(folder / "site", program=("leaky.py", str(folder / "spill.txt")))
    handbook = folder / "site" / "handbook"
    (handbook / f"patient {canary.left}.md").write_text(f"The patient is {canary.text}.\n\n{canary.planted()}\n")
    (handbook / "one.md").write_text(f"The first half of the patient's number is {canary.left}.\n")
    (handbook / "two.md").write_text(f"The second half of the patient's number is {canary.right}.\n")
    return site_toml


async def use_everything(running: Node, canary: Canary) -> list[tuple[site.Run, list[site.Step]]]:
    question = f"Who is {canary.text}?"
    done = [await ask(running, question)]
    return [*done, *[await ask(running, question, f"agent-{tool}") for tool in TOOLS]]


def test_the_search_finds_what_was_planted() -> None:
    """A search that finds nothing proves nothing, unless it finds what is there."""
    canary, other = Canary(), Canary()

    for name, form in canary.forms().items():
        hits = canary.search({"a file": b"noise " + form + b" noise"})
        assert f"{name} in a file" in hits, name
        assert other.search({"a file": b"noise " + form + b" noise"}) == [], name
    assert {name.split(", ", 1)[1] for name in canary.forms()} == set(forms_of("text"))


async def test_nothing_of_the_customers_goes_up_or_lies_in_the_clear_and_the_ledger_covers_the_wire(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promises 1 and 2: after documents, questions, answers, tools that spill, die and talk garbage, no form of the
    canary is anywhere but where it was planted; and no byte went up that the ledger does not account for."""
    (scratch := tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    canary = Canary()
    site_toml = plant(canary, tmp_path / "planted")
    left_over: dict[str, bytes] = {}

    with EveryLogLine() as logged:
        async with running_control_plane(tmp_path / "cp", heartbeat_s=1) as plane:
            await plane.create_tenant()
            async with counting_proxy(plane.endpoints.tunnel_port) as wire:
                string = decode_join_string(await plane.join_string())
                string.addresses[:] = [f"127.0.0.1:{wire.port}"]
                member = await join(tmp_path / "node", encode_join_string(string), Ceiling())
                async with running_node(tmp_path / "node", site_toml) as running:
                    applied = await plane.apply(*leaky_resources())
                    seen = await until_settled(plane, member.identity.node, applied.revision)
                    assert seen.config.state == tunnel.APPLY_STATE_HEALTHY, str(seen.config)
                    runs = await use_everything(running, canary)
                    left_over |= files_below(tmp_path, apart_from=[tmp_path / "planted"])  # WAL and temporary files
        left_over |= {
            f"later {name}": data for name, data in files_below(tmp_path, apart_from=[tmp_path / "planted"]).items()
        }

    journals = "".join(str(steps) + run.output for run, steps in runs).encode()
    assert canary.search({"journals": journals}), "the node did handle it"
    assert all(run.finished_at.seconds for run, _ in runs), "whatever a tool server did, its run came to an end"
    assert [calls_of(steps) for _, steps in runs[1:]] == ENDS
    frames = list(read_frames(tmp_path / "cp" / "received-frames.bin"))
    haystacks = {**left_over, "frames": b"\n".join(frames), "logs": "\n".join(logged.lines).encode()}
    assert canary.search(haystacks) == []
    assert any(name.endswith("node.db-wal") for name in left_over), "the WAL was looked at while it was there"

    report = verify(ledger_folder(tmp_path / "node"))
    leaves = list(read_leaves(ledger_folder(tmp_path / "node")))
    assert report.ok, report.problem
    remaining = iter([leaf.body for leaf in leaves])
    assert all(frame in remaining for frame in frames), "what was received is a subsequence of the leaves"
    overhead = wire.up_bytes - sum(leaf.size_bytes for leaf in leaves)
    assert 0 < overhead <= wire.connections * BYTES_PER_CONNECTION + len(leaves) * BYTES_PER_LEAF


def calls_of(steps: list[site.Step]) -> list[str]:
    """How each tool call ended."""
    return [step.error_code for step in steps if step.kind == site.STEP_KIND_TOOL]


class MonthsLater(SystemClock):
    """The node's certificate and all that the control plane signed have long expired."""

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(days=400)


async def test_site_works_with_its_cloud_gone_after_a_restart_months_later(tmp_path: Path) -> None:
    """Promise 4: what was last known good is activated from disk, and agents answer from documents."""
    site_toml = fill_small_site(tmp_path / "site")
    async with running_control_plane(tmp_path / "cp") as plane:
        await plane.create_tenant()
        member = await plane.join(tmp_path / "node")
        async with running_node(tmp_path / "node", site_toml):
            await plane.apply(model(), knowledge_base(), agent(knowledge=["handbook"]), tool_server(), allow_all())
            seen = await until_settled(plane, member.identity.node, 1)
            assert seen.config.state == tunnel.APPLY_STATE_HEALTHY, str(seen.config)

    settings = NodeSettings(data_dir=tmp_path / "node", site_file=site_toml, apply=ApplyTimes(soak_s=0.1))
    async with node(settings, clock=MonthsLater()) as running:
        run, steps = await ask(running, "What do I wear in the laboratory?")

        assert not running.session.is_connected
        assert running.applier.facts().running_revision == 1
        assert running.applier.alarms() == ()
    assert "gloves" in str(steps[0].result)
    assert (run.state, run.error_code) == (site.RUN_STATE_SUCCEEDED, "")
