"""faos apply --wait and describe against a whole site: what a refusal looks like to the cloud operator."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from data_plane.app import node
from data_plane.settings import ApplyTimes, NodeSettings
from tests.system.harness import RunningControlPlane
from tests.system.small_site import fill_small_site

if TYPE_CHECKING:
    from tests.unit.faos_cli.conftest import RunFaos

pytestmark = [pytest.mark.needs("model", "embedder"), pytest.mark.slow]

KNOWLEDGE = "apiVersion: faos/v1\nkind: KnowledgeBase\nmetadata: {{name: papers}}\nspec: {{folder: {folder}}}\n"


async def test_wait_ends_healthy_and_then_explains_a_refusal(
    plane: RunningControlPlane, run_faos: "RunFaos", tmp_path: Path
) -> None:
    """The site's ceiling says no: the author sees which field, why, and whom to ask, and the site runs what it ran."""
    await plane.create_tenant()
    member = await plane.join(tmp_path / "node")
    site_toml = fill_small_site(tmp_path / "site")
    settings = NodeSettings(data_dir=tmp_path / "node", site_file=site_toml, apply=ApplyTimes(soak_s=0.1))
    async with node(settings):
        allowed = await run_faos("apply", "-f", "-", "--wait", stdin=KNOWLEDGE.format(folder="handbook"))
        refused = await run_faos("apply", "-f", "-", "--wait=60s", stdin=KNOWLEDGE.format(folder="secrets"))
        described = await run_faos("describe", "node", member.identity.node)
        revision = await run_faos("describe", "revision", "2")
        table = await run_faos("get", "nodes")

    assert (allowed.code, "Revision 1 is healthy on 1 node(s)." in allowed.out) == (0, True)
    assert refused.code == 1
    assert "KnowledgeBase papers spec.folder (NAME_NOT_IN_CEILING)" in refused.err
    assert "site.toml" in refused.err
    assert f"faos describe node {member.identity.node}" in refused.err
    facts = [line.split() for line in described.out.splitlines()]
    assert ["attempted", "revision", "2"] in facts
    assert ["running", "revision", "1"] in facts
    assert ["healthy", "revision", "1"] in facts
    assert "NAME_NOT_IN_CEILING" in described.out
    assert "KnowledgeBase papers spec.folder" in revision.out
    assert table.out.splitlines()[1].split()[3:8] == ["REJECTED", "NAME_NOT_IN_CEILING", "2", "1", "1"]
