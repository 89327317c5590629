"""Nodes without insides: each a connection and a session of its own over mutual TLS, none applies anything.

    python light_nodes.py ADDRESS NODES.json

Started by bench_push, which tells it on its standard input what to do, one JSON object a line, and is answered in the
same way. {"do": "connect"}: dial, all at once; answered when each has been welcomed and, if there is a revision, has
it. {"do": "expect", "revision": n, "states": […]}: report these states of the next offer; answered twice, at once and
when all have reported the last one, with the moments of that (of the monotonic clock, which processes share).
"""

import asyncio
import gc
import json
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from faos.resource.v1 import resource_pb2 as resource
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from tunnel.tls import CLIENT_OPTIONS, Credentials

METHOD = "/faos.tunnel.v1.Tunnel/Session"
HEALTHY = tunnel.APPLY_STATE_HEALTHY
DIALLING = 200  # handshakes under way at once: more only wait for each other on this machine


@dataclass(slots=True)
class Fleet:
    """What all nodes share."""

    address: str
    states: list[int] = field(default_factory=lambda: [HEALTHY])
    revision: int = 0
    welcomed: int = 0
    acked_at_s: list[float] = field(default_factory=list)
    blobs: int = 0  # bodies that came with the offers of the revision
    oddities: list[str] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class LightNode:
    """One node; `run` until it is cancelled."""

    def __init__(self, fleet: Fleet, name: str, credentials: Credentials) -> None:
        self._fleet = fleet
        self._name = name
        self._credentials = credentials
        self._call: Any = None
        self._order = asyncio.Lock()
        self._beats = 0
        self._revision = 0

    async def run(self, turn: asyncio.Semaphore) -> None:
        options = [*CLIENT_OPTIONS, ("grpc.enable_http_proxy", 0)]
        async with grpc.aio.secure_channel(self._fleet.address, self._credentials.for_client(), options) as channel:
            stream: Any = channel.stream_stream(METHOD)
            async with turn:
                self._call = stream()
                hello = tunnel.Hello(boot_id=self._name.encode(), epoch=1, protocol=1, kinds=resource.Kind.values())
                await self._send(tunnel.NodeFrame(hello=hello))
                welcome = tunnel.CloudFrame.FromString(await self._call.read()).welcome
            self._fleet.welcomed += 1
            self._fleet.changed.set()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._beat(welcome.heartbeat_seconds))
                async for frame in self._frames():
                    if frame.HasField("config_offer"):
                        await self._apply(frame.config_offer)

    async def _frames(self) -> AsyncIterator[tunnel.CloudFrame]:
        while True:
            raw = await self._call.read()
            if raw is grpc.aio.EOF:
                self._fleet.oddities.append(f"{self._name}: the stream ended")
                return
            yield tunnel.CloudFrame.FromString(raw)

    async def _apply(self, offer: tunnel.ConfigOffer) -> None:
        before, self._revision = self._revision, offer.revision
        facts = tunnel.ConfigFacts(attempted_revision=offer.revision, running_revision=before, healthy_revision=before)
        for state in self._fleet.states:
            if state == HEALTHY:
                facts.running_revision = facts.healthy_revision = facts.high_water_revision = offer.revision
            status = tunnel.ApplyStatus(nonce=offer.nonce, revision=offer.revision, state=state, config=facts)  # type: ignore[arg-type]  # a number of the enum
            status.at.GetCurrentTime()
            await self._send(tunnel.NodeFrame(apply_status=status))
        self._acked(offer)

    def _acked(self, offer: tunnel.ConfigOffer) -> None:
        if offer.revision != self._fleet.revision:
            self._fleet.oddities.append(f"{self._name}: was offered {offer.revision}, not {self._fleet.revision}")
        self._fleet.acked_at_s.append(time.monotonic())
        self._fleet.blobs += len(offer.blobs)
        self._fleet.changed.set()

    async def _beat(self, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            self._beats += 1
            beat = tunnel.NodeHeartbeat(sequence=self._beats)
            await self._send(tunnel.NodeFrame(heartbeat=beat))

    async def _send(self, frame: tunnel.NodeFrame) -> None:
        async with self._order:  # gRPC takes one at a time
            await self._call.write(frame.SerializeToString())


async def until(fleet: Fleet, holds: Any) -> None:
    while not holds():
        fleet.changed.clear()
        await fleet.changed.wait()


async def obey(fleet: Fleet, nodes: list[LightNode], group: asyncio.TaskGroup) -> None:
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    turn = asyncio.Semaphore(DIALLING)
    while line := await lines.readline():
        order = json.loads(line)
        if order["do"] == "connect":
            for node in nodes:
                group.create_task(node.run(turn))
            await until(fleet, lambda: fleet.welcomed == len(nodes))
            gc.collect()
            answer()
        elif order["do"] == "expect":
            fleet.revision, fleet.states = order["revision"], order["states"]
            fleet.acked_at_s, fleet.blobs, fleet.oddities = [], 0, []
            answer()
            await until(fleet, lambda: len(fleet.acked_at_s) == len(nodes))
            answer(acked_at_s=fleet.acked_at_s, blobs=fleet.blobs, oddities=fleet.oddities[:5])


def answer(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


async def main(address: str, facts: dict[str, Any]) -> None:
    ca = facts["ca_pem"].encode()
    fleet = Fleet(address)
    nodes = [
        LightNode(fleet, name, Credentials(chain.encode(), key.encode(), ca)) for name, chain, key in facts["nodes"]
    ]
    async with asyncio.TaskGroup() as group:
        await obey(fleet, nodes, group)
        raise SystemExit  # the end of its input is the end of its work


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], json.loads(Path(sys.argv[2]).read_text())))
