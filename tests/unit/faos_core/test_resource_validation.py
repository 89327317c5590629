"""Validation of resources: what the control plane refuses to sign, and a node to run."""

from pathlib import Path

import pytest
from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st

from faos.resource.v1 import resource_pb2 as pb
from faos_core import resource_yaml
from faos_core.errors import REGISTRY
from faos_core.kinds import field_path_numbers
from faos_core.resource_validation import MAX_RESOURCE_BYTES, validate

FIXTURES = Path(__file__).parents[2] / "fixtures" / "resources"


@pytest.fixture
def ward():
    """One sound resource of each kind, by name."""
    return {item.resource.metadata.name: item.resource for item in resource_yaml.load([FIXTURES / "ward.yaml"])}


def check(resources, **kwargs):
    found = validate(list(resources.values()) if isinstance(resources, dict) else resources, **kwargs)
    return [(violation.name, violation.field_path, violation.code.removeprefix("resource.")) for violation in found]


def struct(**fields):
    made = Struct()
    made.update(fields)
    return made


def test_sound_resources_have_no_violation(ward):
    """What the samples show must be accepted by both planes."""
    assert check(ward, complete=True) == []
    assert check(ward) == []


@pytest.mark.parametrize(
    ("kind", "fields", "path", "code"),
    [
        ("nurse", {"model": ""}, "spec.model", "required"),
        ("nurse", {"model": "big"}, "spec.model", "reference_missing"),
        ("nurse", {"knowledge": ["handbook", "gone"]}, "spec.knowledge[1]", "reference_missing"),
        ("nurse", {"tools": ["gone"]}, "spec.tools[0]", "reference_missing"),
        ("nurse", {"policies": ["gone"]}, "spec.policies[0]", "reference_missing"),
        ("nurse", {"tools": ["clock", "clock"]}, "spec.tools[1]", "repeated"),
        ("nurse", {"tools": [""]}, "spec.tools[0]", "required"),
        ("nurse", {"policies": []}, "spec.policies", "policies_missing"),
        ("nurse", {"tools": [], "tool_choice": pb.TOOL_CHOICE_REQUIRED}, "spec.tools", "tools_missing"),
        ("nurse", {"tool_choice": 99}, "spec.toolChoice", "value_unknown"),
        ("nurse", {"limits": pb.RunLimits(max_turns=1001)}, "spec.limits.maxTurns", "out_of_range"),
        ("nurse", {"limits": pb.RunLimits(max_seconds=2**31)}, "spec.limits.maxSeconds", "out_of_range"),
        ("small", {"source": ""}, "spec.source", "required"),
        ("small", {"runtime": 0}, "spec.runtime", "required"),
        ("small", {"runtime": 7}, "spec.runtime", "value_unknown"),
        ("small", {"context_tokens": 1}, "spec.contextTokens", "out_of_range"),
        ("small", {"sampling": pb.Sampling(temperature=-1)}, "spec.sampling.temperature", "out_of_range"),
        ("small", {"sampling": pb.Sampling(temperature=float("nan"))}, "spec.sampling.temperature", "out_of_range"),
        ("small", {"sampling": pb.Sampling(repeat_penalty=9)}, "spec.sampling.repeatPenalty", "out_of_range"),
        ("clock", {"allowed_tools": []}, "spec.allowedTools", "required"),
        ("clock", {"allowed_tools": ["a b"]}, "spec.allowedTools[0]", "tool_malformed"),
        ("clock", {"program": ""}, "spec.program", "required"),
        ("clock", {"endpoint": "ward-tools"}, "spec.endpoint", "one_of_two"),
        ("clock", {"call_timeout_seconds": 3601}, "spec.callTimeoutSeconds", "out_of_range"),
        ("handbook", {"folder": ""}, "spec.folder", "required"),
        ("handbook", {"top_k": 51}, "spec.topK", "out_of_range"),
        ("handbook", {"chunk_characters": 10}, "spec.chunkCharacters", "out_of_range"),
        ("read-only", {"rules": []}, "spec.rules", "required"),
    ],
)
def test_wrong_field_has_one_violation_with_path_and_code(ward, kind, fields, path, code):
    """Each mistake is told by the field that must change, once."""
    field = ward[kind].WhichOneof("spec")
    spec = getattr(ward[kind], field)
    for name, value in fields.items():
        spec.ClearField(name)
        spec.MergeFrom(type(spec)(**{name: value}))

    assert check(ward) == [(kind, path, code)]


