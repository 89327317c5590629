"""A node's disk is full, really: what runs goes on, the node says so, and there is nothing to mend afterwards."""

import asyncio
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from faos.site.v1 import site_pb2 as site_pb
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_cli import site_client
from tests.e2e.processes import finished
from tests.patience import PATIENCE_S
from tests.servers.stub_model import stub_model
from tests.system.disk_full_child import RESOURCES, fill
from tests.system.sites import Site, SiteNode
from tests.system.small_site import allow_all, until

pytestmark = pytest.mark.needs("embedder", "model", "namespaces")


async def status(node: SiteNode) -> Any:
    """What its operator reads at the site."""
    async with site_client.connect(node.data_dir) as client:
        return await client.get_status()


async def test_full_ledger_disk_stops_what_would_leave_and_nothing_else(tmp_path: Path) -> None:
    """Nothing may leave unrecorded: the link goes down and says why, a run waits, and both come back by themselves."""
    async with (
        stub_model(tmp_path / "turns") as port,
        Site(tmp_path, fill=partial(fill, model_port=port), on_small_disk=["ledger"]) as site,
    ):
        await site.apply(*RESOURCES)
        await site.converged()
        site.fill_disk()
        await until(lambda: not site.node.running.session.is_connected)
        run_id = await site.node.running.runs.start("assistant", "question 1")
        await site.apply(allow_all())
        left = len(site.node.left())

        said = await status(site.node)
        assert "ledger.unwritable" in said.alarms
        assert said.running_revision == said.healthy_revision == 1
        assert len(site.node.left()) == left
        assert (tmp_path / "turns").read_text() == "", "no question left"

        site.heal()
        await site.converged()
        async with asyncio.timeout(PATIENCE_S):
            events = [event async for event in site.node.running.runs.watch(run_id)]
        assert events[-1].finished.state == site_pb.RUN_STATE_SUCCEEDED
        assert not (await status(site.node)).alarms
        assert site.node.ledger().ok


def test_full_disk_refuses_new_runs_and_starts_and_keeps_what_it_has(tmp_path: Path) -> None:
    """A run that was acknowledged waits for room; a new one is refused with what to do, as is the node's start."""
    (tmp_path / "disk").mkdir()
    child = f"{sys.executable} {Path(__file__).with_name('disk_full_child.py')} {tmp_path}"
    script = f"mount -t tmpfs -o size=16m none {tmp_path}/disk && exec {child}"

    done = finished("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, cwd=tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "refused, waited, went on" in done.stdout


async def test_full_configuration_disk_is_a_refusal_that_passes(tmp_path: Path) -> None:
    """The operator reads that the node could not store it, the old revision runs on, and the new one comes later."""
    async with Site(tmp_path, on_small_disk=["config"]) as site:
        await site.apply(allow_all())
        await site.converged()
        site.fill_disk()
        await site.apply(allow_all("second"))
        seen = await site.settled()

        assert seen.config.nack.code == tunnel.NACK_CODE_STORAGE_FAILED, str(seen.config)
        assert seen.config.running_revision == seen.config.healthy_revision == 1
        assert site.node.running.activation.running().revision == 1
        assert "config.rejected" in (await status(site.node)).alarms

        site.cut()  # a new session is offered it at once; this one would be after a minute
        site.heal()
        await site.converged()
        assert set(site.node.running.activation.running().policies) == {"all", "second"}
