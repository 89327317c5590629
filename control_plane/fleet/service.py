"""The fleet: what nodes said, durably, and what each shall run. Implements tunnel.interfaces.Fleet."""

import asyncio
import logging
import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from control_plane.db.models import node_config_status, nodes
from control_plane.fleet.interfaces import Desired
from control_plane.fleet.offers import Offers
from control_plane.fleet.reports import UNWRITABLE, Report, write_report, write_reports
from control_plane.identity.errors import LEDGER_WENT_BACK, NODE_CLONED, NODE_UNKNOWN
from control_plane.identity.standing import require_standing, serial_of
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core import names
from faos_core.clock import Clock
from faos_core.errors import NotFoundError, UnauthenticatedError
from faos_core.ids import NodeIdentity
from faos_core.store import Store
from tunnel.errors import BLOB_UNKNOWN
from tunnel.offer_frame import EncodedOffer
from tunnel.session import REFUSALS, TRANSIENT, Target
from tunnel.tls import Peer

log = logging.getLogger(__name__)

MOST = 2**63 - 1  # that a column of numbers holds; a frame's go to twice as much
MOST_FIELDS = 32  # of a NACK's path; a resource is not nested deeper
LINGER_S = 0.1  # at most, that a heartbeat waits for others to be written with it
HERE = sa.and_(nodes.c.tenant == sa.bindparam("of_tenant"), nodes.c.name == sa.bindparam("of_name"))
NODE = sa.select(nodes).where(HERE)  # made once: making a statement costs more than executing it
UPDATE = sa.update(nodes).where(HERE)
UPDATE_OURS = UPDATE.where(nodes.c.connected_to == sa.bindparam("of_replica"))
REFUSED = sa.select(node_config_status.c.revision).where(
    node_config_status.c.tenant == sa.bindparam("of_tenant"),
    node_config_status.c.node == sa.bindparam("of_name"),
    node_config_status.c.state.in_(sorted(REFUSALS)),
    node_config_status.c.nack_code.not_in(sorted(TRANSIENT)),
)