@pytest.mark.parametrize(
    "value",
    [
        "/usr/bin/python",
        "../secrets",
        "C:\\tools",
        "bash -c id",
        "$(id)",
        "host.example.org",
        "10.0.0.1:443",
        "https://example.org",
        "~/models",
        "model.gguf",
        "a;b",
        "a&b",
        "user@host",
        "*",
        "localhost:80",
        "a\tb",
    ],
)
@pytest.mark.parametrize(
    ("kind", "field", "path"),
    [
        ("small", "source", "spec.source"),
        ("clock", "program", "spec.program"),
        ("handbook", "folder", "spec.folder"),
        ("nurse", "model", "spec.model"),
    ],
)
def test_command_path_or_host_in_place_of_a_name_is_refused(ward, kind, field, path, value):
    """Nothing that the cloud sends may name a command, a path or a host: promise 3."""
    setattr(getattr(ward[kind], ward[kind].WhichOneof("spec")), field, value)

    (violation,) = validate(list(ward.values()))

    assert (violation.name, violation.field_path, violation.code) == (kind, path, "resource.names_a_place")
    assert "Resources carry names that the site defined, not paths, hosts or commands." in violation.message


@pytest.mark.parametrize("value", ["https://example.org/mcp", "10.0.0.1:443", "ward.example.org"])
def test_tool_server_names_an_endpoint_and_no_url(ward, value):
    """Where a call goes is the site's to say; the name of an endpoint takes the place of a program."""
    ward["clock"].tool_server.MergeFrom(pb.ToolServer(endpoint="ward-tools"))
    ward["clock"].tool_server.ClearField("program")
    assert check(ward) == []

    ward["clock"].tool_server.endpoint = value

    assert check(ward) == [("clock", "spec.endpoint", "names_a_place")]


@pytest.mark.parametrize("field", ["knowledge", "tools", "policies"])
def test_command_path_or_host_in_a_list_is_refused(ward, field):
    """The same in lists of references."""
    getattr(ward["nurse"].agent, field).append("/bin/sh")

    assert check(ward) == [("nurse", f"spec.{field}[1]", "names_a_place")]


@pytest.mark.parametrize("value", ["Small", "small_model", "-small", "small-", "s" * 64, "größe"])
def test_what_is_neither_name_nor_place_is_malformed(ward, value):
    """A typing mistake must not be called an attack."""
    ward["nurse"].agent.model = value

    assert check(ward) == [("nurse", "spec.model", "name_malformed")]


@pytest.mark.parametrize(("name", "code"), [("", "required"), ("Nurse", "name_malformed"), ("a/b", "name_malformed")])
def test_resource_name_is_checked(ward, name, code):
    """Names become parts of identifiers that travel up: nothing else passes there."""
    ward["nurse"].metadata.name = name

    assert check(ward) == [(name, "metadata.name", code)]


def test_labels_are_checked(ward):
    """A selector that no label can ever match would silently select nothing."""
    ward["nurse"].metadata.labels["Team"] = "ward"
    ward["nurse"].metadata.sites.match_labels["region"] = "North West"

    assert check(ward) == [
        ("nurse", "metadata.labels[Team]", "label_malformed"),
        ("nurse", "metadata.sites.matchLabels[region]", "label_malformed"),
    ]


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (struct(type="objekt"), "wrong at type"),
        (struct(properties={"a": {"minimum": "x"}}), "wrong at properties/a/minimum"),
        (struct(**{"$ref": "https://example.org/schema"}), "leaves the document"),
        (struct(properties={"a": {"$ref": "file:///etc/passwd"}}), "leaves the document"),
        (struct(properties={"a": {"$ref": "#/$defs/gone"}}), "to nothing"),
        (struct(**{"$schema": "http://json-schema.org/draft-04/schema#"}), "another dialect"),
        (struct(properties={"a": {"$id": "https://example.org/"}}), "$id"),
        (struct(const=float("nan")), "JSON cannot"),
    ],
)
def test_policy_arguments_must_be_a_schema_that_stays_inside(ward, schema, reason):
    """A rule that cannot be judged would deny, or fetch something: both are found before anything is signed."""
    ward["read-only"].policy.rules[0].arguments.CopyFrom(schema)

    (violation,) = validate(list(ward.values()))

    assert (violation.field_path, violation.code) == ("spec.rules[0].arguments", "resource.schema_invalid")
    assert reason in violation.message


