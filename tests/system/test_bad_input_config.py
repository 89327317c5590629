"""Configuration that was altered on its way, over the real pair of planes: the node refuses it by code, goes on with
what ran, and the operator reads why."""

import asyncio
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
import sqlalchemy as sa

from control_plane.config.revisions import Body
from control_plane.config.trust import create_tenant_keys
from control_plane.settings import DATABASE_FILE
from data_plane.egress.reader import read_leaves
from data_plane.egress.service import ledger_folder
from faos.resource.v1.resource_pb2 import Resource
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core.clock import SystemClock
from tests.servers.databases import Databases
from tests.system.harness import TENANT, running_control_plane
from tests.system.sites import Site
from tests.system.small_site import (
    agent,
    allow_all,
    ask,
    fill_small_site,
    knowledge_base,
    model,
    tool_server,
)
from tunnel.client import GET_BLOB

pytestmark = pytest.mark.needs("embedder", "bwrap", "model")

FIRST = (tool_server(tools=["fine"]), allow_all())
SECOND = tool_server(tools=["fine", "hangs"])


class MovedClock(SystemClock):
    """The machine's clock, moved."""

    offset = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.offset


def change(database: str, *statements: tuple[str, dict[str, Any]]) -> None:
    """Alter the database of a control plane that is not running; each statement must hit something."""
    with connected(database) as connection:
        for sql, values in statements:
            assert connection.execute(sa.text(sql), values).rowcount, sql


def stored(database: str, sql: str) -> Any:
    with connected(database) as connection:
        return connection.execute(sa.text(sql)).scalar()


@contextmanager
def connected(database: str) -> Iterator[sa.Connection]:
    """A transaction of its own. database: URL."""
    engine = sa.create_engine(database)
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def swap_blob(database: str) -> None:
    """Another body under the digest that was signed for."""
    other = Body.of(tool_server(tools=["dies"]))
    change(
        database,
        ("UPDATE blobs SET data = :data WHERE sha256 = :old", {"data": other.data, "old": Body.of(SECOND).digest}),
    )


def swap_blob_and_its_digest(database: str) -> None:
    """Another body under its own digest, everywhere but in the manifest."""
    other = Body.of(tool_server(tools=["dies"]))
    body = {"new": other.digest, "data": other.data}
    change(
        database,
        ("INSERT INTO blobs (tenant, sha256, data) VALUES (:tenant, :new, :data)", {"tenant": TENANT} | body),
        (
            "UPDATE resources SET sha256 = :new WHERE sha256 = :old",
            {"new": other.digest, "old": Body.of(SECOND).digest},
        ),
    )


def flip_manifest(database: str) -> None:
    """One bit of a name in the manifest."""
    manifest = bytearray(stored(database, "SELECT manifest FROM revisions WHERE number = 2"))
    manifest[manifest.index(b"rogue")] ^= 1
    change(database, ("UPDATE revisions SET manifest = :data WHERE number = 2", {"data": bytes(manifest)}))


def flip_signature(database: str) -> None:
    """One digit of the publisher's signature; snapshot's digest of targets then differs as well."""
    data = stored(database, "SELECT data FROM tuf_metadata WHERE role = 'targets' AND version = 2")
    at = data.index(b'"sig":"') + 10
    changed = data[:at] + (b"0" if data[at : at + 1] != b"0" else b"1") + data[at + 1 :]
    change(database, ("UPDATE tuf_metadata SET data = :data WHERE role = 'targets' AND version = 2", {"data": changed}))


def forge_timestamp(database: str) -> None:
    """A timestamp of the right version from a key that is not the tenant's."""
    data = stored(database, "SELECT data FROM tuf_metadata WHERE role = 'timestamp' AND version = 2")
    at = data.index(b'"sig":"') + 10
    changed = data[:at] + (b"0" if data[at : at + 1] != b"0" else b"1") + data[at + 1 :]
    change(
        database, ("UPDATE tuf_metadata SET data = :data WHERE role = 'timestamp' AND version = 2", {"data": changed})
    )


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
    tmp_path: Path, databases: Databases, alter: Callable[[str], None], code: tunnel.NackCode.ValueType
) -> None:
    """Whoever can write to the control plane's database, and cannot sign, changes nothing at a site."""
    async with Site(tmp_path, databases=databases) as site:
        await site.apply(*FIRST)
        await site.converged()
        await site.node.stop()
        await site.apply(SECOND)
        await site.stop_control_plane()
        alter(site.database)
        await site.start_control_plane()
        running = await site.node.start()

        assert_refused(await site.settled(), code, running=1)
        assert running.activation.running().tool_servers["rogue"].allowed_tools == ["fine"]


