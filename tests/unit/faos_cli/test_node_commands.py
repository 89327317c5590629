"""What an operator does to a node: revoke, evict, readmit, as typed."""

from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from control_plane.db.models import nodes
from faos.admin.v1 import admin_pb2 as admin
from tests.system.harness import RunningControlPlane

if TYPE_CHECKING:
    from tests.unit.faos_cli.conftest import RunFaos


async def a_node(plane: RunningControlPlane, folder: Path) -> str:
    return str((await plane.join(folder)).identity.node)


def seen_twice(plane: RunningControlPlane, name: str) -> None:
    """As the database says it of a node whose recovery key was used by two."""
    engine = sa.create_engine(f"sqlite:///{plane.data_dir / 'control-plane.db'}")
    with engine.begin() as connection:
        values = {"standing": admin.NODE_STANDING_QUARANTINED, "alarm": "node.recovery_reused", "recovery_counter": 7}
        assert connection.execute(sa.update(nodes).where(nodes.c.name == name).values(values)).rowcount == 1
    engine.dispose()


async def test_revoked_node_is_shown_with_its_reason_and_is_evicted_to_come_back(
    plane: RunningControlPlane, run_faos: "RunFaos", tmp_path: Path
) -> None:
    """The two commands after a theft, and after the machine was found again."""
    await plane.create_tenant()
    name = await a_node(plane, tmp_path / "node")

    revoked = await run_faos("node", "revoke", name, "--reason", "stolen from the van")
    table = await run_faos("get", "nodes")
    described = await run_faos("describe", "node", name)
    readmitted = await run_faos("node", "readmit", name)
    evicted = await run_faos("node", "evict", name)
    gone = await run_faos("node", "revoke", name)

    assert (revoked.code, revoked.out) == (0, f"node/{name} revoked\n")
    assert "REVOKED" in table.out
    assert "REVOKED · stolen from the van" in described.out
    assert readmitted.code == 1
    assert f"faos node evict {name}" in readmitted.err
    assert (evicted.code, evicted.out) == (0, f"node/{name} evicted\n")
    assert (gone.code, "faos get nodes" in gone.err) == (1, True)


async def test_quarantined_node_says_what_to_type_and_typing_it_helps(
    plane: RunningControlPlane, run_faos: "RunFaos", tmp_path: Path
) -> None:
    """The operator has never seen this before: the alarm itself must lead out of it, and the log say who did it."""
    await plane.create_tenant()
    name = await a_node(plane, tmp_path / "node")
    seen_twice(plane, name)

    table = await run_faos("get", "nodes")
    described = await run_faos("describe", "node", name)
    readmitted = await run_faos("node", "readmit", name, "--reason", "restored on Monday")
    after = await run_faos("describe", "node", name)
    log = await run_faos("get", "audit")

    assert "node.recovery_reused" in table.out
    assert f"faos node readmit {name}" in " ".join(described.out.split())
    assert (readmitted.code, readmitted.out) == (0, f"node/{name} readmitted\n")
    assert "ADMITTED · restored on Monday" in after.out
    assert "alarm" not in after.out
    assert next(line.split()[3:6] for line in log.out.splitlines() if name in line) == ["ReadmitNode", name, "OK"]


async def test_reason_that_is_too_long_is_refused(
    plane: RunningControlPlane, run_faos: "RunFaos", tmp_path: Path
) -> None:
    """PostgreSQL would refuse the row, and with it the ban."""
    await plane.create_tenant()
    name = await a_node(plane, tmp_path / "node")

    for verb in ("revoke", "readmit"):
        done = await run_faos("node", verb, name, "--reason", "x" * 256)
        assert (done.code, "255" in done.err) == (1, True)
    assert (await plane.node(name)).standing == admin.NODE_STANDING_ADMITTED
