"""What nodes report, written for many of them at once: each statement is one call of the driver for all of its rows.

For `Store.write_together`: a push to a thousand nodes is answered a thousand times within a moment. Rows are touched
in the order of the nodes' names, each node's own row first, so that control planes over one database take locks in the
same order.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from control_plane.db.models import node_config_status, nodes
from control_plane.identity.standing import is_node, require_standing
from faos.admin.v1 import admin_pb2 as admin
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core import names
from faos_core.errors import UnauthenticatedError
from faos_core.ids import NodeIdentity

log = logging.getLogger(__name__)

UPSERTS = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}
KEY = ("tenant", "node", "revision")  # of node_config_status
HERE = sa.and_(nodes.c.tenant == sa.bindparam("of_tenant"), nodes.c.name == sa.bindparam("of_name"))
UPDATE = sa.update(nodes).where(HERE, nodes.c.standing == admin.NODE_STANDING_ADMITTED)
KEEP_HEAD = sa.update(nodes).where(HERE).values(ledger_size=sa.bindparam("size"), ledger_root=sa.bindparam("root"))
UNWRITABLE = (sa.exc.SQLAlchemyError, ArithmeticError, ValueError)  # what drivers say of a value that is none
MOST_SIZE = 2**63 - 1  # of a ledger, as the column holds it; no ledger of ours gets there
NAMES_AT_ONCE = 500  # engines bound the parameters of one statement


@dataclass(frozen=True, slots=True)
class Report:
    """What one frame of a node changes."""

    identity: NodeIdentity
    values: Mapping[str, Any]  # columns of `nodes`
    history: Mapping[str, Any] | None = None  # a row of `node_config_status`
    head: tunnel.LedgerHead | None = None

    @property
    def row(self) -> dict[str, Any]:
        return {"of_tenant": self.identity.tenant, "of_name": self.identity.node, **self.values}


def write_reports(connection: sa.Connection, reports: Sequence[Report]) -> list[BaseException | None]:
    """Every frame asks again whether the node is admitted: for one that is not, nothing is written, and an
    UnauthenticatedError stands in its place."""
    refused = _update_nodes(connection, sorted(reports, key=lambda it: (it.identity.tenant, it.identity.node)))
    admitted = [report for report in reports if report.identity not in refused]
    _keep_heads(connection, [report for report in admitted if report.head is not None])
    _remember(connection, [report.history for report in admitted if report.history is not None])
    return [refused.get(report.identity) for report in reports]


def write_report(connection: sa.Connection, report: Report) -> None:
    """One alone. Raises UnauthenticatedError: the node is not admitted, and nothing was written."""
    (refused,) = write_reports(connection, [report])
    if refused is not None:
        raise refused


def _update_nodes(connection: sa.Connection, reports: Sequence[Report]) -> dict[NodeIdentity, UnauthenticatedError]:
    """Those whose rows were not updated, and why."""
    refused: dict[NodeIdentity, UnauthenticatedError] = {}
    groups: dict[tuple[str, ...], list[Report]] = {}
    for report in reports:
        groups.setdefault(tuple(report.values), []).append(report)
    for alike in groups.values():
        if connection.execute(UPDATE, [report.row for report in alike]).rowcount != len(alike):
            refused |= _not_admitted(connection, alike)
    return refused


def _not_admitted(connection: sa.Connection, reports: Iterable[Report]) -> dict[NodeIdentity, UnauthenticatedError]:
    refused = {}
    for identity in {report.identity for report in reports}:
        try:
            require_standing(connection.execute(sa.select(nodes).where(is_node(identity))).first(), identity)
        except UnauthenticatedError as error:
            refused[identity] = error
    return refused


def _keep_heads(connection: sa.Connection, reports: Sequence[Report]) -> None:
    """Keep the highest ledger head. One that is smaller, or differs at the same size, means that the site's ledger
    was cut or rewritten: it is not stored, and a person is told."""
    kept = _kept_heads(connection, {report.identity for report in reports})
    rows = []
    for report in reports:
        head, (size, root) = report.head or tunnel.LedgerHead(), kept.get(report.identity, (0, b""))
        if size < head.size <= MOST_SIZE:
            place = {"of_tenant": report.identity.tenant, "of_name": report.identity.node}
            rows.append(place | {"size": head.size, "root": head.root_sha256})
            kept[report.identity] = (head.size, head.root_sha256)
        elif (head.size, head.root_sha256) != (size, root):
            log.error("ledger.head_went_back", extra={names.NODE: report.identity.node, names.SIZE: head.size})
    if rows:
        connection.execute(KEEP_HEAD, rows)


def _kept_heads(connection: sa.Connection, identities: set[NodeIdentity]) -> dict[NodeIdentity, tuple[int, bytes]]:
    by_key = {(it.tenant, it.node): it for it in identities}
    columns = (nodes.c.tenant, nodes.c.name, nodes.c.ledger_size, nodes.c.ledger_root)
    found: dict[NodeIdentity, tuple[int, bytes]] = {}
    for tenant in {it.tenant for it in identities}:
        wanted = sorted(it.node for it in identities if it.tenant == tenant)
        for chunk in (wanted[first : first + NAMES_AT_ONCE] for first in range(0, len(wanted), NAMES_AT_ONCE)):
            query = sa.select(*columns).where(nodes.c.tenant == tenant, nodes.c.name.in_(chunk))
            found |= {
                by_key[row.tenant, row.name]: (row.ledger_size, row.ledger_root or b"")
                for row in connection.execute(query)
            }
    return found


def _remember(connection: sa.Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """One row per revision: its newest status."""
    if not rows:
        return
    insert: Any = UPSERTS[connection.dialect.name](node_config_status)
    newest = {name: insert.excluded[name] for name in rows[0] if name not in KEY}
    connection.execute(insert.on_conflict_do_update(index_elements=KEY, set_=newest), rows)
