"""Configuration that was altered on its way, over the real pair of planes: the node refuses it by code, goes on with
what ran, and the operator reads why."""

import asyncio
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from control_plane.config.revisions import Body
from control_plane.config.trust import create_tenant_keys
from data_plane.egress.reader import read_leaves
from data_plane.egress.service import ledger_folder
from faos.resource.v1.resource_pb2 import Resource
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core.clock import SystemClock
from tests.system.harness import TENANT, running_control_plane
from tests.system.small_site import (
    agent,
    allow_all,
    ask,
    fill_small_site,
    knowledge_base,
    model,
    running_node,
    tool_server,
    until_settled,
)
from tunnel.client import GET_BLOB

pytestmark = pytest.mark.needs("embedder", "bwrap", "model")

FIRST = (tool_server(tools=["fine"]), allow_all())
SECOND = tool_server(tools=["fine", "hangs"])
DATABASE = "control-plane.db"


class MovedClock(SystemClock):
    """The machine's clock, moved."""

    offset = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.offset


def change(data_dir: Path, *statements: tuple[str, tuple[Any, ...]]) -> None:
    """Alter the database of a control plane that is not running; each statement must hit something."""
    with closing(sqlite3.connect(data_dir / DATABASE)) as connection, connection:
        for sql, values in statements:
            assert connection.execute(sql, values).rowcount, sql


def stored(data_dir: Path, sql: str) -> Any:
    with closing(sqlite3.connect(data_dir / DATABASE)) as connection:
        return connection.execute(sql).fetchone()[0]


def swap_blob(data_dir: Path) -> None:
    """Another body under the digest that was signed for."""
    other = Body.of(tool_server(tools=["dies"]))
    change(data_dir, ("UPDATE blobs SET data = ? WHERE sha256 = ?", (other.data, Body.of(SECOND).digest)))


def swap_blob_and_its_digest(data_dir: Path) -> None:
    """Another body under its own digest, everywhere but in the manifest."""
    other = Body.of(tool_server(tools=["dies"]))
    change(
        data_dir,
        ("INSERT INTO blobs (tenant, sha256, data) VALUES (?, ?, ?)", (TENANT, other.digest, other.data)),
        ("UPDATE resources SET sha256 = ? WHERE sha256 = ?", (other.digest, Body.of(SECOND).digest)),
    )


def flip_manifest(data_dir: Path) -> None:
    """One bit of a name in the manifest."""
    manifest = bytearray(stored(data_dir, "SELECT manifest FROM revisions WHERE number = 2"))
    manifest[manifest.index(b"rogue")] ^= 1
    change(data_dir, ("UPDATE revisions SET manifest = ? WHERE number = 2", (bytes(manifest),)))


def flip_signature(data_dir: Path) -> None:
    """One digit of the publisher's signature; snapshot's digest of targets then differs as well."""
    data = stored(data_dir, "SELECT data FROM tuf_metadata WHERE role = 'targets' AND version = 2")
    at = data.index(b'"sig":"') + 10
    changed = data[:at] + (b"0" if data[at : at + 1] != b"0" else b"1") + data[at + 1 :]
    change(data_dir, ("UPDATE tuf_metadata SET data = ? WHERE role = 'targets' AND version = 2", (changed,)))


def forge_timestamp(data_dir: Path) -> None:
    """A timestamp of the right version from a key that is not the tenant's."""
    data = stored(data_dir, "SELECT data FROM tuf_metadata WHERE role = 'timestamp' AND version = 2")
    at = data.index(b'"sig":"') + 10
    changed = data[:at] + (b"0" if data[at : at + 1] != b"0" else b"1") + data[at + 1 :]
    change(data_dir, ("UPDATE tuf_metadata SET data = ? WHERE role = 'timestamp' AND version = 2", (changed,)))