def test_policy_arguments_may_refer_within_the_document(ward):
    """Definitions are ordinary JSON Schema."""
    schema = struct(**{"$defs": {"zone": {"enum": ["UTC"]}}, "properties": {"zone": {"$ref": "#/$defs/zone"}}})
    ward["read-only"].policy.rules[0].arguments.CopyFrom(schema)

    assert check(ward) == []


def test_rule_is_checked(ward):
    """A rule without a name or effect cannot be shown or judged."""
    ward["read-only"].policy.rules.add(tool_servers=["/bin/sh"], tools=["x y"], labels=["A"], effect=9)

    assert check(ward) == [
        ("read-only", "spec.rules[1].name", "required"),
        ("read-only", "spec.rules[1].toolServers[0]", "names_a_place"),
        ("read-only", "spec.rules[1].tools[0]", "tool_malformed"),
        ("read-only", "spec.rules[1].labels[0]", "name_malformed"),
        ("read-only", "spec.rules[1].effect", "value_unknown"),
    ]


def test_policy_may_name_a_tool_server_of_another_site_on_a_node_only(ward):
    """A node has only what its labels select; a misspelt deny rule must still be found where all is known."""
    ward["read-only"].policy.rules[0].tool_servers.append("elsewhere")

    assert check(ward) == []
    assert check(ward, complete=True) == [("read-only", "spec.rules[0].toolServers[1]", "reference_missing")]


def test_reference_to_what_stands_already_is_fine(ward):
    """Applying one agent must not need everything that it refers to."""
    agent = ward.pop("nurse")

    assert check([agent], existing=list(ward.values())) == []


def test_change_that_breaks_what_stands_is_found(ward):
    """Moving a model to other sites must not take it away from the agents that use it."""
    model = pb.Resource()
    model.CopyFrom(ward["small"])
    model.metadata.sites.match_labels["region"] = "south"

    assert check([model], existing=list(ward.values())) == [("nurse", "spec.model", "reference_elsewhere")]


def test_same_kind_and_name_twice_is_refused(ward):
    """Which of the two counts must not depend on order."""
    twin = pb.Resource()
    twin.CopyFrom(ward["small"])

    assert check([*ward.values(), twin]) == [("small", "metadata.name", "duplicate")]


def test_resource_of_no_known_kind_is_refused():
    """A newer client's kind must not be stored as something empty."""
    assert check([pb.Resource(metadata=pb.Metadata(name="x"))]) == [("x", "spec", "kind_missing")]


@pytest.mark.parametrize("where", ["resource", "metadata", "spec", "rule"])
def test_unknown_fields_are_refused(ward, where):
    """Ignoring a field could drop a restriction that a newer version knows."""
    policy = ward["read-only"]
    part = {"resource": policy, "metadata": policy.metadata, "spec": policy.policy, "rule": policy.policy.rules[0]}
    part[where].MergeFromString(b"\xf8\x7f\x01")  # field 2047, varint 1

    assert check(ward) == [("read-only", "", "fields_unknown")]


def test_resource_over_the_limit_is_refused(ward):
    """Bodies travel in offers: one must not crowd out the rest."""
    ward["nurse"].agent.instructions = "x" * MAX_RESOURCE_BYTES

    assert check(ward) == [("nurse", "", "too_large")]


def test_every_code_is_in_the_registry_and_every_path_in_the_schema(ward):
    """What is reported must be explainable, and must travel as numbers."""
    agent = ward["nurse"]
    agent.agent.model = "/x"
    agent.agent.policies[:] = []
    agent.agent.limits.max_turns = 2**31

    found = validate([agent])

    assert len(found) == 5
    for violation in found:
        assert violation.code in REGISTRY
        assert field_path_numbers(violation.field_path, agent)


@given(st.binary(max_size=200))
def test_validation_never_fails_on_what_parses(data):
    """The bytes come from clients and, on a node, from a cloud that may be compromised."""
    resource = pb.Resource()
    try:
        resource.ParseFromString(data)
    except DecodeError:
        return

    for violation in validate([resource], complete=True):
        assert violation.code in REGISTRY


def test_quickstart_is_valid():
    """The first resources that anybody applies must be accepted."""
    quickstart = Path(__file__).parents[3] / "examples" / "quickstart" / "resources"

    assert check([item.resource for item in resource_yaml.load([quickstart])], complete=True) == []