class FleetService:
    """Safe for concurrent use by any number of sessions, of any number of control planes over one database.

    What nodes report is written without waiting for other processes: each write touches the rows of one node, or of
    many in the order of their names (reports.py), and updates a node's own row first, which locks it.
    """

    def __init__(self, store: Store, desired: Desired, clock: Clock) -> None:
        self._store = store
        self._desired = desired
        self._clock = clock
        self.replica = secrets.token_hex(8)  # names this process beside others over the same database
        self._offers: dict[str, Offers] = {}  # by tenant, of its standing revision
        self._labels: dict[NodeIdentity, Mapping[str, str]] = {}
        self._shared_labels: dict[tuple[tuple[str, str], ...], Mapping[str, str]] = {}  # nodes of a site have the same

    async def authorise(self, identity: NodeIdentity, peer: Peer) -> None:
        """The certificate must be the one that this node uses, or one that it was given since and has not used yet.

        Raises UnauthenticatedError.
        """
        row = await self._store.read(lambda connection: connection.execute(NODE, _here(identity)).first())
        require_standing(row, identity)
        if row is None or serial_of(peer.serial) not in (row.certificate_serial, row.pending_serial):
            raise UnauthenticatedError(NODE_UNKNOWN, node=identity.node)
        self._labels[identity] = self._shared_labels.setdefault(tuple(sorted(row.labels.items())), row.labels)

    async def greeted(self, identity: NodeIdentity, hello: tunnel.Hello, peer: Peer) -> frozenset[int]:
        """Record Hello; the revisions that this node refused before. The first Hello with a pending certificate makes
        it the only one. Raises UnauthenticatedError when the node lost its standing, or its certificate, meanwhile."""
        values = {
            "last_seen_at": self._clock.now(),
            "connected_to": self.replica,
            "version": _text(hello.node_version, 64),
            **_facts(hello.config),
        }
        here = _here(identity)

        def write(connection: sa.Connection) -> frozenset[int]:
            if connection.execute(UPDATE, here | values).rowcount == 0:
                raise UnauthenticatedError(NODE_UNKNOWN, node=identity.node)
            row = connection.execute(NODE, here).one()
            require_standing(row, identity)
            starts = _starts(row, identity, hello) | _promotion(row, identity, peer)
            write_reports(connection, [Report(identity, starts, head=hello.ledger_head)])
            return frozenset(connection.execute(REFUSED, here).scalars())

        return await self._store.write(write, serial=False)

    async def reported(self, identity: NodeIdentity, status: tunnel.ApplyStatus, *, shown: bool = True) -> None:
        """Record what became of an offer: on the node, unless it was overtaken, and in its history by revision."""
        columns = _status(status, self._clock.now())
        if status.state in REFUSALS:  # the others are in the database, and too many for a log
            fields = {names.NODE: identity.node, names.REVISION: status.revision}
            log.info("config.refused", extra={**fields, names.STATE: tunnel.ApplyState.Name(status.state)})
        on_node = {**(columns if shown else {}), **_facts(status.config), "last_seen_at": columns["status_at"]}
        key = {"tenant": identity.tenant, "node": identity.node, "revision": _number(status.revision)}
        history = key | {("at" if name == "status_at" else name): value for name, value in columns.items()}
        await self._write(Report(identity, on_node, history))

    async def progressed(self, identity: NodeIdentity, heartbeat: tunnel.NodeHeartbeat) -> None:
        """Record that the node lives and what it says of itself, as of now. Takes up to `LINGER_S`: those of many
        nodes trickle in, and a transaction for each would keep the disk busy with nothing else."""
        values = {
            "last_seen_at": self._clock.now(),
            "connected_to": self.replica,
            "active_runs": heartbeat.active_runs,
            "finished_runs": _number(heartbeat.finished_runs),
            **(_facts(heartbeat.config) if heartbeat.HasField("config") else {}),
        }
        await asyncio.sleep(LINGER_S - asyncio.get_running_loop().time() % LINGER_S)
        await self._write(Report(identity, values, head=heartbeat.ledger_head))

    async def held_back(self, identity: NodeIdentity, target: Target, kinds: frozenset[int]) -> None:
        """The node is too old for what it should run; shown as a refusal that names the kind."""
        status = tunnel.ApplyStatus(revision=target.revision, state=tunnel.APPLY_STATE_REJECTED)
        status.nack.code = tunnel.NACK_CODE_KIND_UNKNOWN
        status.nack.failed_to_reach = tunnel.APPLY_STATE_RECEIVED
        columns = {**_status(status, self._clock.now()), "nack_kind": min(kinds)}
        await self._update(identity, columns)

    async def left(self, identity: NodeIdentity) -> None:
        self._labels.pop(identity, None)
        values = {"last_seen_at": self._clock.now(), "connected_to": ""}
        row = _here(identity) | {"of_replica": self.replica} | values  # another may have it by now
        await self._store.write(lambda connection: connection.execute(UPDATE_OURS, row).rowcount, serial=False)

    async def _write(self, report: Report) -> None:
        """Together with those that wait; alone, where one among them cannot be written: it fails nobody else."""
        try:
            await self._store.write_together(write_reports, report, serial=False)
        except UNWRITABLE:
            await self._store.write(lambda connection: write_report(connection, report), serial=False)

    async def _update(self, identity: NodeIdentity, values: Mapping[str, Any]) -> None:
        row = {**_here(identity), **values}
        await self._store.write(lambda connection: connection.execute(UPDATE, row).rowcount, serial=False)

    async def target(self, identity: NodeIdentity) -> Target | None:
        offers = await self._offers_of(identity.tenant)
        return offers.selection(self._labels.get(identity, {})).target if offers else None

    async def offer(self, identity: NodeIdentity, target: Target, known: frozenset[bytes]) -> EncodedOffer | None:
        """The target with the small bodies that the node lacks; None when another revision stands by now, whose kinds
        nobody has compared with those that the node knows."""
        offers = await self._offers_of(identity.tenant)
        if offers is None or offers.material.manifest_sha256 != target.manifest_sha256:
            return None
        return offers.encoded(offers.selection(self._labels.get(identity, {})), known)

    async def _offers_of(self, tenant: str) -> Offers | None:
        material = await self._desired.offer_material(tenant)
        if material is None:
            return None
        offers = self._offers.get(tenant)
        if offers is None or offers.material is not material:
            offers = self._offers[tenant] = Offers(material)
        return offers

    async def blob(self, identity: NodeIdentity, sha256: bytes) -> bytes:
        """A body of the standing revision of the node's own tenant. Raises NotFoundError."""
        material = await self._desired.offer_material(identity.tenant)
        if material is None or sha256 not in material.blobs:
            raise NotFoundError(BLOB_UNKNOWN, digest=sha256.hex()[:64])
        return material.blobs[sha256]


