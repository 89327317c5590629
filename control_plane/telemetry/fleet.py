"""The fleet, observed: how long a push takes to its end, and each phase of it as a span of the change's own trace.

What a node reports are states with numbers, as before: the spans are made here, of when the reports came, so that the
cloud's side of a trace is whole though nothing of the node's own spans ever comes up.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from control_plane.fleet.service import FleetService
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos.tunnel.v1.tunnel_pb2 import ApplyState
from faos_core import trace_context
from faos_core.ids import NodeIdentity
from faos_core.meters import SLOW_S, Counter, Gauge, Histogram, Instrument
from faos_core.names import Attribute, Metric, Span
from faos_core.tracing import OFF, Tracer, Value, Word
from tunnel.offer_frame import EncodedOffer
from tunnel.session import REFUSALS, Target
from tunnel.tls import Peer

MOST_PUSHES = 20_000  # all of them fit into one answer of GetMetrics
ENDS = frozenset({tunnel.APPLY_STATE_HEALTHY, *REFUSALS})


@dataclass(slots=True)
class Push:
    """The latest offer to a node. Times: nanoseconds since 1970; durations come from the monotonic clock."""

    revision: int
    parent: trace_context.TraceContext | None
    began_ns: int
    phase_ns: int
    began_s: float
    state: ApplyState.ValueType = tunnel.APPLY_STATE_UNSPECIFIED
    duration_s: float | None = None  # None: under way


class ObservedFleet(FleetService):
    """As FleetService. What it keeps is one flag for each node that is connected here, and the latest push to each of
    the `MOST_PUSHES` nodes that were offered something last."""

    def __init__(self, *args: Any, tracer: Tracer = OFF) -> None:
        super().__init__(*args)
        self._tracer = tracer
        self._live: set[NodeIdentity] = set()
        self.pushes: dict[NodeIdentity, Push] = {}
        self._offer_count = Counter(Metric.OFFERS, "Configurations offered to nodes.")
        self._duration = Histogram(
            Metric.PUSH_DURATION, "From an offer to how it ended.", SLOW_S, labels=(Attribute.STATE_NAME,)
        )
        self._sessions = Gauge(Metric.SESSIONS_LIVE, "Sessions open at this process.", self.session_count)

    def session_count(self) -> int:
        return len(self._live)

    def instruments(self) -> Sequence[Instrument]:
        return self._offer_count, self._duration, self._sessions

    async def greeted(self, identity: NodeIdentity, hello: tunnel.Hello, peer: Peer) -> frozenset[int]:
        refused = await super().greeted(identity, hello, peer)
        self._live.add(identity)
        return refused

    async def left(self, identity: NodeIdentity) -> None:
        self._live.discard(identity)
        await super().left(identity)

    async def offer(self, identity: NodeIdentity, target: Target, known: frozenset[bytes]) -> EncodedOffer | None:
        offer = await super().offer(identity, target, known)
        if offer is not None:
            now_ns = time.time_ns()
            parent = trace_context.parse(self._offers[identity.tenant].material.traceparent)
            self._keep(identity, Push(offer.revision, parent, now_ns, now_ns, time.perf_counter()))
            self._offer_count.add()
        return offer

    def _keep(self, identity: NodeIdentity, push: Push) -> None:
        """The newest: nodes that were forgotten, and came back by another name, are not kept for ever."""
        self.pushes.pop(identity, None)
        self.pushes[identity] = push
        if len(self.pushes) > MOST_PUSHES:
            del self.pushes[next(iter(self.pushes))]

    async def reported(self, identity: NodeIdentity, status: tunnel.ApplyStatus, *, shown: bool = True) -> None:
        await super().reported(identity, status, shown=shown)
        push = self.pushes.get(identity)
        if push is not None and push.revision == status.revision and push.duration_s is None:
            self._observe(identity, push, status.state)

    def _observe(self, identity: NodeIdentity, push: Push, state: ApplyState.ValueType) -> None:
        began_ns, push.phase_ns, push.state = push.phase_ns, time.time_ns(), state
        name = ApplyState.Name(state) if state in ApplyState.values() else "UNKNOWN"
        if push.parent is not None:
            self._record(Span.CONFIG_PHASE, identity, push, name, began_ns)
        if state in ENDS:
            push.duration_s = time.perf_counter() - push.began_s
            self._duration.record(push.duration_s, name)
            if push.parent is not None:
                self._record(Span.CONFIG_PUSH, identity, push, name, push.began_ns)

    def _record(self, span: Span, identity: NodeIdentity, push: Push, state: str, began_ns: int) -> None:
        attributes: dict[Attribute, Value] = {
            Attribute.TENANT_NAME: identity.tenant,
            Attribute.SITE_NAME: identity.site,
            Attribute.NODE_NAME: identity.node,
            Attribute.REVISION_NUMBER: push.revision,
            Attribute.STATE_NAME: Word(state),
        }
        error = Word(state) if push.state in REFUSALS else ""
        self._tracer.record(
            span, attributes, parent=push.parent, began_ns=began_ns, ended_ns=push.phase_ns, error=error
        )
