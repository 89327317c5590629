"""A fleet is never of one version: the node of the commit before against the control plane of today, and the reverse.
Real processes, the whole path: enrol, apply, HEALTHY, heartbeats, and one more change."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from control_plane.app import Endpoints
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from tests.e2e.processes import FAOS, finished, running
from tests.patience import PATIENCE_S
from tests.ports import own_port
from tests.servers import earlier_version
from tests.system.harness import RunningControlPlane, running_control_plane
from tests.system.small_site import allow_all, fill_small_site, running_node, tool_server, until_settled
from tunnel.identity import SERVER_NAME

pytestmark = [pytest.mark.slow, pytest.mark.needs("history", "embedder", "bwrap")]


@pytest.fixture
def earlier(tmp_path: Path) -> dict[str, str]:
    """The environment of the earlier version."""
    if earlier_version.is_first():
        pytest.skip("this is the first version: the history is whole, and there is none before it")
    (folder := tmp_path / "earlier").mkdir()
    environment = earlier_version.unpack(folder)
    show = ("-c", "import tunnel, data_plane, faos.tunnel.v1, faos_cli as c; print(tunnel.__file__, c.__file__)")
    where = finished(FAOS[0], *show, cwd=tmp_path, environment=environment).stdout.split()
    assert len(where) == 2
    assert all(str(folder) in each for each in where), "it is not today's code that runs"
    return environment


async def goes_the_whole_path(plane: RunningControlPlane, name: str) -> None:
    """What a fleet needs of any pair of versions."""
    for revision, resources in enumerate(
        [[tool_server(), allow_all()], [tool_server(tools=["fine", "hangs"])]], start=1
    ):
        await plane.apply(*resources)
        seen = await until_settled(plane, name, revision)
        assert seen.config.state == tunnel.APPLY_STATE_HEALTHY, seen.config
        assert (seen.config.running_revision, seen.config.healthy_revision) == (revision, revision)
    heard, size = seen.last_seen_at, seen.ledger_size
    await until(plane, name, lambda node: node.last_seen_at != heard and node.ledger_size > size)
    seen = await plane.node(name)
    assert (seen.config.running_revision, seen.config.healthy_revision) == (2, 2), "heartbeats do not undo it"


async def until(plane: RunningControlPlane, name: str, is_so: Callable[[Any], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not is_so(await plane.node(name)):
            await asyncio.sleep(0.1)


async def test_node_of_the_commit_before_serves_under_todays_control_plane(
    tmp_path: Path, earlier: dict[str, str]
) -> None:
    """The cloud is upgraded first, and sites follow when it suits them: months later."""
    site_toml, data = fill_small_site(tmp_path / "site"), tmp_path / "node"
    async with running_control_plane(tmp_path / "cp", heartbeat_s=1.0) as plane:
        await plane.create_tenant()
        where = ("--data", str(data), "--site-file", str(site_toml))
        command = (*FAOS, "join", await plane.join_string(), *where)
        joined = await asyncio.to_thread(finished, *command, cwd=tmp_path, environment=earlier)
        assert joined.returncode == 0, joined.stdout + joined.stderr
        (name,) = [node.name for node in await plane.all_nodes()]

        with running(*FAOS, "node", "run", *where, "--soak", "0.1", cwd=tmp_path, environment=earlier):
            await goes_the_whole_path(plane, name)


async def test_node_of_today_serves_under_the_control_plane_of_the_commit_before(
    tmp_path: Path, earlier: dict[str, str]
) -> None:
    """A site that upgrades by itself must not depend on what the cloud did first."""
    site_toml = fill_small_site(tmp_path / "site")
    async with earlier_control_plane(tmp_path, earlier) as plane:
        await plane.create_tenant()
        member = await plane.join(tmp_path / "node")

        async with running_node(tmp_path / "node", site_toml):
            await goes_the_whole_path(plane, str(member.identity.node))


@asynccontextmanager
async def earlier_control_plane(folder: Path, environment: dict[str, str]) -> AsyncIterator[RunningControlPlane]:
    """A process of the earlier version, and today's stubs of its admin API."""
    data = folder / "cp"
    settings = folder / "control-plane.toml"
    listen = {"tunnel_listen": f"127.0.0.1:{own_port()}", "admin_listen": f"127.0.0.1:{own_port()}"}
    values = {"data_dir": str(data), **listen, "heartbeat_s": 1.0}
    settings.write_text("\n".join(f"{key} = {json.dumps(value)}" for key, value in values.items()))
    command = (*FAOS, "control-plane", "run", "--config", str(settings))
    with running(*command, cwd=folder, environment=environment) as process:
        await asyncio.to_thread(process.until, "control_plane.ready")
        facts = json.loads((data / "endpoints.json").read_text())
        endpoints = Endpoints(facts["tunnel_port"], facts["admin_port"])
        credentials = grpc.ssl_channel_credentials((data / "ca" / "ca.pem").read_bytes())
        options = [("grpc.ssl_target_name_override", SERVER_NAME)]
        async with grpc.aio.secure_channel(listen["admin_listen"], credentials, options) as channel:
            token = (data / "admin.token").read_text().strip()
            yield RunningControlPlane(data, endpoints, channel, (("authorization", f"Bearer {token}"),))
