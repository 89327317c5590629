"""The gate: what may leave, and that it is exactly what is recorded."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from data_plane.ceiling.models import Ceiling, DoorCeiling
from data_plane.egress import ledger_verifier
from data_plane.egress.doors import DOORS, ORDER, ceiling_of
from data_plane.egress.identifiers import KnownIdentifiers
from data_plane.egress.interfaces import Leaf
from data_plane.egress.reader import read_leaves
from data_plane.egress.service import Egress, ledger_folder, open_egress
from faos.options.v1 import options_pb2 as options
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core.errors import DeniedError, StopError

WAY = {"door": "tunnel", "destination": "cp.example:443", "method": "/faos.tunnel.v1.Tunnel/Session"}
NOW = datetime(2026, 1, 2, tzinfo=UTC)
FIELD = descriptor_pb2.FieldDescriptorProto


class StoppedClock:
    def now(self) -> datetime:
        return NOW

    def monotonic_s(self) -> float:
        return 0.0

    async def sleep(self, duration_s: float) -> None:
        raise NotImplementedError


def planted_classes() -> dict[str, type[Message]]:
    """Messages that no schema of ours may have, to show that the gate does not rely on the build's check."""
    file = descriptor_pb2.FileDescriptorProto(
        name="planted_for_test_gate.proto",
        package="planted_for_test_gate",
        syntax="proto3",
        dependency=["faos/options/v1/options.proto", "google/protobuf/any.proto"],
    )
    outer = file.message_type.add(name="Outer")
    inner = file.message_type.add(name="Inner")
    entry = outer.nested_type.add(name="NamesEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=FIELD.TYPE_STRING, label=FIELD.LABEL_OPTIONAL)
    entry.field.add(name="value", number=2, type=FIELD.TYPE_STRING, label=FIELD.LABEL_OPTIONAL)
    field(outer, "bare", 1, FIELD.TYPE_UINT32, options.DATA_CLASS_UNSPECIFIED)
    field(outer, "customer", 2, FIELD.TYPE_STRING, options.DATA_CLASS_CUSTOMER)
    field(outer, "operational_text", 3, FIELD.TYPE_STRING, options.DATA_CLASS_OPERATIONAL)
    field(outer, "names", 4, FIELD.TYPE_MESSAGE, options.DATA_CLASS_IDENTIFIER, f".{file.package}.Outer.NamesEntry")
    field(outer, "anything", 5, FIELD.TYPE_MESSAGE, options.DATA_CLASS_OPERATIONAL, ".google.protobuf.Any")
    field(outer, "inners", 6, FIELD.TYPE_MESSAGE, options.DATA_CLASS_UNSPECIFIED, f".{file.package}.Inner")
    field(outer, "number", 7, FIELD.TYPE_UINT32, options.DATA_CLASS_IDENTIFIER)
    field(inner, "customer", 1, FIELD.TYPE_BYTES, options.DATA_CLASS_CUSTOMER)
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    found = pool.FindFileByName(file.name).message_types_by_name
    return {name: message_factory.GetMessageClass(descriptor) for name, descriptor in found.items()}


def field(
    message: descriptor_pb2.DescriptorProto,
    name: str,
    number: int,
    kind: "descriptor_pb2.FieldDescriptorProto.Type.ValueType",
    data_class: "options.DataClass.ValueType",
    type_name: str = "",
) -> None:
    label = FIELD.LABEL_REPEATED if name in ("names", "inners") else FIELD.LABEL_OPTIONAL
    added = message.field.add(name=name, number=number, type=kind, label=label)
    if type_name:
        added.type_name = type_name
    if data_class:
        added.options.Extensions[options.data_class] = data_class


PLANTED = planted_classes()


@pytest.fixture
async def egress(tmp_path: Path) -> AsyncIterator[Egress]:
    async with open_egress(tmp_path, Ceiling(), clock=StoppedClock()) as opened:
        yield opened


@pytest.fixture
def leaves(tmp_path: Path) -> "Leaves":
    return Leaves(tmp_path)


class Leaves:
    def __init__(self, data_dir: Path) -> None:
        self._folder = ledger_folder(data_dir)

    def __call__(self) -> list[Leaf]:
        return list(read_leaves(self._folder))


async def test_sealed_bytes_are_the_recorded_bytes(egress: Egress, leaves: Leaves) -> None:
    """Promise 2: the ledger holds what was sent, byte for byte, with where it went."""
    egress.identifiers.allow(b"nonce")
    status = tunnel.ApplyStatus(nonce=b"nonce", revision=7, state=tunnel.APPLY_STATE_HEALTHY)

    body = await egress.gate.seal(tunnel.NodeFrame(apply_status=status), **WAY)

    (leaf,) = leaves()
    assert leaf.body == body
    assert tunnel.NodeFrame.FromString(body).apply_status == status
    assert (leaf.at, leaf.door, leaf.destination, leaf.method) == (NOW, *WAY.values())
    assert leaf.message == "faos.tunnel.v1.NodeFrame"
    assert leaf.fields_by_class == {"OPERATIONAL": 2, "IDENTIFIER": 1}


async def test_unknown_fields_are_dropped_at_every_level(egress: Egress, leaves: Leaves) -> None:
    """Bytes that no schema names have no class; a newer or hostile part could hide anything in them."""
    hidden = b"\xfa\x06\x06secret"  # field 111, a string
    heartbeat = tunnel.NodeHeartbeat.FromString(tunnel.NodeHeartbeat(sequence=1).SerializeToString() + hidden)
    frame = tunnel.NodeFrame.FromString(tunnel.NodeFrame(heartbeat=heartbeat).SerializeToString() + hidden)
    frame.heartbeat.ledger_head.MergeFromString(hidden)
    before = frame.SerializeToString()
    assert before.count(b"secret") == 3

    body = await egress.gate.seal(frame, **WAY)

    assert b"secret" not in body
    assert leaves()[0].body == body
    assert frame.SerializeToString() == before


async def test_change_while_the_ledger_writes_has_no_effect(egress: Egress) -> None:
    """The checked copy leaves, not the caller's object."""
    frame = tunnel.NodeFrame(heartbeat=tunnel.NodeHeartbeat(sequence=1))
    sealing = asyncio.ensure_future(egress.gate.seal(frame, **WAY))
    await asyncio.sleep(0)

    frame.heartbeat.sequence = 2

    assert tunnel.NodeFrame.FromString(await sealing).heartbeat.sequence == 1


@pytest.mark.parametrize(
    ("message", "code", "path"),
    [
        (PLANTED["Outer"](bare=1), "egress.field_unclassified", "bare"),
        (PLANTED["Outer"](operational_text="x"), "egress.field_unclassified", "operational_text"),
        (PLANTED["Outer"](number=1), "egress.field_unclassified", "number"),
        (PLANTED["Outer"](anything=any_pb2.Any(type_url="x")), "egress.field_unclassified", "anything.type_url"),
        (PLANTED["Outer"](customer="x"), "egress.above_ceiling", "customer"),
        (PLANTED["Outer"](inners=[{}, {"customer": b"x"}]), "egress.above_ceiling", "inners.customer"),
        (PLANTED["Outer"](names={"unknown": "known"}), "egress.identifier_unknown", "names"),
        (PLANTED["Outer"](names={"known": "unknown"}), "egress.identifier_unknown", "names"),
        (tunnel.Hello(known_sha256=[b"known", b"other"]), "egress.identifier_unknown", "known_sha256"),
        (tunnel.Hello(node_version="Mrs Smith, room 3"), "egress.identifier_unknown", "node_version"),
        (tunnel.EnrollResponse(node="known"), "egress.field_unclassified", "node"),
        (tunnel.JoinString(tenant="known"), "egress.field_unclassified", "tenant"),
    ],
)
async def test_what_may_not_leave_is_refused_and_not_recorded(
    egress: Egress, leaves: Leaves, message: Message, code: str, path: str
) -> None:
    """Promise 1, at the last place where it can be kept; the error names the field and never its value."""
    egress.identifiers.allow("known")

    with pytest.raises(DeniedError) as caught:
        await egress.gate.seal(message, **WAY)

    assert caught.value.code.code == code
    assert caught.value.fields["field"] == path
    assert "Smith" not in caught.value.what + caught.value.why + caught.value.next_step
    assert leaves() == []


async def test_known_map_passes(egress: Egress) -> None:
    """The refusals above must not come from refusing every map."""
    egress.identifiers.allow("known")

    assert await egress.gate.seal(PLANTED["Outer"](names={"known": "known"}), **WAY)


async def test_unknown_door_is_refused(egress: Egress, leaves: Leaves) -> None:
    """A way out that nobody registered must not work because its name is new."""
    with pytest.raises(DeniedError) as caught:
        await egress.gate.seal(tunnel.NodeFrame(), door="side", destination="x:1", method="/x")

    assert caught.value.code.code == "egress.door_unknown"
    assert leaves() == []


async def test_lower_ceiling_of_the_site_is_obeyed(tmp_path: Path) -> None:
    """A site may let only meters out."""
    ceiling = Ceiling(doors={"tunnel": DoorCeiling.OPERATIONAL})
    async with open_egress(tmp_path, ceiling) as egress:
        egress.identifiers.allow(b"boot")
        assert await egress.gate.seal(tunnel.Hello(epoch=1), **WAY)
        with pytest.raises(DeniedError) as caught:
            await egress.gate.seal(tunnel.Hello(boot_id=b"boot"), **WAY)

    assert caught.value.fields["ceiling"] == "operational"


async def test_customer_data_never_passes_the_tunnel_whatever_the_site_says(tmp_path: Path) -> None:
    """Promise 1 has no setting."""
    async with open_egress(tmp_path, Ceiling(doors={"tunnel": DoorCeiling.CUSTOMER})) as egress:
        with pytest.raises(DeniedError):
            await egress.gate.seal(PLANTED["Outer"](customer="x"), **WAY)


def test_every_door_has_a_ceiling_it_can_have() -> None:
    """The default of a door must not be above what the door can have at all."""
    for door in DOORS.values():
        assert ORDER.index(door.default_ceiling) <= ORDER.index(door.highest_ceiling)
        assert ceiling_of(door.name, {}) == door.default_ceiling
    assert [ORDER.index(DoorCeiling[name]) + 1 for name in ("OPERATIONAL", "IDENTIFIER", "CUSTOMER")] == [
        options.DATA_CLASS_OPERATIONAL,
        options.DATA_CLASS_IDENTIFIER,
        options.DATA_CLASS_CUSTOMER,
    ]


async def test_own_head_may_be_sent(egress: Egress, tmp_path: Path) -> None:
    """Heads are exchanged with each heartbeat; the gate knows its own, and no other."""
    await egress.gate.seal(tunnel.NodeFrame(), **WAY)
    head = egress.gate.head()

    own = tunnel.NodeHeartbeat(ledger_head=tunnel.LedgerHead(size=head.size, root_sha256=head.root_sha256))
    await egress.gate.seal(tunnel.NodeFrame(heartbeat=own), **WAY)
    own.ledger_head.root_sha256 = bytes(32)
    with pytest.raises(DeniedError):
        await egress.gate.seal(tunnel.NodeFrame(heartbeat=own), **WAY)

    assert ledger_verifier.verify(ledger_folder(tmp_path), witness=(1, head.root_sha256.hex())).ok


async def test_nothing_is_sealed_once_the_ledger_is_closed(tmp_path: Path) -> None:
    """Bytes that nobody records must not exist."""
    async with open_egress(tmp_path, Ceiling()) as egress:
        pass

    with pytest.raises(StopError):
        await egress.gate.seal(tunnel.NodeFrame(), **WAY)


@given(st.lists(st.tuples(st.booleans(), st.text(max_size=4)), max_size=12))
def test_only_allowed_values_pass(values: list[tuple[bool, str]]) -> None:
    """An identifier is one because it is known, never because of what it looks like."""
    known = KnownIdentifiers()
    allowed = {value for allow, value in values if allow}

    known.allow(*allowed)

    assert {value for _, value in values if value in known} == allowed


def test_names_of_the_revision_before_are_forgotten() -> None:
    """A name that was taken out of the configuration is no identifier any more."""
    known = KnownIdentifiers()
    known.allow("boot")
    known.replace_names(frozenset({"old", "kept"}))

    known.replace_names(frozenset({"kept"}))

    assert [name in known for name in ("old", "kept", "boot")] == [False, True, True]


def test_long_unused_values_make_room() -> None:
    """The control plane sends a nonce with each offer: memory must not grow for ever, nor what is in use be lost."""
    known = KnownIdentifiers(capacity=3)
    known.replace_names(frozenset({"name"}))
    known.allow(b"boot", b"a", b"b")
    assert b"boot" in known

    known.allow(b"c")

    assert [value in known for value in (b"boot", b"a", b"b", b"c", b"name")] == [True, False, True, True, True]
