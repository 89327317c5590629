"""The whole line in one process: apply, sign, offer, verify, activate, ask, answer; and what left meanwhile."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from control_plane.fleet.frame_record import read_frames
from data_plane.app import Node, node
from data_plane.egress.ledger_verifier import verify
from data_plane.egress.reader import read_leaves
from data_plane.egress.service import ledger_folder
from data_plane.settings import ApplyTimes, NodeSettings
from faos.admin.v1 import admin_pb2 as admin
from faos.site.v1 import site_pb2 as site
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core.resource_yaml import load
from tests.system.harness import RunningControlPlane, running_control_plane
from tests.system.quickstart import DOCUMENT_QUESTION, QUICKSTART, TOOL_QUESTION, fill_site

pytestmark = [pytest.mark.needs("model", "embedder"), pytest.mark.slow]


@asynccontextmanager
async def running_node(data_dir: Path, site_toml: Path) -> AsyncIterator[Node]:
    settings = NodeSettings(data_dir=data_dir, site_file=site_toml, apply=ApplyTimes(soak_s=0.2))
    async with node(settings) as running:
        yield running


async def until_healthy(plane: RunningControlPlane, name: str, revision: int) -> Any:
    """The node as the control plane sees it, once it has made up its mind about the revision."""
    async with asyncio.timeout(60):
        while True:
            seen = await plane.node(name)
            if seen.config.attempted_revision == revision and seen.config.state in (
                tunnel.APPLY_STATE_HEALTHY,
                tunnel.APPLY_STATE_REJECTED,
                tunnel.APPLY_STATE_ROLLED_BACK,
            ):
                return seen
            await asyncio.sleep(0.1)


async def ask(running: Node, question: str) -> tuple[site.Run, list[site.Step]]:
    run_id = await running.runs.start("assistant", question)
    async with asyncio.timeout(60):
        async for _ in running.runs.watch(run_id):
            pass
    return await running.runs.get(run_id)


async def test_from_apply_to_answers_and_nothing_of_the_customers_leaves(tmp_path: Path) -> None:
    """Promise 1 and 2 on the thinnest whole line: answers come from the site, and the ledger shows what went up."""
    secret, reservation = (secrets.randbelow(90_000) + 10_000 for _ in range(2))
    site_toml = fill_site(tmp_path / "site", document_number=secret, tool_number=reservation)
    resources = [located.resource for located in load([QUICKSTART / "resources"])]
    async with running_control_plane(tmp_path / "cp") as plane:
        await plane.create_tenant()
        member = await plane.join(tmp_path / "node")
        async with running_node(tmp_path / "node", site_toml) as running:
            applied = await plane.apply(*resources)
            seen = await until_healthy(plane, member.identity.node, applied.revision)
            first, steps = await ask(running, DOCUMENT_QUESTION)
            second, tool_steps = await ask(running, TOOL_QUESTION)

        assert seen.config.state == tunnel.APPLY_STATE_HEALTHY, str(seen.config)
        assert seen.config.running_revision == seen.config.healthy_revision == applied.revision == 1
        assert seen.liveness == admin.LIVENESS_LIVE
        assert str(secret) in first.output, (first.output, steps)
        assert str(reservation) in second.output, (second.output, tool_steps)
        assert site.STEP_KIND_TOOL in [step.kind for step in tool_steps]
        report = verify(ledger_folder(tmp_path / "node"))
        assert report.ok, report.problem
        received = list(read_frames(plane.data_dir / "received-frames.bin"))
        left = [leaf.body for leaf in read_leaves(ledger_folder(tmp_path / "node"))]
        assert is_subsequence(received, left)
        planted = [str(number).encode() for number in (secret, reservation)]
        assert not any(number in body for body in received for number in planted)


def is_subsequence(received: list[bytes], left: list[bytes | None]) -> bool:
    """What was received, in its order, is all among what left."""
    remaining = iter(left)
    return all(body in remaining for body in received)
