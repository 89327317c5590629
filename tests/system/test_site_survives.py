"""What a site lives through, whole planes in one process: cut, silent, restarted, full; over each database."""

from pathlib import Path

import pytest

from tests.servers.databases import Databases
from tests.system.sites import Site
from tests.system.small_site import allow_all

pytestmark = pytest.mark.needs("embedder", "model")


async def test_three_nodes_converge_whatever_becomes_of_their_links(tmp_path: Path, databases: Databases) -> None:
    """One cut, one in silence, one restarted and the control plane restarted as well: all end at the newest."""
    async with Site(tmp_path, nodes=3, databases=databases) as site:
        await site.apply(allow_all("first"))
        await site.converged()
        counted = site.nodes[1].wire.up_bytes

        site.cut(0)
        site.hold(1)
        await site.apply(allow_all("second"))
        await site.restart(2)
        await site.settled(2)
        assert (await site.facts(0)).config.healthy_revision == 1
        await site.restart_control_plane()
        site.heal()
        await site.apply(allow_all("third"))
        await site.converged()

        for node in site.nodes:
            assert set(node.running.activation.running().policies) == {"first", "second", "third"}
            assert node.ledger().ok, node.ledger().problem
        assert 0 < counted < site.nodes[1].wire.up_bytes
        assert len(site.received()) <= sum(len(node.left()) for node in site.nodes)
