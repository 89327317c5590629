"""An operator's calls, one after the other, while something else goes on.

    python admin_probe.py CONTEXT.json NODE

Started by bench_push as a process of its own, so that what it waits for is the control plane and not the benchmark.
Writes a line once it has called, and on a line of its standard input what each call took since, in milliseconds:
{"small": …} of a node and of the tenants, {"large": …} of a revision with the status of every node.
"""

import asyncio
import json
import sys
import time
from pathlib import Path

from faos.admin.v1 import admin_pb2 as admin
from faos_cli.admin_client import AdminClient, connect, get_node
from faos_cli.context import read_context

PAUSE_S = 0.01
TENANT = "bench"


class Probe:
    """`run` until it is cancelled."""

    def __init__(self, client: AdminClient, node: str) -> None:
        self._client = client
        self._node = node
        self.small_ms: list[float] = []
        self.large_ms: list[float] = []

    async def run(self) -> None:
        while True:
            await self.once()

    async def once(self) -> None:
        began_s = time.monotonic()
        await get_node(self._client, TENANT, self._node)
        self.small_ms.append(await self._since(began_s))
        began_s = time.monotonic()
        await self._client.call(self._client.tenants.ListTenants, admin.ListTenantsRequest())
        self.small_ms.append(await self._since(began_s))
        began_s = time.monotonic()
        request = admin.GetRevisionRequest(tenant=TENANT, number=1)
        await self._client.call(self._client.resources.GetRevision, request)
        self.large_ms.append(await self._since(began_s))

    async def _since(self, began_s: float) -> float:
        took_ms = (time.monotonic() - began_s) * 1000
        await asyncio.sleep(PAUSE_S)
        return took_ms


async def main(context: Path, node: str) -> None:
    async with connect(read_context(context)) as client:
        await Probe(client, node).once()  # connected, and what is made at the first call is made
        print("ready", flush=True)
        probe = Probe(client, node)
        probing = asyncio.ensure_future(probe.run())
        await asyncio.to_thread(sys.stdin.readline)
        probing.cancel()
        print(json.dumps({"small": probe.small_ms, "large": probe.large_ms}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