def assert_refused(seen: Any, code: tunnel.NackCode.ValueType, *, running: int) -> None:
    """Rejected by this code, explained, and what ran still runs."""
    assert seen.config.state == tunnel.APPLY_STATE_REJECTED
    assert tunnel.NackCode.Name(seen.config.nack.code) == tunnel.NackCode.Name(code)
    assert len(seen.config.nack.explanation) > 40, "the operator reads what it means"
    assert seen.config.running_revision == seen.config.healthy_revision == running


async def test_body_that_an_offer_does_not_carry_is_fetched_through_the_gate(tmp_path: Path) -> None:
    """The counterpart of BLOB_MISSING: large resources arrive, and what the node asked for stands in its ledger."""
    large = allow_all("large")
    large.policy.rules[0].arguments.update({"description": "x" * 100_000})
    async with Site(tmp_path) as site:
        await site.apply(large)
        await site.converged()
        await site.node.stop()

        leaves = read_leaves(ledger_folder(site.node.data_dir))
        assert [leaf.body for leaf in leaves if leaf.method == GET_BLOB] == [
            tunnel.GetBlobRequest(sha256=Body.of(large).digest).SerializeToString()
        ]


async def test_older_revision_and_replaced_keys_are_refused(tmp_path: Path) -> None:
    """A restored backup and a replaced key folder: what a site has once taken from its publisher cannot be undone."""
    backup = tmp_path / "backup"
    async with Site(tmp_path) as site:
        await site.apply(*FIRST)
        await site.converged()
        await site.stop_control_plane()
        shutil.copytree(tmp_path / "cp", backup)
        await site.start_control_plane()
        await site.apply(SECOND)
        await site.converged()

        await site.restart_control_plane(data_dir=backup)
        running = await site.restart()
        seen = await site.settled(revision=1, states=[tunnel.APPLY_STATE_REJECTED])
        assert_refused(seen, tunnel.NACK_CODE_ROLLBACK, running=2)

        shutil.rmtree(backup / "keys" / TENANT)
        create_tenant_keys(backup / "keys" / TENANT, now=datetime.now(UTC))
        with pytest.raises(grpc.aio.AioRpcError, match="cannot publish for tenant"):
            await site.apply(tool_server("another"))
        assert running.activation.running().revision == 2


async def test_expired_freshness_stops_what_is_new_and_nothing_else(tmp_path: Path) -> None:
    """A control plane that somebody holds back can be delayed; it cannot pass off old statements as today's."""
    clock = MovedClock()
    async with Site(tmp_path, clock=clock) as site:
        await site.apply(*FIRST)
        await site.converged()
        clock.offset = timedelta(days=-10)  # its timestamps live for 7 days: to the node they are 3 days over
        await site.apply(SECOND)

        assert_refused(await site.settled(), tunnel.NACK_CODE_METADATA_EXPIRED, running=1)
        assert site.node.running.applier.alarms() == ("config.metadata_expired",)
        assert site.node.running.activation.running().revision == 1


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
        assert stored(f"sqlite:///{tmp_path / 'cp' / DATABASE_FILE}", "SELECT count(*) FROM revisions") == 0

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert path in str(caught.value.details()) + str(caught.value.trailing_metadata())


async def test_names_that_the_ceiling_lacks_are_refused_with_their_place(tmp_path: Path) -> None:
    """Only the site can allow it, and the operator reads which field of which resource asked for it."""
    async with Site(tmp_path) as site:
        await site.apply(*FIRST)
        await site.converged()
        await site.apply(tool_server("other", program="scanner"))
        seen = await site.settled()

    assert_refused(seen, tunnel.NACK_CODE_NAME_NOT_IN_CEILING, running=1)
    nack = seen.config.nack
    assert (nack.kind, nack.resource_name, nack.field_path) == ("ToolServer", "other", "spec.program")


@pytest.mark.slow
async def test_model_file_with_a_wrong_checksum_is_not_loaded_and_the_agent_still_answers(tmp_path: Path) -> None:
    """A damaged or swapped model must not run, and must not take the one that runs with it."""
    async with Site(tmp_path, fill=partial(fill_small_site, own_model=True)) as site:
        await site.apply(model(), agent())
        await site.converged()
        await asyncio.to_thread(damage, tmp_path / "site" / "model.gguf")
        await site.apply(model("copy", context_tokens=1024))
        seen = await site.settled()
        run, _ = await ask(site.node.running, "Say hello.")

    assert_refused(seen, tunnel.NACK_CODE_MODEL_CHECKSUM, running=1)
    assert (seen.config.nack.kind, seen.config.nack.resource_name) == ("Model", "copy")
    assert (run.error_code, bool(run.output)) == ("", True)


def damage(file: Path) -> None:
    """Another file in its place, of the same size: what runs has the old one mapped."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    (scratch := file.with_suffix(".new")).write_bytes(data)
    scratch.rename(file)
