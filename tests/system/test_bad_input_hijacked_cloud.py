"""Promise 3: who holds the whole control plane, keys included, makes a node do nothing that its site did not allow."""

import asyncio
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from control_plane.config import trust
from faos.resource.v1 import resource_pb2 as pb
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from tests.system.harness import running_control_plane
from tests.system.hijacked_cloud import CLOSED, HijackedCloud, Stream, entry_for, entry_of
from tests.system.small_site import (
    agent,
    allow_all,
    fill_small_site,
    knowledge_base,
    model,
    running_node,
    tool_server,
    until_settled,
)
from tunnel.backoff import FIRST_S

pytestmark = pytest.mark.needs("embedder", "bwrap", "model")

STANDING = (tool_server(), allow_all(), knowledge_base())
UNKNOWN_FIELD = b"\xa2\x06\x07/bin/sh"  # field 100, seven bytes
CEILING = "NACK_CODE_NAME_NOT_IN_CEILING"
MEGABYTE = 1024 * 1024
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F"}  # 127.0.0.1 as /proc/net writes it, IPv4 and mapped

Attack = Callable[[HijackedCloud, int], tunnel.ConfigOffer]


def declaring(*resources: pb.Resource) -> Attack:
    return lambda cloud, revision: cloud.offer(revision, [*STANDING[1:], *resources])


def with_body(body: bytes, **entry: Any) -> Attack:
    def make(cloud: HijackedCloud, revision: int) -> tunnel.ConfigOffer:
        declared, raw = entry_for(body, **entry)
        return cloud.offer(revision, [declared], raw=raw)

    return make


def with_fields(**fields: Any) -> Attack:
    """An otherwise good offer with these fields in place of its own."""
    return lambda cloud, revision: cloud.offer(revision, STANDING, **fields)


def with_chunks(*chunks: tunnel.BlobChunk) -> Attack:
    """A body that is not carried, and comes like this when it is asked for."""

    def make(cloud: HijackedCloud, revision: int) -> tunnel.ConfigOffer:
        entry = entry_of(allow_all(f"large-{revision}"))
        cloud.blobs[entry.sha256] = chunks
        return cloud.offer(revision, [entry])

    return make


def of_another_publisher(folder: Path) -> Attack:
    trust.create_tenant_keys(folder, now=datetime.now(UTC))

    def make(cloud: HijackedCloud, revision: int) -> tunnel.ConfigOffer:
        offer = cloud.offer(revision, STANDING)
        offer.metadata.CopyFrom(cloud.sign(offer.manifest, revision, keys=trust.load_tenant_keys(folder)))
        return offer

    return make


def expired(cloud: HijackedCloud, revision: int) -> tunnel.ConfigOffer:
    offer = cloud.offer(revision, STANDING)
    offer.metadata.CopyFrom(cloud.sign(offer.manifest, revision, now=datetime.now(UTC) - timedelta(days=30)))
    return offer


def older(cloud: HijackedCloud, revision: int) -> tunnel.ConfigOffer:
    offer = cloud.offer(1, STANDING)
    return tunnel.ConfigOffer(nonce=b"older", revision=revision, manifest=offer.manifest, metadata=offer.metadata)


def of_another_revision(cloud: HijackedCloud, revision: int) -> tunnel.ConfigOffer:
    offer = cloud.offer(revision + 1, STANDING)
    offer.revision = revision
    return offer


def with_unknown_manifest_field(cloud: HijackedCloud, revision: int) -> tunnel.ConfigOffer:
    manifest = cloud.offer(revision, STANDING).manifest + UNKNOWN_FIELD
    return cloud.offer(revision, [], manifest=manifest + b"\xff", metadata=cloud.sign(manifest + b"\xff", revision))


