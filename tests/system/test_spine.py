"""The whole line in one process: apply, sign, offer, verify, activate, ask, answer; and what left meanwhile."""

import secrets
from functools import partial
from pathlib import Path

import pytest

from faos.admin.v1 import admin_pb2 as admin
from faos.site.v1 import site_pb2 as site
from faos_cli.up.needles import search
from faos_core.resource_yaml import load
from tests.servers.databases import Databases
from tests.system.quickstart import DOCUMENT_QUESTION, QUICKSTART, TOOL_QUESTION, fill_site
from tests.system.sites import Site
from tests.system.small_site import ask

pytestmark = [pytest.mark.needs("model", "embedder"), pytest.mark.slow]


async def test_from_apply_to_answers_and_nothing_of_the_customers_leaves(tmp_path: Path, databases: Databases) -> None:
    """Promise 1 and 2 on the thinnest whole line: answers come from the site, and the ledger shows what went up."""
    secret, reservation = (secrets.randbelow(90_000) + 10_000 for _ in range(2))
    fill = partial(fill_site, document_number=secret, tool_number=reservation)
    resources = [located.resource for located in load([QUICKSTART / "resources"])]
    async with Site(tmp_path, fill=fill, databases=databases) as whole:
        revision = await whole.apply(*resources)
        await whole.converged()
        seen = await whole.facts()
        first, steps = await ask(whole.node.running, DOCUMENT_QUESTION)
        second, tool_steps = await ask(whole.node.running, TOOL_QUESTION)
        await whole.node.stop()

        assert seen.config.running_revision == seen.config.healthy_revision == revision == 1
        assert seen.liveness == admin.LIVENESS_LIVE
        assert str(secret) in first.output, (first.output, steps)
        assert str(reservation) in second.output, (second.output, tool_steps)
        assert site.STEP_KIND_TOOL in [step.kind for step in tool_steps]
        report = whole.node.ledger()
        assert report.ok, report.problem
        received, left = whole.received(), whole.node.left()
        assert is_subsequence(received, left)
        assert search([("frame", body) for body in received], [str(secret), str(reservation)]).is_clean


def is_subsequence(received: list[bytes], left: list[bytes | None]) -> bool:
    """What was received, in its order, is all among what left."""
    remaining = iter(left)
    return all(body in remaining for body in received)
