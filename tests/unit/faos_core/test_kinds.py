"""The registry of kinds."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faos.resource.v1 import resource_pb2
from faos.resource.v1.resource_pb2 import Agent, Kind, Policy, Resource, ToolServer
from faos_core import kinds
from faos_core.errors import InvalidError

AGENT = Resource(agent=Agent(model="small"))
POLICY = Resource(policy=Policy())


def test_every_kind_but_unspecified_has_a_row():
    """A kind that is in the enum but in no row could be declared and would never be applied."""
    assert set(kinds.BY_KIND) == set(Kind.values()) - {resource_pb2.KIND_UNSPECIFIED}


def test_names_of_a_kind_belong_together():
    """The YAML name, the oneof member and the message of a kind are one thing; a mix-up would apply the wrong one."""
    row = kinds.BY_NAME["ToolServer"]

    assert (row.kind, row.field, row.spec) == (resource_pb2.KIND_TOOL_SERVER, "tool_server", ToolServer)


def test_kind_and_spec_of_a_resource():
    """Everything dispatches on these two."""
    assert kinds.kind_of(AGENT) == resource_pb2.KIND_AGENT
    assert kinds.spec_of(AGENT) == Agent(model="small")


def test_resource_without_spec_has_no_kind():
    """A newer kind arrives as a resource without spec: it must be told apart, not crash."""
    assert kinds.kind_of(Resource()) == resource_pb2.KIND_UNSPECIFIED
    with pytest.raises(InvalidError):
        kinds.spec_of(Resource())


@pytest.mark.parametrize(
    ("path", "resource", "numbers"),
    [
        ("", AGENT, []),
        ("spec", AGENT, [10]),
        ("metadata.name", AGENT, [1, 1]),
        ("spec.tools[0]", AGENT, [10, 4, 0]),
        ("spec.limits.maxTurns", AGENT, [10, 7, 1]),
        ("spec.limits.max_turns", AGENT, [10, 7, 1]),
        ("spec.rules[2].toolServers[1]", POLICY, [14, 1, 2, 2, 1]),
    ],
)
def test_field_path_becomes_numbers(path, resource, numbers):
    """Paths go up the tunnel as numbers, because text does not."""
    assert kinds.field_path_numbers(path, resource) == numbers


@pytest.mark.parametrize(
    ("path", "resource", "ends_at"),
    [
        ("metadata.labels[team]", AGENT, "metadata.labels"),
        ("metadata.labels[example.org/team]", AGENT, "metadata.labels"),
        ("metadata.sites.matchLabels[ward]", AGENT, "metadata.sites.matchLabels"),
        ("spec.rules[0].arguments[properties][secret]", POLICY, "spec.rules[0].arguments"),
        ("spec.rules[0].arguments.properties.secret[3]", POLICY, "spec.rules[0].arguments"),
    ],
)
def test_field_path_ends_at_a_map_or_struct(path, resource, ends_at):
    """Keys are text of somebody's: they must not be in what goes up."""
    numbers = kinds.field_path_numbers(path, resource)

    assert kinds.field_path_names(numbers, kinds.kind_of(resource)) == ends_at


@pytest.mark.parametrize(
    "path",
    [
        "spec.tolls",
        "spec.model.name",
        "spec[0].tools",
        "status",
        "spec..tools",
        "agent ",
        "spec.tools[x]",
        "spec.tools[0][1]",
    ],
)
def test_field_path_that_is_no_field_is_refused(path):
    """A path that points nowhere would show an operator the wrong place."""
    with pytest.raises(InvalidError):
        kinds.field_path_numbers(path, AGENT)


@given(st.lists(st.integers(min_value=0, max_value=2**32 - 1), max_size=8), st.sampled_from(Kind.values()))
def test_field_path_names_never_raise(numbers, kind):
    """The numbers come from a node that may be newer, broken or hostile; showing its NACK must not fail."""
    assert isinstance(kinds.field_path_names(numbers, kind), str)


def test_field_path_names_show_numbers_that_the_schema_lacks():
    """A newer node's NACK is shown as far as it is understood."""
    assert kinds.field_path_names([10, 99, 3], resource_pb2.KIND_AGENT) == "spec.#99.#3"
    assert kinds.field_path_names([11, 2], resource_pb2.KIND_AGENT) == "#11.#2"


def all_paths(descriptor, prefix):
    for field in descriptor.fields:
        path = f"{prefix}.{field.camelcase_name}"
        repeated = field.is_repeated and not (field.message_type and field.message_type.GetOptions().map_entry)
        yield f"{path}[1]" if repeated else path
        if not kinds.ends_path(field):
            yield from all_paths(field.message_type, f"{path}[1]" if repeated else path)


@pytest.mark.parametrize("row", list(kinds.BY_KIND.values()), ids=lambda row: row.name)
def test_every_field_path_round_trips(row):
    """Whatever field a node complains about, the operator reads that very field."""
    resource = Resource(**{row.field: row.spec()})
    paths = list(all_paths(row.spec.DESCRIPTOR, "spec"))

    assert paths
    for path in paths:
        assert kinds.field_path_names(kinds.field_path_numbers(path, resource), row.kind) == path


def test_import_is_light():
    """The command line imports it for 'faos --help'."""
    heavy = "{'sqlalchemy', 'tuf', 'ruamel', 'jsonschema', 'chromadb'}"
    code = f"import sys, faos_core.kinds; assert not {heavy} & {{name.split('.')[0] for name in sys.modules}}"

    subprocess.run([sys.executable, "-c", code], check=True)
