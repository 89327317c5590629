"""The publisher's key, and the root's, leave the control plane: over the real pair of planes, with the command line."""

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from control_plane.config import trust
from faos.admin.v1 import admin_pb2 as admin
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core.resource_yaml import dump
from tests.system.harness import TENANT, running_control_plane
from tests.system.hijacked_cloud import HijackedCloud
from tests.system.sites import Site
from tests.system.small_site import allow_all

pytestmark = pytest.mark.needs("embedder", "bwrap", "model")


@dataclass(frozen=True, slots=True)
class Operator:
    """Somebody at a machine of their own, with the command line and keys of theirs."""

    folder: Path
    site: Site

    async def faos(self, *arguments: str) -> str:
        """What a command that succeeds prints."""
        code, out, err = await self.tried(*arguments)
        assert code == 0, err
        return out

    async def tried(self, *arguments: str) -> tuple[int, str, str]:
        self.folder.mkdir(exist_ok=True)
        cp = self.site.plane.data_dir
        context = {
            "admin_address": f"127.0.0.1:{self.site.plane.endpoints.admin_port}",
            "ca_file": str(cp / "ca" / "ca.pem"),
            "token_file": str(cp / "admin.token"),
        }
        (self.folder / "context.json").write_text(json.dumps(context))
        own = {"HOME": str(self.folder), "XDG_STATE_HOME": str(self.folder / "state"), "FAOS_KEY_PASSPHRASE": "secret"}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "faos_cli", "--context", str(self.folder), *arguments),
            env=os.environ | own,
            cwd=self.folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        return process.returncode or 0, out.decode(), err.decode()

    def write(self, *resources: Any) -> str:
        (self.folder / "resources.yaml").write_text(dump(list(resources)))
        return "resources.yaml"

    async def published(self) -> int:
        """The revision that stands."""
        answer = await self.site.plane.resources.ListRevisions(
            admin.ListRevisionsRequest(tenant=TENANT), metadata=self.site.plane.metadata
        )
        return int(answer.revisions[0].number)


@pytest.fixture
async def operator(tmp_path: Path) -> AsyncIterator[Operator]:
    """Of a running site whose first revision the control plane signed."""
    async with Site(tmp_path / "whole") as site:
        await site.apply(allow_all("first"))
        await site.converged()
        made = Operator(tmp_path / "operator", site)
        await made.faos("key", "generate", "publisher.key")
        yield made


async def healthy(operator: Operator, place: int = 0) -> None:
    """The node runs what stands."""
    await operator.site.settled(place, await operator.published(), states=(tunnel.APPLY_STATE_HEALTHY,))


async def test_after_the_move_only_the_operators_signature_counts(operator: Operator, tmp_path: Path) -> None:
    """Whoever breaks into the control plane, and had its keys before, publishes nothing; the operator does."""
    site, keys = operator.site, operator.site.plane.data_dir / "keys" / TENANT
    stolen = shutil.copytree(keys, tmp_path / "stolen")
    await operator.faos("tenant", "publisher", "set", "--key", "file:publisher.key", "--yes")
    await healthy(operator)
    assert not (keys / "targets.pem").exists()

    verdicts = await offered_by_thief(site, stolen)
    refused = await operator.tried("apply", "-f", operator.write(allow_all("second")))
    applied = await operator.faos(*("apply", "-f", "resources.yaml", "--sign", "file:publisher.key", "--yes", "--wait"))

    assert verdicts == ["NACK_CODE_SIGNATURE_INVALID"]
    assert refused[0] == 1
    assert "faos apply --sign KEYREF" in refused[2]
    assert "Revision 3 is healthy on 1 node(s)." in applied


async def offered_by_thief(site: Site, stolen: Path) -> list[str]:
    """How the node answers a revision signed with the keys that the control plane had."""
    address = site.plane.tunnel_address
    await site.stop_control_plane()
    thief = HijackedCloud(site.folder / "cp")
    thief.keys = trust.load_tenant_keys(stolen)
    async with thief.serving(address):
        stream = await thief.next_stream()
        await stream.welcome()
        offer = thief.offer(3, [allow_all("evil")])
        await stream.send(tunnel.CloudFrame(config_offer=offer).SerializeToString())
        verdicts = [await stream.verdict(3)]
    await site.start_control_plane()
    return verdicts


async def test_node_that_was_away_follows_root_and_publisher(operator: Operator) -> None:
    """Both keys moved while it was off: one offer brings the chain of roots, and the content that follows from it. A
    node that joins only now starts from the first root too."""
    site = operator.site
    await site.node.stop()
    await operator.faos("key", "generate", "root.key", "--type", "p256")
    await operator.faos("tenant", "root", "set", "--key", "file:root.key", "--yes")
    stuck = await operator.tried("tenant", "publisher", "set", "--key", "file:publisher.key", "--yes")
    moved = await operator.faos(
        *("tenant", "publisher", "set", "--key", "file:publisher.key", "--yes", "--root-key", "file:root.key")
    )
    await operator.faos("apply", "-f", operator.write(allow_all("second")), "--sign", "file:publisher.key", "--yes")

    await site.node.start()
    await healthy(operator)
    await site._add_node()
    await healthy(operator, 1)

    assert (stuck[0], "add --root-key KEYREF" in stuck[2]) == (1, True)
    assert "root version 3" in moved
    facts = json.loads(await operator.faos("tenant", "publisher", "show", "-o", "json"))
    assert facts["publisher"].endswith("(elsewhere)")
    assert facts["root"].endswith("(elsewhere)")
    assert not (site.plane.data_dir / "keys" / TENANT / "root.pem").exists()


async def test_tenant_of_an_operators_key_from_the_start(tmp_path: Path) -> None:
    """The control plane never had a key that could publish: the strongest case, and nothing to move."""
    async with running_control_plane(tmp_path / "cp") as plane:
        operator = Operator(tmp_path / "operator", Site(tmp_path))
        operator.site.plane = plane
        await operator.faos("key", "generate", "publisher.key")
        (operator.folder / "publisher.pem").write_text(
            await operator.faos("key", "show", "file:publisher.key", "-o", "pem")
        )
        await operator.faos("tenant", "create", TENANT, "--publisher-key", "publisher.pem")
        file = operator.write(allow_all("first"))
        refused = await operator.tried("apply", "-f", file)
        applied = await operator.faos("apply", "-f", file, "--sign", "file:publisher.key", "--yes")

        assert "cannot publish for tenant" in refused[2]
        assert "Revision 1 is the desired state now" in applied
        assert sorted(path.name for path in (tmp_path / "cp" / "keys" / TENANT).glob("*.pem")) == [
            "root.pem",
            "snapshot.pem",
            "timestamp.pem",
        ]