@pytest.mark.parametrize(
    ("alter", "code"),
    [
        (swap_blob, tunnel.NACK_CODE_DIGEST_MISMATCH),
        (swap_blob_and_its_digest, tunnel.NACK_CODE_BLOB_MISSING),
        (flip_manifest, tunnel.NACK_CODE_DIGEST_MISMATCH),
        (flip_signature, tunnel.NACK_CODE_DIGEST_MISMATCH),
        (forge_timestamp, tunnel.NACK_CODE_SIGNATURE_INVALID),
    ],
)
async def test_what_was_altered_after_signing_is_refused(
    tmp_path: Path, alter: Callable[[Path], None], code: tunnel.NackCode.ValueType
) -> None:
    """Whoever can write to the control plane's database, and cannot sign, changes nothing at a site."""
    site_toml = fill_small_site(tmp_path / "site")
    async with running_control_plane(tmp_path / "cp") as plane:
        await plane.create_tenant()
        member = await plane.join(tmp_path / "node")
        address = plane.tunnel_address
        async with running_node(tmp_path / "node", site_toml):
            applied = await plane.apply(*FIRST)
            seen = await until_settled(plane, member.identity.node, applied.revision)
            assert seen.config.state == tunnel.APPLY_STATE_HEALTHY, str(seen.config)
        await plane.apply(SECOND)
    alter(tmp_path / "cp")

    async with (
        running_control_plane(tmp_path / "cp", tunnel_listen=address) as plane,
        running_node(tmp_path / "node", site_toml) as running,
    ):
        seen = await until_settled(plane, member.identity.node, 2)

        assert_refused(seen, code, running=1)
        assert running.activation.running().tool_servers["rogue"].allowed_tools == ["fine"]


def assert_refused(seen: Any, code: tunnel.NackCode.ValueType, *, running: int) -> None:
    """Rejected by this code, explained, and what ran still runs."""
    assert seen.config.state == tunnel.APPLY_STATE_REJECTED
    assert tunnel.NackCode.Name(seen.config.nack.code) == tunnel.NackCode.Name(code)
    assert len(seen.config.nack.explanation) > 40, "the operator reads what it means"
    assert seen.config.running_revision == seen.config.healthy_revision == running


async def test_body_that_an_offer_does_not_carry_is_fetched_through_the_gate(tmp_path: Path) -> None:
    """The counterpart of BLOB_MISSING: large resources arrive, and what the node asked for stands in its ledger."""
    site_toml = fill_small_site(tmp_path / "site")
    large = allow_all("large")
    large.policy.rules[0].arguments.update({"description": "x" * 100_000})
    async with running_control_plane(tmp_path / "cp") as plane:
        await plane.create_tenant()
        member = await plane.join(tmp_path / "node")
        async with running_node(tmp_path / "node", site_toml):
            await plane.apply(large)
            seen = await until_settled(plane, member.identity.node, 1)

    assert seen.config.state == tunnel.APPLY_STATE_HEALTHY, str(seen.config)
    leaves = list(read_leaves(ledger_folder(tmp_path / "node")))
    assert [leaf.body for leaf in leaves if leaf.method == GET_BLOB] == [
        tunnel.GetBlobRequest(sha256=Body.of(large).digest).SerializeToString()
    ]


async def test_older_revision_and_another_publisher_are_refused(tmp_path: Path) -> None:
    """A restored backup and a replaced key folder: what a site has once taken from its publisher cannot be undone."""
    site_toml = fill_small_site(tmp_path / "site")
    async with running_control_plane(tmp_path / "cp") as plane:
        await plane.create_tenant()
        member = await plane.join(tmp_path / "node")
        address = plane.tunnel_address
        await plane.apply(*FIRST)
        async with running_node(tmp_path / "node", site_toml):
            await until_settled(plane, member.identity.node, 1)
    shutil.copytree(tmp_path / "cp", tmp_path / "backup")
    async with (
        running_control_plane(tmp_path / "cp", tunnel_listen=address) as plane,
        running_node(tmp_path / "node", site_toml),
    ):
        await plane.apply(SECOND)
        seen = await until_settled(plane, member.identity.node, 2)
        assert seen.config.state == tunnel.APPLY_STATE_HEALTHY, str(seen.config)

    async with (
        running_control_plane(tmp_path / "backup", tunnel_listen=address) as plane,
        running_node(tmp_path / "node", site_toml) as running,
    ):
        seen = await until_settled(plane, member.identity.node, 1, [tunnel.APPLY_STATE_REJECTED])
        assert_refused(seen, tunnel.NACK_CODE_ROLLBACK, running=2)

        shutil.rmtree(tmp_path / "backup" / "keys" / TENANT)
        create_tenant_keys(tmp_path / "backup" / "keys" / TENANT, now=datetime.now(UTC))
        for name in ("another", "yet-another", "third"):
            applied = await plane.apply(tool_server(name))
        seen = await until_settled(plane, member.identity.node, applied.revision)
        assert_refused(seen, tunnel.NACK_CODE_SIGNATURE_INVALID, running=2)
        assert running.activation.running().revision == 2


