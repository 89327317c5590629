"""Nodes that were copied, restored or cut short are told apart, and come back when an operator says that they may."""

import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from data_plane.egress.service import ledger_folder
from data_plane.identity.store import IdentityStore
from faos.admin.v1 import admin_pb2 as admin
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from tests.system.harness import TENANT, RunningControlPlane, running_control_plane
from tests.system.test_certificate_life import light_node
from tests.system.test_enrolment import session_status
from tests.system.test_sessions import eventually
from tunnel.client import RECOVER, open_channel
from tunnel.error_mapping import from_rpc_error
from tunnel.identity import certificate_request, new_key
from tunnel.tls import Credentials


async def readmit(plane: RunningControlPlane, name: str) -> None:
    request = admin.ReadmitNodeRequest(tenant=TENANT, name=name, reason="one again")
    await plane.nodes.ReadmitNode(request, metadata=plane.metadata)


async def connected(plane: RunningControlPlane, data_dir: Path, name: str, *, epoch: int) -> str:
    """The alarm that the control plane shows once this start of the node has a session."""
    async with light_node(plane, data_dir, epoch=epoch) as side:
        await eventually(lambda: side.is_connected)
    return str((await plane.node(name)).alarm)


async def quarantine(plane: RunningControlPlane, data_dir: Path) -> None:
    """As a copy of the machine does, whose recovery count is that of the day when it was copied."""
    credentials = IdentityStore(data_dir).recovery()
    assert credentials
    async with open_channel(plane.tunnel_address, credentials) as channel:
        for _ in range(2):
            request = tunnel.RecoverRequest(counter=9, csr_der=certificate_request(new_key()))
            recover: Any = channel.unary_unary(RECOVER)
            await recover(request.SerializeToString()).code()


async def test_quarantined_node_comes_back_by_itself_once_it_is_readmitted(tmp_path: Path, database_url: str) -> None:
    """Its machine is far away, and its recovery count is behind: a restored backup must need no visit."""
    async with running_control_plane(
        tmp_path / "cp", database_url=database_url, node_certificate_lifetime_s=3.0
    ) as plane:
        await plane.create_tenant()
        member = await plane.join(tmp_path / "node")
        name = str(member.identity.node)
        await quarantine(plane, tmp_path / "node")
        assert (await plane.node(name)).standing == admin.NODE_STANDING_QUARANTINED

        async with light_node(plane, tmp_path / "node") as side:
            await eventually(expired(plane, member.credentials))
            assert not side.is_connected

            await readmit(plane, name)
            await eventually(lambda: side.is_connected)

        seen = await plane.node(name)
        assert (seen.standing, seen.alarm, seen.standing_reason) == (admin.NODE_STANDING_ADMITTED, "", "one again")


def expired(plane: RunningControlPlane, credentials: Credentials) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return (await session_status(plane, credentials))[0] is grpc.StatusCode.UNAVAILABLE

    return look


async def test_readmitted_clone_is_silent_until_there_are_two_again(tmp_path: Path, database_url: str) -> None:
    """An alarm that cannot be ended is one that nobody looks at; one that ends for good hides the next thief."""
    async with running_control_plane(tmp_path / "cp", database_url=database_url) as plane:
        await plane.create_tenant()
        name = str((await plane.join(tmp_path / "node")).identity.node)
        assert await connected(plane, tmp_path / "node", name, epoch=5) == ""
        assert await connected(plane, tmp_path / "node", name, epoch=2) == "node.cloned"
        told = (await plane.node(name)).alarm_explanation
        assert f"faos node readmit {name}" in told

        await readmit(plane, name)

        assert await connected(plane, tmp_path / "node", name, epoch=3) == ""
        assert await connected(plane, tmp_path / "node", name, epoch=4) == ""
        assert await connected(plane, tmp_path / "node", name, epoch=3) == "node.cloned"


async def test_start_with_a_shorter_ledger_is_an_alarm_until_it_is_accepted(tmp_path: Path, database_url: str) -> None:
    """The control plane is the witness of what the site has recorded: whoever cuts the record must not go unseen."""
    data = tmp_path / "node"
    async with running_control_plane(tmp_path / "cp", database_url=database_url) as plane:
        await plane.create_tenant()
        name = str((await plane.join(data)).identity.node)
        shutil.copytree(ledger_folder(data), tmp_path / "backup")
        for epoch in (1, 2):
            assert await connected(plane, data, name, epoch=epoch) == ""

        shutil.rmtree(ledger_folder(data))
        shutil.copytree(tmp_path / "backup", ledger_folder(data))

        assert await connected(plane, data, name, epoch=3) == "node.ledger_went_back"
        await readmit(plane, name)
        assert await connected(plane, data, name, epoch=4) == ""


async def test_revoked_node_is_not_readmitted(tmp_path: Path, database_url: str) -> None:
    """A ban that one word undoes is none: the machine joins anew, with keys that no thief has."""
    async with running_control_plane(tmp_path / "cp", database_url=database_url) as plane:
        await plane.create_tenant()
        name = str((await plane.join(tmp_path / "node")).identity.node)
        await plane.nodes.RevokeNode(admin.RevokeNodeRequest(tenant=TENANT, name=name), metadata=plane.metadata)

        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await readmit(plane, name)

        assert from_rpc_error(refused.value).code.code == "node.banned"
        assert (await plane.node(name)).standing == admin.NODE_STANDING_REVOKED