def _here(identity: NodeIdentity) -> dict[str, Any]:
    """Parameters of `HERE`."""
    return {"of_tenant": identity.tenant, "of_name": identity.node}


def _starts(row: sa.Row[Any], identity: NodeIdentity, hello: tunnel.Hello) -> dict[str, Any]:
    """Which start of the node this is. Its count never falls and belongs to one start, unless there are two nodes."""
    epoch = _number(hello.epoch)
    same_count = epoch == row.epoch and bool(row.boot_id) and hello.boot_id != row.boot_id
    facts = {"boot_id": hello.boot_id, "epoch": max(epoch, row.epoch)}
    if epoch < row.epoch or same_count:
        log.error("node.cloned", extra={names.NODE: identity.node, names.CODE: NODE_CLONED.code})
        return facts | {"alarm": NODE_CLONED.code}
    if _lacks_entries(row, hello):
        log.error("node.ledger_went_back", extra={names.NODE: identity.node, names.CODE: LEDGER_WENT_BACK.code})
        return facts | {"alarm": row.alarm or LEDGER_WENT_BACK.code}
    return facts


def _lacks_entries(row: sa.Row[Any], hello: tunnel.Hello) -> bool:
    """Whether the ledger of a process that began is behind what the one before showed. Only then is it certain: frames
    of one process, over two connections, may come in any order."""
    began = bool(row.boot_id) and bool(hello.boot_id) and hello.boot_id != row.boot_id
    head = hello.ledger_head
    is_other = head.size == row.ledger_size and head.root_sha256 != row.ledger_root
    return bool(began and row.ledger_size and (head.size < row.ledger_size or is_other))


def _promotion(row: sa.Row[Any], identity: NodeIdentity, peer: Peer) -> dict[str, Any]:
    """The columns that make a pending certificate the current one, when it is the peer's."""
    serial = serial_of(peer.serial)
    if serial == row.certificate_serial:
        return {}
    if serial != row.pending_serial:
        raise UnauthenticatedError(NODE_UNKNOWN, node=identity.node)
    log.info("certificate.promoted", extra={names.NODE: identity.node})
    return {
        "certificate_serial": row.pending_serial,
        "certificate_expires_at": row.pending_expires_at,
        "public_key_sha256": row.pending_key_sha256,
        "pending_serial": None,
        "pending_expires_at": None,
        "pending_key_sha256": None,
    }


def _number(said: int) -> int:
    """As a column holds it. What a node says is written together with what others say: a number that the database
    refuses would cost all of them theirs."""
    return min(said, MOST)


def _text(said: str, length: int) -> str:
    """As a column holds it: PostgreSQL has no NUL."""
    return said[:length].replace("\0", "\ufffd")


def _facts(config: tunnel.ConfigFacts) -> dict[str, Any]:
    return {
        "attempted_revision": _number(config.attempted_revision),
        "running_revision": _number(config.running_revision),
        "healthy_revision": _number(config.healthy_revision),
    }


def _status(status: tunnel.ApplyStatus, at: datetime) -> dict[str, Any]:
    refused = status.state in REFUSALS
    nack = status.nack
    return {
        "state": status.state,
        "status_at": at,
        "nack_failed_to_reach": nack.failed_to_reach if refused else None,
        "nack_code": nack.code if refused else None,
        "nack_kind": nack.kind if refused else None,
        "nack_resource_name": _text(nack.resource_name, 63) if refused else None,
        "nack_field_path": list(nack.field_path[:MOST_FIELDS]) if refused else None,
    }
