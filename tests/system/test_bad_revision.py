"""A revision that does not work, over the real pair of planes: rolled back, quarantined across restarts, said why, and
not tried again; and one that kills the node's process."""

import asyncio
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from google.protobuf.message import DecodeError

from control_plane.db.models import nodes
from data_plane.link import session as node_session
from faos.admin.v1.admin_pb2 import LIVENESS_LIVE as LIVE
from faos.resource.v1 import resource_pb2 as pb
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core.kinds import BY_KIND
from tests.e2e.processes import FAOS, running
from tests.patience import PATIENCE_S
from tests.system.sites import Site
from tests.system.small_site import FIXTURES, agent, allow_all, fill_small_site, model, toml_table, tool_server

pytestmark = pytest.mark.needs("embedder", "bwrap")

LONG_S = 600.0  # a soak that no test sees the end of
END = "end"
HEARTBEAT_S = 3.0  # three missed ones end a session, and what a node says of a revision is said again over the next


def fill(folder: Path) -> Path:
    """A site that has a program, too, that ends by itself once it is told."""
    site_toml = fill_small_site(folder)
    (told := folder / "told").mkdir()
    command = [sys.executable, str(FIXTURES / "short_lived.py"), str(told / END)]
    program = toml_table("programs.short-lived", {"command": command, "readable": [str(FIXTURES), str(told)]})
    site_toml.write_text(f"{site_toml.read_text()}\n{program}")
    return site_toml


def short_lived() -> pb.Resource:
    return tool_server("fragile", program="short-lived")


def statuses(site: Site, revision: int) -> Counter[str]:
    """How often nodes said which state of a revision."""
    frames = (frame_of(body) for body in site.received())
    found = (frame.apply_status for frame in frames if frame and frame.HasField("apply_status"))
    return Counter(tunnel.ApplyState.Name(each.state) for each in found if each.revision == revision)


def frame_of(body: bytes) -> tunnel.NodeFrame | None:
    try:
        return tunnel.NodeFrame.FromString(body)
    except DecodeError:
        return None  # Enroll's


async def beats(site: Site) -> None:
    """Return after two heartbeats of every node: what was to be offered has been."""
    await asyncio.gather(*(beats_of(site, place) for place in range(len(site.nodes))))


async def beats_of(site: Site, place: int) -> None:
    for _ in range(2):
        before = (await site.facts(place)).last_seen_at
        async with asyncio.timeout(PATIENCE_S):
            while (await site.facts(place)).last_seen_at == before:
                await asyncio.sleep(0.05)


async def test_bad_revision_on_three_nodes_is_rolled_back_quarantined_and_said_why(tmp_path: Path) -> None:
    """The promise of the soak: a site goes on with what worked, its operator reads why, and nobody tries it again."""
    async with Site(tmp_path, nodes=3, fill=fill, heartbeat_s=HEARTBEAT_S) as site:
        await site.apply(tool_server(), allow_all())
        await site.converged()
        for place in range(3):
            await site.restart(place, soak_s=LONG_S)

        await site.apply(short_lived())
        for place in range(3):
            await site.settled(place, states=(tunnel.APPLY_STATE_SOAKING,))
        (tmp_path / "site" / "told" / END).touch()
        for place, each in enumerate(site.nodes):
            config = (await site.settled(place)).config
            assert config.state == tunnel.APPLY_STATE_ROLLED_BACK
            assert (config.attempted_revision, config.running_revision, config.healthy_revision) == (2, 1, 1)
            assert (config.nack.code, config.nack.resource_name) == (tunnel.NACK_CODE_TOOL_SERVER_FAILED, "fragile")
            assert "by hand" in config.nack.explanation
            assert each.running.activation.running().revision == 1

        tried = statuses(site, 2)
        assert tried["APPLY_STATE_RECEIVED"] == 3
        for place in range(3):
            await site.restart(place, soak_s=0.1)
        await site.restart_control_plane()
        await beats(site)
        for place, each in enumerate(site.nodes):
            facts = each.running.applier.facts()
            assert (facts.running_revision, facts.healthy_revision) == (1, 1)
            assert list(facts.quarantined_code) == [tunnel.NACK_CODE_TOOL_SERVER_FAILED]
            config = (await site.facts(place)).config
            assert (config.state, config.running_revision) == (tunnel.APPLY_STATE_ROLLED_BACK, 1)
        assert statuses(site, 2)["APPLY_STATE_RECEIVED"] == 3, "nobody was offered it again"

        await site.apply(tool_server("fragile"))
        await site.converged()


