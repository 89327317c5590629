"""What nodes report, written many at once: on each engine it must be what one after the other would give."""

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from control_plane.db.models import node_config_status, nodes, sites, tenants
from control_plane.db.schema import migrate_schema
from control_plane.fleet.reports import Report, write_reports
from control_plane.fleet.service import FleetService
from faos.admin.v1 import admin_pb2 as admin
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core.clock import SystemClock
from faos_core.errors import UnauthenticatedError
from faos_core.ids import NodeIdentity, NodeName, SiteName, TenantName
from faos_core.store import Store
from tunnel.session import Target

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NODES = [NodeIdentity(TenantName("acme"), SiteName("main"), NodeName(f"node-{number}")) for number in range(20)]
REVOKED = NODES[7]
VERIFIED, HEALTHY = tunnel.APPLY_STATE_VERIFIED, tunnel.APPLY_STATE_HEALTHY


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    await asyncio.to_thread(migrate_schema, database_url)
    async with Store(database_url) as opened:
        await opened.write(fill)
        yield opened


def fill(connection: sa.Connection) -> None:
    connection.execute(tenants.insert().values(name="acme", created_at=NOW, tuf_root=b""))
    connection.execute(sites.insert().values(tenant="acme", name="main", labels={}, created_at=NOW))
    standing = {REVOKED: admin.NODE_STANDING_REVOKED}
    for number, it in enumerate(NODES):
        row = {"tenant": it.tenant, "name": it.node, "site": it.site, "spiffe_id": it.spiffe_id, "labels": {}}
        row |= {"public_key_sha256": b"k", "certificate_serial": f"{number}", "certificate_expires_at": NOW}
        row |= {"enrolled_at": NOW, "standing": standing.get(it, admin.NODE_STANDING_ADMITTED)}
        connection.execute(nodes.insert().values(row))


@pytest.fixture
def fleet(store: Store) -> FleetService:
    nobody: object = None
    return FleetService(store, nobody, SystemClock())  # type: ignore[arg-type]  # nothing is offered here


def status(state: tunnel.ApplyState.ValueType, revision: int = 1) -> tunnel.ApplyStatus:
    done = revision if state == HEALTHY else 0
    facts = tunnel.ConfigFacts(attempted_revision=revision, running_revision=done, healthy_revision=done)
    return tunnel.ApplyStatus(revision=revision, state=state, config=facts)


async def test_answers_of_many_nodes_are_each_in_the_database(fleet: FleetService, store: Store) -> None:
    """A fleet answers a push within a moment; each answer counts, the newest last, and one row per revision stays."""
    admitted = [it for it in NODES if it != REVOKED]
    for each in (status(VERIFIED), status(HEALTHY), status(HEALTHY, 2)):
        await asyncio.gather(*(fleet.reported(it, each) for it in admitted))

    columns = (nodes.c.healthy_revision, nodes.c.attempted_revision, nodes.c.state)
    query = sa.select(*columns).where(nodes.c.name != REVOKED.node)
    rows = await store.read(lambda connection: connection.execute(query).all())
    assert [tuple(row) for row in rows] == [(2, 2, HEALTHY)] * len(admitted)
    kept = await store.read(lambda connection: connection.execute(sa.select(node_config_status)).all())
    assert sorted((row.node, row.revision, row.state) for row in kept) == sorted(
        (it.node, revision, HEALTHY) for it in admitted for revision in (1, 2)
    )


async def test_answer_that_was_overtaken_is_kept_by_its_revision_alone(fleet: FleetService, store: Store) -> None:
    """What a node shows is the newest word on it; what became of an earlier revision is history, and kept."""
    node = NODES[0]
    await fleet.held_back(node, Target(3, b"", frozenset({9})), frozenset({9}))
    await fleet.reported(node, status(HEALTHY, 2), shown=False)

    shown = sa.select(nodes.c.state, nodes.c.nack_code, nodes.c.healthy_revision).where(nodes.c.name == node.node)
    assert tuple(await store.read(lambda connection: connection.execute(shown).one())) == (
        tunnel.APPLY_STATE_REJECTED,
        tunnel.NACK_CODE_KIND_UNKNOWN,
        2,
    )
    history = sa.select(node_config_status.c.revision, node_config_status.c.state)
    assert await store.read(lambda connection: [tuple(row) for row in connection.execute(history)]) == [(2, HEALTHY)]


async def test_revoked_node_among_many_is_refused_alone(fleet: FleetService, store: Store) -> None:
    """Nothing of a revoked node is recorded, and none of its neighbours pays for it."""
    outcomes = await asyncio.gather(*(fleet.reported(it, status(HEALTHY)) for it in NODES), return_exceptions=True)

    refused = [it for it, outcome in zip(NODES, outcomes, strict=True) if outcome is not None]
    assert refused == [REVOKED]
    assert isinstance(outcomes[NODES.index(REVOKED)], UnauthenticatedError)
    kept = await store.read(lambda connection: set(connection.execute(sa.select(node_config_status.c.node)).scalars()))
    assert kept == {it.node for it in NODES if it != REVOKED}


