"""What parses bytes that somebody else wrote, each as a function of bytes that raises only for a defect.

Driven by atheris (`make fuzz`) and, shortly, by Hypothesis (test_targets.py).
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from google.protobuf.message import DecodeError
from securesystemslib.formats import encode_canonical

from data_plane.ceiling.models import Ceiling
from data_plane.egress import ledger_verifier, reader
from data_plane.egress.head_file import HEAD_NAME, pack_head
from data_plane.egress.interfaces import Leaf, LedgerHead
from data_plane.egress.records import frame, header_of, segment_header, segment_name
from data_plane.link import selection
from data_plane.link.admission import admit
from data_plane.link.interfaces import Configuration, ConfigurationError
from data_plane.link.trust import Trust
from faos.resource.v1.resource_pb2 import Resource
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core import resource_validation, resource_yaml
from faos_core.errors import IntegrityError, InvalidError
from tests.fixtures.resources_of_a_site import CEILING, LABELS, site
from tests.fixtures.tuf_publisher import TENANT, Publisher
from tunnel.identity import PREFIX, decode_join_string, encode_join_string
from tunnel.session import CloudSession, NodeSession, Phase, Target

CHUNK_BYTES = 64
PUBLISHER = Publisher()
MANIFEST = PUBLISHER.manifest(1, site())
GOOD = PUBLISHER.metadata(MANIFEST, 1)
PARTS = ("timestamp", "snapshot", "targets")
SIGNERS = PUBLISHER.keys
ROOT = PUBLISHER.tuf_root
NO_CEILING = Ceiling()


def chunks(data: bytes) -> Iterator[bytes]:
    """Pieces whose length the byte before them says."""
    at = 0
    while at < len(data):
        length = data[at]
        yield data[at + 1 : at + 1 + length]
        at += 1 + length


def node_frames(data: bytes) -> None:
    """Whatever a node sends: the control plane's machine answers or closes."""
    machine = CloudSession(b"session1", 15.0, 0.0, target=Target(1, b"m" * 32, frozenset({1})))
    for number, chunk in enumerate(chunks(data)):
        with suppress(DecodeError):
            was_closed = machine.phase is Phase.CLOSED
            effects = machine.receive(tunnel.NodeFrame.FromString(chunk), float(number))
            assert not (was_closed and effects), "a closed session answers"
            machine.tick(float(number))


def cloud_frames(data: bytes) -> None:
    """Whatever a control plane sends: the node's machine answers or closes."""
    machine = NodeSession(0.0)
    machine.open()
    for number, chunk in enumerate(chunks(data)):
        with suppress(DecodeError):
            machine.receive(tunnel.CloudFrame.FromString(chunk), float(number))
            machine.tick(float(number))
            assert machine.phase is not Phase.OPEN or machine.heartbeat_s >= 1.0


def trust(data: bytes) -> None:
    """Metadata in which one file is garbage, or is signed well and says garbage: a refusal, and nothing is left."""
    metadata, kind = tunnel.TufMetadata(), data[:1]
    metadata.CopyFrom(GOOD)
    part = PARTS[(kind or b"\0")[0] % 3]
    setattr(metadata, part, _signed(part, data[1:]) if (kind or b"\0")[0] < 128 else data[1:])
    with temporary_folder() as folder:
        work = folder / "work"
        try:
            Trust(ROOT).check(metadata, MANIFEST, trusted=None, work=work)
        except ConfigurationError:
            assert not work.exists(), "a refused offer left its metadata"


def _signed(part: str, data: bytes) -> bytes:
    """The good file with members of its signed part replaced as the data, a JSON object, says."""
    try:
        changes = json.loads(data)
        document = json.loads(getattr(GOOD, part))
        document["signed"].update(changes)
        signature = SIGNERS[part].sign(encode_canonical(document["signed"]).encode())
    except Exception:  # noqa: BLE001  # no object, or one that cannot be signed: as it is, then
        return data
    document["signatures"] = [signature.to_dict()]
    return json.dumps(document).encode()


def offers(data: bytes) -> None:
    """A manifest and bodies that were signed, for whatever reason: a configuration that the ceiling allows, or a
    refusal."""
    pieces = list(chunks(data))
    manifest, bodies = b"".join(pieces[:4]), {sha256(piece).digest(): piece for piece in pieces[4:]}
    with suppress(ConfigurationError):
        entries = selection.select(selection.parse_manifest(manifest or MANIFEST, tenant=TENANT), LABELS)
        for entry, body in zip(entries, bodies.values(), strict=False):
            entry.sha256 = sha256(body).digest()
        resources = selection.read_resources(entries, lambda digest: bodies.get(digest, b""))
        admit(resources, CEILING, Configuration())
        selection.assemble(1, b"m" * 32, resources)


def yaml(data: bytes) -> None:
    """Text of an author: resources that say the same when written again, or problems with their places."""
    try:
        located = resource_yaml.loads(data)
    except resource_yaml.ResourceFilesError:
        return
    resources = [item.resource for item in located]
    again = [item.resource for item in resource_yaml.loads(resource_yaml.dump(resources))]
    assert again == resources or "nan" in repr(resources), "writing and reading changed a resource"


