"""A node that makes events and says which are durable, until somebody kills it: `events_child ADDRESS DATA_DIR`."""

import asyncio
import sys
from pathlib import Path

from tests.system.event_nodes import event_node


async def main(address: str, data_dir: Path) -> None:
    async with event_node(address, data_dir) as node:
        while True:
            print(await node.make(), flush=True)  # noqa: T201  # the parent reads it
            await asyncio.sleep(0.005)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