async def test_stale_facts_are_put_right_by_the_next_heartbeat(tmp_path: Path) -> None:
    """A status that a cut stream swallowed must not stand until the next reconnect, which may be weeks away."""
    async with Site(tmp_path) as site:
        await site.apply(tool_server(), allow_all())
        await site.converged()
        engine = sa.create_engine(site.database)
        with engine.begin() as connection:
            connection.execute(sa.update(nodes).values(running_revision=0, healthy_revision=7))
        engine.dispose()

        async with asyncio.timeout(PATIENCE_S):
            while (config := (await site.facts()).config).running_revision != 1:
                await asyncio.sleep(0.05)

        assert config.healthy_revision == 1


async def test_kind_that_a_node_does_not_know_is_held_back_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old node keeps what it runs; its operator reads which kind is too new, and not that all is well."""
    known = {kind: row for kind, row in BY_KIND.items() if kind != pb.KIND_TOOL_SERVER}
    monkeypatch.setattr(node_session, "BY_KIND", known)
    async with Site(tmp_path) as site:
        await site.apply(allow_all())
        await site.converged()

        await site.apply(tool_server())
        async with asyncio.timeout(PATIENCE_S):
            while not (config := (await site.facts()).config).HasField("nack"):
                await asyncio.sleep(0.05)

        assert config.state == tunnel.APPLY_STATE_REJECTED
        assert (config.nack.code, config.nack.kind) == (tunnel.NACK_CODE_KIND_UNKNOWN, "ToolServer")
        await beats(site)
        assert (await site.facts()).config.nack.code == tunnel.NACK_CODE_KIND_UNKNOWN
        assert not statuses(site, 2)
        assert (await site.facts()).config.running_revision == 1


@pytest.mark.needs("model")
async def test_resources_that_need_each_other_come_up_in_one_revision(tmp_path: Path) -> None:
    """In whatever order they were written: the agent serves once its model and its tools do."""
    async with Site(tmp_path) as site:
        await site.apply(agent(tools=["rogue"], policies=["all"]), allow_all(), tool_server(), model())
        await site.converged()

        assert site.node.running.activation.running().names() == {"assistant", "all", "rogue", "smollm2"}


@pytest.mark.slow
async def test_revision_during_which_the_process_is_killed_twice_is_given_up(tmp_path: Path) -> None:
    """What takes the process with it cannot say so itself; it must not be the last thing that a site ever runs."""
    async with Site(tmp_path, fill=fill, heartbeat_s=HEARTBEAT_S) as site:
        await site.apply(tool_server(), allow_all())
        await site.converged()
        node = site.node
        await node.stop()
        await site.apply(tool_server("second"))

        command = (*FAOS, "node", "run", "--data", str(node.data_dir), "--site-file", str(site.site_toml))
        for attempt in (1, 2):
            with running(*command, "--soak", str(LONG_S), cwd=tmp_path) as process:
                await soaked(site, 2, times=attempt)
                process.process.send_signal(signal.SIGKILL)
                assert await asyncio.to_thread(process.process.wait, PATIENCE_S) == -signal.SIGKILL
            await shown_as_gone(site)
        with running(*command, "--soak", str(LONG_S), cwd=tmp_path):
            config = await seen_in(site, tunnel.APPLY_STATE_ROLLED_BACK)

        assert config.nack.code == tunnel.NACK_CODE_CRASHED
        assert (config.running_revision, config.healthy_revision) == (1, 1)
        assert statuses(site, 2)["APPLY_STATE_SOAKING"] == 2


async def soaked(site: Site, revision: int, *, times: int) -> None:
    """Once nodes have said so often that they soak it: what one said before still stands at the next's Hello."""
    async with asyncio.timeout(PATIENCE_S):
        while statuses(site, revision)["APPLY_STATE_SOAKING"] < times:
            await asyncio.sleep(0.05)


async def seen_in(site: Site, state: tunnel.ApplyState.ValueType) -> Any:
    """The node's configuration as its operator sees it, once it is in this state under a live session."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            seen = await site.facts()
            if seen.config.state == state and seen.liveness == LIVE:
                return seen.config
            await asyncio.sleep(0.05)


async def shown_as_gone(site: Site) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while (await site.facts()).liveness == LIVE:
            await asyncio.sleep(0.05)