async def test_expired_freshness_stops_what_is_new_and_nothing_else(tmp_path: Path) -> None:
    """A control plane that somebody holds back can be delayed; it cannot pass off old statements as today's."""
    site_toml = fill_small_site(tmp_path / "site")
    clock = MovedClock()
    async with running_control_plane(tmp_path / "cp", clock=clock) as plane:
        await plane.create_tenant()
        member = await plane.join(tmp_path / "node")
        async with running_node(tmp_path / "node", site_toml) as running:
            await plane.apply(*FIRST)
            await until_settled(plane, member.identity.node, 1)
            clock.offset = timedelta(days=-10)  # its timestamps live for 7 days: to the node they are 3 days over
            await plane.apply(SECOND)
            seen = await until_settled(plane, member.identity.node, 2)

            assert_refused(seen, tunnel.NACK_CODE_METADATA_EXPIRED, running=1)
            assert running.applier.alarms() == ("config.metadata_expired",)
            assert running.activation.running().revision == 1


@pytest.mark.parametrize(
    ("resource", "path"),
    [
        (tool_server(program="/bin/sh"), "spec.program"),
        (tool_server(program="sh -c id"), "spec.program"),
        (knowledge_base(folder="../../etc"), "spec.folder"),
        (model(source="models.example.org:8080"), "spec.source"),
    ],
)
async def test_apply_refuses_commands_paths_and_hosts(tmp_path: Path, resource: Resource, path: str) -> None:
    """The author reads at once, by field, that such things are the site's to define."""
    async with running_control_plane(tmp_path / "cp") as plane:
        await plane.create_tenant()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await plane.apply(resource)
        assert stored(tmp_path / "cp", "SELECT count(*) FROM revisions") == 0

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert path in str(caught.value.details()) + str(caught.value.trailing_metadata())


async def test_names_that_the_ceiling_lacks_are_refused_with_their_place(tmp_path: Path) -> None:
    """Only the site can allow it, and the operator reads which field of which resource asked for it."""
    site_toml = fill_small_site(tmp_path / "site")
    async with running_control_plane(tmp_path / "cp") as plane:
        await plane.create_tenant()
        member = await plane.join(tmp_path / "node")
        async with running_node(tmp_path / "node", site_toml):
            await plane.apply(*FIRST)
            await until_settled(plane, member.identity.node, 1)
            await plane.apply(tool_server("other", program="scanner"))
            seen = await until_settled(plane, member.identity.node, 2)

    assert_refused(seen, tunnel.NACK_CODE_NAME_NOT_IN_CEILING, running=1)
    nack = seen.config.nack
    assert (nack.kind, nack.resource_name, nack.field_path) == ("ToolServer", "other", "spec.program")


@pytest.mark.slow
async def test_model_file_with_a_wrong_checksum_is_not_loaded_and_the_agent_still_answers(tmp_path: Path) -> None:
    """A damaged or swapped model must not run, and must not take the one that runs with it."""
    site_toml = fill_small_site(tmp_path / "site", own_model=True)
    async with running_control_plane(tmp_path / "cp") as plane:
        await plane.create_tenant()
        member = await plane.join(tmp_path / "node")
        async with running_node(tmp_path / "node", site_toml) as running:
            await plane.apply(model(), agent())
            seen = await until_settled(plane, member.identity.node, 1)
            assert seen.config.state == tunnel.APPLY_STATE_HEALTHY, str(seen.config)
            await asyncio.to_thread(damage, tmp_path / "site" / "model.gguf")
            await plane.apply(model("copy", context_tokens=1024))
            seen = await until_settled(plane, member.identity.node, 2)
            run, _ = await ask(running, "Say hello.")

    assert_refused(seen, tunnel.NACK_CODE_MODEL_CHECKSUM, running=1)
    assert (seen.config.nack.kind, seen.config.nack.resource_name) == ("Model", "copy")
    assert (run.error_code, bool(run.output)) == ("", True)


def damage(file: Path) -> None:
    """Another file in its place, of the same size: what runs has the old one mapped."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    (scratch := file.with_suffix(".new")).write_bytes(data)
    scratch.rename(file)