def resource(data: bytes) -> None:
    """Bytes of a resource: validated, judged under a ceiling, and shown, or refused."""
    try:
        message = Resource.FromString(data)
    except DecodeError:
        return
    violations = list(resource_validation.validate([message]))
    with suppress(ConfigurationError):
        admit([message], NO_CEILING, Configuration())
        assert not violations, "what is invalid was admitted"
    if not violations:
        yaml(resource_yaml.dump([message]).encode())


def join_string(data: bytes) -> None:
    """What somebody pasted."""
    text = data.decode(errors="replace")
    for candidate in (text, PREFIX + text):
        with suppress(InvalidError):
            join = decode_join_string(candidate)
            assert decode_join_string(encode_join_string(join)) == join


def ledger(data: bytes) -> None:
    """A ledger that somebody wrote in: reader and verifier find it whole or damaged, and the verifier never says that
    it holds when the reader cannot read it."""
    with temporary_folder() as folder:
        for name, content in _tampered(data).items():
            (folder / name).write_bytes(content)
        report = ledger_verifier.verify(folder)
        assert report.ok or report.problem
        try:
            leaves = list(reader.read_leaves(folder))
        except IntegrityError:
            assert not report.ok, "it verifies, and cannot be read"
            return
        if report.ok:
            assert len(leaves) == report.size


def _tampered(data: bytes) -> Mapping[str, bytes]:
    """The first byte says how: a segment replaced, a tail added, or bytes changed in place."""
    files = dict(_LEDGER)
    names = list(files)
    for chunk in chunks(data):
        how, name, content = chunk[:1], names[sum(chunk[1:2]) % len(names)], chunk[3:]
        at = sum(chunk[2:3]) * len(files[name]) // 256
        match sum(how) % 4:
            case 0:
                files[name] = content
            case 1:
                files[name] += content
            case 2:
                files[name] = files[name][:at] + content + files[name][at + len(content) :]
            case 3:
                files[name] = files[name][:at]
    return files


def _ledger() -> dict[str, bytes]:
    tree, segments = (
        ledger_verifier.TreeHash(),
        {segment_name(0): segment_header(0), segment_name(3): segment_header(3)},
    )
    for index in range(5):
        body = f"body {index}".encode()
        leaf = Leaf(
            index=index,
            at=datetime(2026, 1, 1, tzinfo=UTC),
            door="tunnel",
            destination="cp:1",
            method="/m",
            message="faos.tunnel.v1.NodeFrame",
            size_bytes=len(body),
            fields_by_class={"OPERATIONAL": 1},
            body_sha256=sha256(body).digest(),
            body=body,
        )
        header = header_of(leaf)
        tree.add(header)
        segments[segment_name(0 if index < 3 else 3)] += frame(header, body)
    return {HEAD_NAME: pack_head(LedgerHead(5, tree.root())), **segments}


_LEDGER = _ledger()


@contextmanager
def temporary_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="faos-fuzz-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "node_frames": node_frames,
    "cloud_frames": cloud_frames,
    "trust": trust,
    "offers": offers,
    "yaml": yaml,
    "resource": resource,
    "join_string": join_string,
    "ledger": ledger,
}


def _chunked(*parts: bytes) -> bytes:
    return b"".join(bytes([len(part)]) + part for part in parts if len(part) < 256)


def seeds() -> Mapping[str, list[bytes]]:
    """Valid inputs to begin from, by target."""
    bodies = [each.SerializeToString() for each in site()]
    hello = tunnel.NodeFrame(hello=tunnel.Hello(kinds=[1, 2], config=tunnel.ConfigFacts(running_revision=1)))
    status = tunnel.NodeFrame(apply_status=tunnel.ApplyStatus(nonce=b"session1\0\0\0\1", revision=1, state=8))
    welcome = tunnel.CloudFrame(welcome=tunnel.Welcome(heartbeat_seconds=15))
    offer = tunnel.CloudFrame(config_offer=tunnel.ConfigOffer(nonce=b"n", revision=1))
    join = tunnel.JoinString(addresses=["cp:1"], secret=b"s" * 32, token_id="t", tenant=TENANT)
    return {
        "node_frames": [_chunked(hello.SerializeToString(), status.SerializeToString())],
        "cloud_frames": [_chunked(welcome.SerializeToString(), offer.SerializeToString())],
        "trust": [b'\0{"version": 2}', b'\1{"meta": {}}', b'\2{"targets": {}}', b"\xff" + GOOD.targets],
        "offers": [_chunked(*[MANIFEST[at : at + 255] for at in range(0, 1020, 255)], *bodies)],
        "yaml": [resource_yaml.dump(site()).encode()],
        "resource": bodies,
        "join_string": [encode_join_string(join).encode()],
        "ledger": [_chunked(b"\1\1\0tail", b"\2\1\x80xx", b"\3\2\x90")],
    }