def attacks(folder: Path) -> dict[str, tuple[Attack, str]]:
    """What → (how, what the node says to it)."""
    command = tool_server("shell").SerializeToString()
    blob = tunnel.BlobChunk(data=b"x" * 100, total_bytes=100)
    huge = pb.PolicyRule(name="a", effect=pb.POLICY_EFFECT_ALLOW)
    huge.arguments.update({"description": "x" * 300_000})
    huge_policy = pb.Resource(metadata=pb.Metadata(name="huge"), policy=pb.Policy(rules=[huge]))
    return {
        "path of a program": (declaring(tool_server("shell", program="/bin/sh")), CEILING),
        "command line": (declaring(tool_server("shell", program="sh -c 'id > /tmp/owned'")), CEILING),
        "way out of a folder": (declaring(knowledge_base("etc", folder="../../etc")), CEILING),
        "folder by path": (declaring(knowledge_base("etc", folder="/etc")), CEILING),
        "model by host": (declaring(model("m", source="https://models.example.org/m.gguf")), CEILING),
        "model by path": (declaring(model("m", source="/etc/shadow")), CEILING),
        "program that the site lacks": (declaring(tool_server("shell", program="sh")), CEILING),
        "folder that the site lacks": (declaring(knowledge_base("etc", folder="etc")), CEILING),
        "tool that the server lacks": (declaring(tool_server("s", tools=["absent"])), "NACK_CODE_TOOL_NOT_OFFERED"),
        "reference to nothing": (declaring(agent("a", model="absent")), "NACK_CODE_REFERENCE_MISSING"),
        "unknown field": (
            with_body(command + UNKNOWN_FIELD, kind=pb.KIND_TOOL_SERVER, name="shell"),
            "NACK_CODE_SPEC_INVALID",
        ),
        "unknown kind": (with_body(b"", kind=77, name="exec"), "NACK_CODE_KIND_UNKNOWN"),
        "kind in disguise": (with_body(command, kind=pb.KIND_POLICY, name="shell"), "NACK_CODE_SPEC_INVALID"),
        "name in disguise": (with_body(command, kind=pb.KIND_TOOL_SERVER, name="calm"), "NACK_CODE_SPEC_INVALID"),
        "body that is no resource": (
            with_body(b"\xff\xff\xff", kind=pb.KIND_POLICY, name="p"),
            "NACK_CODE_UNPARSABLE",
        ),
        "name that is a path": (with_body(command, kind=pb.KIND_TOOL_SERVER, name="../x"), "NACK_CODE_UNPARSABLE"),
        "same name twice": (declaring(STANDING[1]), "NACK_CODE_UNPARSABLE"),
        "resource of 300 kB": (declaring(huge_policy), "NACK_CODE_TOO_LARGE"),
        "manifest of 5 MB": (with_fields(manifest=b"x" * 5 * MEGABYTE), "NACK_CODE_TOO_LARGE"),
        "manifest that is none": (with_unknown_manifest_field, "NACK_CODE_UNPARSABLE"),
        "another tenant": (lambda cloud, n: cloud.offer(n, STANDING, tenant="rival"), "NACK_CODE_WRONG_TENANT"),
        "another revision": (of_another_revision, "NACK_CODE_UNPARSABLE"),
        "older revision": (older, "NACK_CODE_ROLLBACK"),
        "expired": (expired, "NACK_CODE_METADATA_EXPIRED"),
        "no metadata": (with_fields(metadata=tunnel.TufMetadata()), "NACK_CODE_UNPARSABLE"),
        "another publisher": (of_another_publisher(folder), "NACK_CODE_SIGNATURE_INVALID"),
        "blob under a false digest": (
            with_fields(blobs=[tunnel.Blob(sha256=b"0" * 32, data=b"x")]),
            "NACK_CODE_DIGEST_MISMATCH",
        ),
        "blob that nobody has": (
            lambda cloud, n: cloud.offer(n, [entry_of(allow_all("absent"))]),
            "NACK_CODE_BLOB_MISSING",
        ),
        "blob that is another": (with_chunks(blob), "NACK_CODE_DIGEST_MISMATCH"),
        "blob without end": (
            with_chunks(*[tunnel.BlobChunk(offset_bytes=n * MEGABYTE, data=b"x" * MEGABYTE) for n in range(9)]),
            "NACK_CODE_DIGEST_MISMATCH",
        ),
        "blob out of order": (
            with_chunks(tunnel.BlobChunk(offset_bytes=5, data=b"x", total_bytes=6)),
            "NACK_CODE_DIGEST_MISMATCH",
        ),
    }


class Opened:
    """Files that Python code opens and programs that it starts, recorded while `watching`: audit hooks cannot be
    removed, so there is one for the life of the process."""

    def __init__(self) -> None:
        self.paths: set[str] = set()
        self.commands: list[Any] = []
        self._on = False
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._on:
            return
        if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            self.paths.add(os.path.realpath(os.fsdecode(arguments[0])))
        if event in ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system"):
            self.commands.append(arguments)

    @contextmanager
    def watching(self) -> Iterator[None]:
        self._on = True
        try:
            yield
        finally:
            self._on = False


def processes() -> dict[int, str]:
    """Children of this process and theirs, by command line."""
    found: dict[int, str] = {}
    pending = [os.getpid()]
    while pending:
        for task in Path(f"/proc/{pending.pop()}/task").glob("*/children"):
            children = [int(pid) for pid in task.read_text().split()]
            pending += children
            found |= {pid: Path(f"/proc/{pid}/cmdline").read_bytes().decode() for pid in children}
    return found


def remote_ports() -> set[tuple[str, int]]:
    """Where this process has connections to, as the kernel tells it."""
    sockets = {str(file.readlink()) for file in Path("/proc/self/fd").iterdir() if file.is_symlink()}
    found = set()
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            columns = line.split()
            address, port = columns[2].split(":")
            if f"socket:[{columns[9]}]" in sockets and int(port, 16):
                found.add((address, int(port, 16)))
    return found


