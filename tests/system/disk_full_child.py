"""python disk_full_child.py FOLDER: a node whose data is below FOLDER/disk, a small file system, which gets full."""

# ruff: noqa: E402  # a program, which says first where its imports are

import asyncio
import sys
from functools import partial
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / part) for part in ("", "proto", "installer")]

from faos.resource.v1 import resource_pb2 as pb
from faos.site.v1 import site_pb2
from faos_core.errors import FaosError
from tests.patience import PATIENCE_S
from tests.servers.small_disk import SmallDisk
from tests.servers.stub_model import TAG, stub_model
from tests.system.sites import Site, SiteNode
from tests.system.small_site import agent, allow_all, fill_small_site, toml_table

STUB = pb.Model(runtime=pb.MODEL_RUNTIME_OLLAMA, source="box", model_tag=TAG, context_tokens=2048)
RESOURCES = (pb.Resource(metadata=pb.Metadata(name="smollm2"), model=STUB), agent())
MUCH = " more" * 4000


def fill(folder: Path, *, model_port: int) -> Path:
    """A site whose model is the stub."""
    site_toml = fill_small_site(folder)
    endpoint = {"url": f"http://127.0.0.1:{model_port}", "data_class": "customer"}
    with site_toml.open("a") as file:
        file.write(f'\n{toml_table("endpoints.box", endpoint)}\n[doors]\nremote-model = "customer"\n')
    return site_toml


async def until_refused(node: SiteNode) -> FaosError:
    """What the database has set aside is used up first."""
    for number in range(1000):
        try:
            await node.running.runs.start("assistant", f"question 2-{number}" + MUCH)
        except FaosError as error:
            return error
    raise AssertionError("the disk does not get full")


async def refused(node: SiteNode) -> FaosError:
    """What its operator reads when it does not start."""
    try:
        await node.start()
    except FaosError as error:
        return error
    raise AssertionError("it starts without room for anything")


async def main(folder: Path) -> None:
    disk = SmallDisk(folder / "disk")
    (folder / "node-0").symlink_to(disk.folder)
    async with stub_model(folder / "turns") as port, Site(folder, fill=partial(fill, model_port=port)) as site:
        await site.apply(*RESOURCES)
        await site.converged()
        run_id = await site.node.running.runs.start("assistant", "question 1")
        disk.fill()
        error = await until_refused(site.node)
        assert error.code.code == "store.disk_full", error
        assert "df -h" in error.next_step
        disk.free()
        async with asyncio.timeout(PATIENCE_S):
            events = [event async for event in site.node.running.runs.watch(run_id)]
        assert events[-1].finished.state == site_pb2.RUN_STATE_SUCCEEDED, events
        await site.node.running.runs.start("assistant", "question 3")
        await site.node.stop()

        disk.fill()
        refusal = await refused(site.node)
        assert "df -h" in refusal.next_step, refusal
        disk.free()
        await site.node.start()
        await site.apply(allow_all())
        await site.converged()
        assert site.node.ledger().ok
    sys.stdout.write("refused, waited, went on\n")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
