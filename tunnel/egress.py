"""The side of the node's gate that the tunnel sees: nothing is sent but what this returns."""

from typing import Protocol

from google.protobuf.message import Message


class Sealer(Protocol):
    """Turns a message into the bytes that may be sent; see data_plane.egress for what it does on the way."""

    async def seal(self, message: Message, *, door: str, destination: str, method: str) -> bytes: ...


class Allow(Protocol):
    """Tells the gate of identifiers that this node made, so that it may send them."""

    def __call__(self, *values: str | bytes) -> None: ...
