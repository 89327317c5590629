"""What the control plane's end of the tunnel asks of the control plane, which implements these."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import grpc

from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core.ids import NodeIdentity
from tunnel import session
from tunnel.events import Key
from tunnel.offer_frame import EncodedOffer
from tunnel.tls import Peer

Context = grpc.aio.ServicerContext[Any, Any]
Recorder = Callable[[str, bytes], None]


class Enrolments(Protocol):
    """Turns join tokens into certificates."""

    async def enroll(self, request: tunnel.EnrollRequest, peer: Peer) -> tunnel.EnrollResponse:
        """Raises DeniedError, ConflictError, InvalidError."""


class Fleet(Protocol):
    """What the control plane knows and wants of its nodes."""

    async def authorise(self, identity: NodeIdentity, peer: Peer) -> None:
        """Raises UnauthenticatedError for a node that is not, or no longer, one of ours."""

    async def greeted(self, identity: NodeIdentity, hello: tunnel.Hello, peer: Peer) -> frozenset[int]:
        """Make durable that the node said hello with this certificate; the revisions that it refused before.

        Raises UnauthenticatedError. So may `reported` and `progressed`, for a node that was revoked meanwhile.
        """

    async def reported(self, identity: NodeIdentity, status: tunnel.ApplyStatus, *, shown: bool = True) -> None:
        """Make durable what became of an offer. shown: as the state of the node, too; later news may stand there."""

    async def progressed(self, identity: NodeIdentity, heartbeat: tunnel.NodeHeartbeat) -> None: ...

    async def held_back(self, identity: NodeIdentity, target: session.Target, kinds: frozenset[int]) -> None: ...

    async def left(self, identity: NodeIdentity) -> None: ...

    async def target(self, identity: NodeIdentity) -> session.Target | None: ...

    async def offer(
        self, identity: NodeIdentity, target: session.Target, known: frozenset[bytes]
    ) -> EncodedOffer | None:
        """The offer of a target with the bytes that the node lacks; None when another target stands by now."""

    async def blob(self, identity: NodeIdentity, sha256: bytes) -> bytes:
        """Raises NotFoundError for a blob that is not the tenant's."""


class EventLog(Protocol):
    """What happened at nodes, durably."""

    async def durable(self, identity: NodeIdentity) -> Key:
        """Up to and including which key everything of this node is durable."""

    async def record(self, identity: NodeIdentity, events: Sequence[tunnel.Event]) -> Key:
        """Make durable what is new of these, each once; up to where everything is durable then.

        Raises UnauthenticatedError for a node that was revoked meanwhile.
        """


class Renewals(Protocol):
    """Gives enrolled nodes their next certificates."""

    async def renew(self, identity: NodeIdentity, request: tunnel.RenewRequest) -> tunnel.RenewResponse:
        """Raises UnauthenticatedError, InvalidError."""

    async def recover(self, request: tunnel.RecoverRequest, peer: Peer) -> tunnel.RenewResponse:
        """Raises UnauthenticatedError, DeniedError (counter seen before), InvalidError."""