async def test_nothing_that_a_hijacked_cloud_sends_changes_what_the_node_does(tmp_path: Path) -> None:
    """Each attack ends in a refusal by code; afterwards the same processes run, no file outside the site's ceiling
    was opened, nothing was dialled, and a good revision is still taken."""
    site_toml = fill_small_site(tmp_path / "site")
    async with running_control_plane(tmp_path / "cp") as plane:
        await plane.create_tenant()
        member = await plane.join(tmp_path / "node")
        address = plane.tunnel_address
        await plane.apply(*STANDING)
        async with running_node(tmp_path / "node", site_toml):
            await until_settled(plane, member.identity.node, 1)
    cloud, opened = HijackedCloud(tmp_path / "cp"), Opened()
    listed = attacks(tmp_path / "thief" / "keys")
    answers: dict[str, str] = {}

    async with running_node(tmp_path / "node", site_toml) as running:
        before = processes(), running.activation.running()
        async with cloud.serving(address):
            stream = await cloud.next_stream()
            await stream.welcome()
            with opened.watching():
                for revision, (name, (attack, _)) in enumerate(listed.items(), 2):
                    offer = await asyncio.to_thread(attack, cloud, revision)
                    await stream.send(tunnel.CloudFrame(config_offer=offer).SerializeToString())
                    answers[name] = await stream.verdict(revision)
                    assert not stream.is_closed, name  # each is refused, none costs the link
            after = processes(), running.activation.running()
            dialled = remote_ports()
            last = len(listed) + 10
            await stream.send(tunnel.CloudFrame(config_offer=cloud.offer(last, STANDING)).SerializeToString())
            final = await stream.verdict(last)

    assert answers == {name: code for name, (_, code) in listed.items()}
    assert after == before
    assert {host for host, _ in dialled} <= LOOPBACK
    assert not [path for path in opened.paths if not allowed(path, tmp_path)]
    assert final == "APPLY_STATE_HEALTHY", "it was refused, not broken"


def allowed(path: str, scratch: Path) -> bool:
    """Of the node's own data, of what its ceiling names, of the drill itself, or of Python and its libraries."""
    libraries = (sys.prefix, sys.base_prefix, str(Path(__file__).parents[2]))
    own = [str(scratch / folder) for folder in ("node", "site", "cp", "thief")]
    return path.startswith((*own, *libraries)) or path == tempfile.gettempdir()  # python-tuf: O_TMPFILE, no name


FRAMES: dict[str, bytes] = {
    "offer before Welcome": tunnel.CloudFrame(config_offer=tunnel.ConfigOffer(revision=9)).SerializeToString(),
    "heartbeat before Welcome": tunnel.CloudFrame(heartbeat=tunnel.CloudHeartbeat()).SerializeToString(),
    "empty frame": b"",
    "frame of the future": UNKNOWN_FIELD,
    "frame that is none": b"\xff\xff\xff\xff",
    "frame of 17 MB": tunnel.CloudFrame(
        config_offer=tunnel.ConfigOffer(manifest=b"x" * 17 * MEGABYTE)
    ).SerializeToString(),
}
LATER_FRAMES: dict[str, bytes] = {
    "Welcome again": tunnel.CloudFrame(welcome=tunnel.Welcome()).SerializeToString(),
    "nonce that fills the ledger": tunnel.CloudFrame(
        config_offer=tunnel.ConfigOffer(nonce=b"x" * MEGABYTE)
    ).SerializeToString(),
}


async def test_frames_out_of_turn_close_the_stream_and_the_node_dials_again(tmp_path: Path) -> None:
    """What a frame cannot mean is not guessed at; four bytes of garbage once stopped the whole node."""
    site_toml = fill_small_site(tmp_path / "site")
    async with running_control_plane(tmp_path / "cp") as plane:
        await plane.create_tenant()
        await plane.join(tmp_path / "node")
        address = plane.tunnel_address
    cloud = HijackedCloud(tmp_path / "cp")
    answers: dict[str, str] = {}

    async with cloud.serving(address), running_node(tmp_path / "node", site_toml, dial_again_s=FIRST_S) as running:
        for name, raw in FRAMES.items():
            stream = await cloud.next_stream()
            answers[name] = await answer_to(stream, raw)
        for name, raw in LATER_FRAMES.items():
            stream = await cloud.next_stream()
            await stream.welcome()
            answers[name] = await answer_to(stream, raw)
        await cloud.next_stream()

        assert running.activation.running().revision == 0

    assert set(answers.values()) == {CLOSED}, answers


async def answer_to(stream: Stream, raw: bytes) -> str:
    await stream.send(raw)
    return await stream.verdict(9)
