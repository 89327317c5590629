"""Nodes as they change, for people who watch a fleet converge."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from control_plane.api.errors import WATCHES_TOO_MANY
from control_plane.api.node_queries import NodeFacts, NodeQueries
from control_plane.db.paging import MAX_PAGE_SIZE
from faos.admin.v1 import admin_pb2 as admin
from faos_core.errors import UnavailableError

MAX_WATCHES = 64
WATCH_FOR_S = 1800.0  # then the caller asks, and is authorised, again
PAUSE_S = 0.5
IDLE_SHARE = 10  # a look that takes long is followed by a pause this many times as long
NODES_AT_ONCE = 1000  # in one answer: about 1 MiB
QUIET = ("last_seen_at", "ledger_size", "ledger_root_sha256", "event_count")  # move with every heartbeat, or oftener

Key = tuple[str, str]  # tenant and name


class NodeWatch:
    """Looks again and again, so that it sees what any control plane over the database writes, and what became of
    connections here. At most 64 at once."""

    def __init__(self, nodes: NodeQueries, message_of: Callable[[NodeFacts], admin.Node]) -> None:
        self._nodes = nodes
        self._message_of = message_of
        self._open = 0

    async def nodes(self, tenant: str, site: str) -> AsyncIterator[admin.WatchNodesResponse]:
        """All nodes (of the tenant, of the site), then what changes; ends after half an hour.

        Raises: NotFoundError (tenant, site), UnavailableError (too many watch), and what the store raises.
        """
        with self._place():
            seen: dict[Key, bytes] = {}
            until = time.monotonic() + WATCH_FOR_S
            is_first = True
            while time.monotonic() < until:
                began = time.monotonic()
                now = await self._look(tenant, site)
                for answer in differences(seen, now, is_first=is_first):
                    yield answer
                seen = {key: mark(node) for key, node in now.items()}
                is_first = False
                await asyncio.sleep(max(PAUSE_S, IDLE_SHARE * (time.monotonic() - began)))

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self._open >= MAX_WATCHES:
            raise UnavailableError(WATCHES_TOO_MANY, limit=MAX_WATCHES)
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    async def _look(self, tenant: str, site: str) -> dict[Key, admin.Node]:
        found: dict[Key, admin.Node] = {}
        token = ""
        while True:
            page, token = await self._nodes.list(tenant, site, page_size=MAX_PAGE_SIZE, page_token=token)
            found |= {(facts.identity.tenant, facts.identity.node): self._message_of(facts) for facts in page}
            if not token:
                return found


def mark(node: admin.Node) -> bytes:
    """What must differ for a node to count as changed."""
    kept = admin.Node()
    kept.CopyFrom(node)
    for field in QUIET:
        kept.ClearField(field)  # type: ignore[arg-type]  # names of fields, which a test reads from the proto
    return kept.SerializeToString(deterministic=True)


def differences(
    seen: Mapping[Key, bytes], now: Mapping[Key, admin.Node], *, is_first: bool
) -> Iterator[admin.WatchNodesResponse]:
    """What to tell somebody who knows `seen`; at first something in any case."""
    changed: Sequence[admin.Node] = [node for key, node in now.items() if seen.get(key) != mark(node)]
    removed = [admin.NodeKey(tenant=tenant, name=name) for tenant, name in seen if (tenant, name) not in now]
    parts = [changed[first : first + NODES_AT_ONCE] for first in range(0, len(changed), NODES_AT_ONCE)] or [[]]
    for part in parts[:-1]:
        yield admin.WatchNodesResponse(nodes=part, is_complete=not is_first)
    if changed or removed or is_first:
        yield admin.WatchNodesResponse(nodes=parts[-1], removed=removed, is_complete=True)
