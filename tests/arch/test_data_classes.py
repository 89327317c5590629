"""Every field that can go up the tunnel says what kind of information it carries. DESIGN section 6.

Written against the schema alone, without the gate's own rules: two readings of one design, and the last test holds
them against each other.
"""

from collections.abc import Iterator

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from data_plane.egress.field_rules import rules_of
from faos.options.v1 import options_pb2 as options
from faos.tunnel.v1 import tunnel_pb2 as tunnel

FIELD = descriptor_pb2.FieldDescriptorProto
TEXT = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)
TIMES = ("google.protobuf.Timestamp", "google.protobuf.Duration")


def upstream_messages() -> list[Descriptor]:
    """What a node can send: the request types of every RPC of the tunnel's package."""
    services = tunnel.DESCRIPTOR.services_by_name.values()
    return [method.input_type for service in services for method in service.methods]


def reachable(roots: list[Descriptor]) -> dict[str, Descriptor]:
    """Every message that can be inside these, times left out; map entries are messages too."""
    found: dict[str, Descriptor] = {}
    waiting = list(roots)
    while waiting:
        message = waiting.pop()
        if message.full_name not in found:
            found[message.full_name] = message
            waiting += [field.message_type for field in message.fields if field.message_type and not is_time(field)]
    return found


def is_time(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.full_name in TIMES


def faults(roots: list[Descriptor]) -> list[str]:
    """Every field that may not be as it is, with what is wrong with it."""
    messages = reachable(roots).values()
    return sorted(
        f"{field.full_name}: {fault}" for message in messages for field in message.fields for fault in faults_of(field)
    )


def faults_of(field: FieldDescriptor) -> Iterator[str]:
    if field.message_type is not None and not is_time(field):
        if field.message_type.GetOptions().map_entry:
            yield "maps carry keys that cannot be annotated; use a repeated message"
        return
    data_class = field.GetOptions().Extensions[options.data_class]
    if data_class == options.DATA_CLASS_UNSPECIFIED:
        yield "no data_class"
    if data_class == options.DATA_CLASS_CUSTOMER:
        yield "CUSTOMER data never goes to the control plane"
    if data_class == options.DATA_CLASS_OPERATIONAL and field.type in TEXT:
        yield "OPERATIONAL is never text"
    if data_class == options.DATA_CLASS_IDENTIFIER and field.type not in TEXT:
        yield "IDENTIFIER is always text"


def test_every_upstream_field_has_a_fitting_class() -> None:
    """The build fails when one is missing: promise 1 begins in the schema."""
    assert faults(upstream_messages()) == []


def test_the_walk_reaches_what_a_node_sends() -> None:
    """A walk that stops early would find no faults."""
    names = reachable(upstream_messages()).keys()

    expected = ("NodeFrame", "Hello", "ConfigFacts", "LedgerHead", "ApplyStatus", "Nack", "EnrollRequest")
    assert {f"faos.tunnel.v1.{name}" for name in expected} <= names
    assert "faos.tunnel.v1.ConfigOffer" not in names


def planted(field_type: "FIELD.Type.ValueType", data_class: int, type_name: str, *, label: int) -> Descriptor:
    """A message with one field, two levels down, in a file of its own."""
    name = f"planted_{field_type}_{data_class}_{type_name.strip('.').replace('.', '_')}_{label}"
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package=name, syntax="proto3")
    file.dependency.extend(["faos/options/v1/options.proto", "google/protobuf/timestamp.proto"])
    outer, inner = file.message_type.add(name="Outer"), file.message_type.add(name="Inner")
    outer.field.add(
        name="inner", number=1, type=FIELD.TYPE_MESSAGE, type_name=f".{name}.Inner", label=FIELD.LABEL_OPTIONAL
    )
    added = inner.field.add(name="planted", number=1, type=field_type, label=FIELD.Label.ValueType(label))
    if type_name:
        added.type_name = type_name
    if data_class:
        added.options.Extensions[options.data_class] = options.DataClass.ValueType(data_class)
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return pool.FindFileByName(file.name).message_types_by_name["Outer"]


TIME, DATA_CLASS = ".google.protobuf.Timestamp", ".faos.options.v1.DataClass"
BAD = [
    (FIELD.TYPE_STRING, options.DATA_CLASS_UNSPECIFIED, "", "no data_class"),
    (FIELD.TYPE_UINT64, options.DATA_CLASS_UNSPECIFIED, "", "no data_class"),
    (FIELD.TYPE_ENUM, options.DATA_CLASS_UNSPECIFIED, DATA_CLASS, "no data_class"),
    (FIELD.TYPE_MESSAGE, options.DATA_CLASS_UNSPECIFIED, TIME, "no data_class"),
    (FIELD.TYPE_STRING, options.DATA_CLASS_OPERATIONAL, "", "OPERATIONAL is never text"),
    (FIELD.TYPE_BYTES, options.DATA_CLASS_OPERATIONAL, "", "OPERATIONAL is never text"),
    (FIELD.TYPE_UINT64, options.DATA_CLASS_IDENTIFIER, "", "IDENTIFIER is always text"),
    (FIELD.TYPE_STRING, options.DATA_CLASS_CUSTOMER, "", "CUSTOMER data never goes to the control plane"),
    (FIELD.TYPE_DOUBLE, options.DATA_CLASS_CUSTOMER, "", "CUSTOMER data never goes to the control plane"),
]


@pytest.mark.parametrize("label", [FIELD.LABEL_OPTIONAL, FIELD.LABEL_REPEATED])
@pytest.mark.parametrize(("field_type", "data_class", "type_name", "fault"), BAD)
def test_planted_fault_is_found(
    field_type: "FIELD.Type.ValueType", data_class: int, type_name: str, fault: str, label: int
) -> None:
    """A check that finds nothing proves nothing."""
    outer = planted(field_type, data_class, type_name, label=label)

    assert faults([outer]) == [f"{outer.file.package}.Inner.planted: {fault}"]


def test_planted_map_is_found() -> None:
    """Free keys are free text."""
    assert any("maps" in fault for fault in faults([tunnel.EnrollResponse.DESCRIPTOR]))


def test_gate_reads_the_schema_the_same_way() -> None:
    """What this test lets pass, the gate must be able to judge; else a node would fall silent in production."""
    rules = [rule for message in reachable(upstream_messages()).values() for rule in rules_of(message).values()]

    assert all(rule.data_class or not rule.has_values for rule in rules)
    assert sum(rule.has_values for rule in rules) > 20