async def test_report_that_no_database_takes_fails_alone(fleet: FleetService, store: Store) -> None:
    """Whatever one node finds to say that we did not think of, it must not end the sessions of a thousand others."""
    first, second, third, *_ = NODES
    unwritable = NodeIdentity(first.tenant, first.site, NodeName("\ud800"))  # encodes to nothing

    outcomes = await asyncio.gather(
        *(fleet.reported(it, status(HEALTHY)) for it in (first, unwritable, second, REVOKED)),
        fleet.progressed(third, tunnel.NodeHeartbeat(active_runs=3)),
        fleet.progressed(unwritable, tunnel.NodeHeartbeat()),
        return_exceptions=True,
    )

    kinds = [type(None), UnicodeEncodeError, type(None), UnauthenticatedError, type(None), UnicodeEncodeError]
    assert [type(outcome) for outcome in outcomes] == kinds
    query = sa.select(nodes.c.healthy_revision, nodes.c.active_runs).order_by(nodes.c.name)
    here = nodes.c.name.in_([it.node for it in (first, second, third)])
    rows = await store.read(lambda connection: connection.execute(query.where(here)).all())
    assert [tuple(row) for row in rows] == [(1, 0), (1, 0), (0, 3)]


async def test_frames_of_different_kinds_are_written_together(fleet: FleetService, store: Store) -> None:
    """Heartbeats of some nodes and statuses of others come at the same moment, and name different columns."""
    first, second, third, *_ = NODES
    facts = tunnel.ConfigFacts(running_revision=9)
    await asyncio.gather(
        fleet.reported(first, status(HEALTHY)),
        fleet.progressed(second, tunnel.NodeHeartbeat(active_runs=3)),
        fleet.progressed(third, tunnel.NodeHeartbeat(active_runs=4, config=facts)),
    )

    columns = (nodes.c.healthy_revision, nodes.c.active_runs, nodes.c.running_revision)
    query = (
        sa.select(*columns).where(nodes.c.name.in_([it.node for it in (first, second, third)])).order_by(nodes.c.name)
    )
    rows = await store.read(lambda connection: connection.execute(query).all())
    assert [tuple(row) for row in rows] == [(1, 0, 1), (0, 3, 0), (0, 4, 9)]


async def test_highest_ledger_head_stays_and_a_lower_one_is_told(
    fleet: FleetService, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """The control plane is the witness of a ledger that was cut: it must neither forget its head nor be silent."""
    caplog.set_level(logging.ERROR)
    heads = [tunnel.LedgerHead(size=size, root_sha256=bytes([size]) * 32) for size in (5, 9, 5)]
    for head in heads:
        await asyncio.gather(*(fleet.progressed(it, tunnel.NodeHeartbeat(ledger_head=head)) for it in NODES[:3]))

    query = sa.select(nodes.c.ledger_size, nodes.c.ledger_root).where(nodes.c.name.in_([it.node for it in NODES[:3]]))
    rows = await store.read(lambda connection: connection.execute(query).all())
    assert [tuple(row) for row in rows] == [(9, bytes([9]) * 32)] * 3
    assert [record.message for record in caplog.records] == ["ledger.head_went_back"] * 3


async def test_many_are_as_many_statements_as_few(store: Store) -> None:
    """The cost of a push is that of its statements: they must not grow with the nodes."""
    head = tunnel.LedgerHead(size=1, root_sha256=b"r")

    def statements(connection: sa.Connection, identities: list[NodeIdentity]) -> int:
        seen: list[object] = []
        sa.event.listen(connection, "before_cursor_execute", lambda *about: seen.append(about))
        reports = [Report(it, {"active_runs": 1}, head=head) for it in identities]
        assert write_reports(connection, reports) == [None] * len(reports)
        return len(seen)

    few = await store.write(lambda connection: statements(connection, NODES[:1]))
    assert await store.write(lambda connection: statements(connection, NODES[1:7])) == few


async def test_node_that_says_what_no_column_holds_costs_only_itself(fleet: FleetService, store: Store) -> None:
    """Reports of all tenants are written together: one hostile node must not end the sessions of the others."""
    huge, hostile, honest = 2**64 - 1, NODES[0], NODES[1]
    wrong = status(tunnel.APPLY_STATE_REJECTED, huge)
    wrong.nack.resource_name = "a\0b"
    beat = tunnel.NodeHeartbeat(
        finished_runs=huge, active_runs=2**32 - 1, config=tunnel.ConfigFacts(running_revision=huge)
    )
    beat.ledger_head.size = huge
    good = tunnel.NodeHeartbeat(finished_runs=7, config=tunnel.ConfigFacts(running_revision=3))

    await asyncio.gather(fleet.reported(hostile, wrong), fleet.reported(honest, status(HEALTHY)))
    await asyncio.gather(fleet.progressed(hostile, beat), fleet.progressed(honest, good))

    columns = (nodes.c.finished_runs, nodes.c.running_revision)
    query = sa.select(*columns).where(nodes.c.name.in_([hostile.node, honest.node])).order_by(nodes.c.name)
    rows = await store.read(lambda connection: connection.execute(query).all())
    assert [tuple(row) for row in rows] == [(2**63 - 1, 2**63 - 1), (7, 3)]
