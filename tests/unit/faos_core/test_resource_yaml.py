"""Resources as YAML, there and back."""

import contextlib
import io
import os
import struct
from pathlib import Path

import pytest
from google.protobuf import struct_pb2
from hypothesis import example, given, settings
from hypothesis import strategies as st

from faos.resource.v1 import resource_pb2 as pb
from faos_core import resource_yaml
from faos_core.kinds import BY_KIND, kind_of
from faos_core.resource_yaml import ResourceFilesError, dump, load, loads

FIXTURES = Path(__file__).parents[2] / "fixtures" / "resources"

AGENT = """\
apiVersion: faos/v1
kind: Agent
metadata: {name: nurse}
spec: {model: small}
"""


def problems(text):
    with pytest.raises(ResourceFilesError) as caught:
        loads(text)
    return caught.value.problems


def spec_problem(spec, kind="Agent"):
    """The only problem of a document with this spec, which stands on its fourth line."""
    (problem,) = problems(f"apiVersion: faos/v1\nkind: {kind}\nmetadata: {{name: x}}\nspec: {spec}\n")
    return problem


def test_every_kind_is_read():
    """The sample that people copy must be read as it is meant."""
    located = load([FIXTURES / "ward.yaml"])
    agent = located[4].resource

    assert [kind_of(item.resource) for item in located] == [2, 4, 3, 5, 1]
    assert agent.metadata == pb.Metadata(
        name="nurse", labels={"team": "ward"}, sites=pb.Selector(match_labels={"region": "north"})
    )
    assert agent.agent == pb.Agent(
        model="small",
        instructions="You help the nurses of a ward.\nAnswer in one sentence.\n",
        knowledge=["handbook"],
        tools=["clock"],
        policies=["read-only"],
        tool_choice=pb.TOOL_CHOICE_ROUTED,
        limits=pb.RunLimits(max_turns=4),
    )
    schema = located[3].resource.policy.rules[0].arguments
    assert schema["properties"]["zone"]["enum"] == ["UTC", "local"]
    assert schema["additionalProperties"] is False


def test_several_documents_keep_their_places():
    """An operator must find the resource that the control plane complains about."""
    agent = load([FIXTURES / "ward.yaml"])[4]

    assert (agent.line, agent.position("spec.tools[0]")) == (44, (56, 11))
    assert agent.position("metadata.labels[team]") == (48, 12)


def test_position_of_what_was_not_written_is_the_nearest_around():
    """A missing field has no place of its own; its parent's is the best there is."""
    agent = load([FIXTURES / "ward.yaml"])[4]

    assert agent.position("spec.limits.maxSeconds") == agent.position("spec.limits")
    assert agent.position("") == (44, 1)


@pytest.mark.parametrize("value", ["ROUTED", "TOOL_CHOICE_ROUTED"])
def test_enum_goes_with_and_without_prefix(value):
    """People write the short name; proto JSON prints the long one. Both mean the same."""
    located = loads(AGENT.replace("small}", f"small, toolChoice: {value}}}"))

    assert located[0].resource.agent.tool_choice == pb.TOOL_CHOICE_ROUTED


@pytest.mark.parametrize(
    ("spec", "path", "what"),
    [
        ("{modle: small}", "spec.modle", "did you mean 'model'?"),
        ("{tools: clock}", "spec.tools", "must be a list"),
        ("{tools: [1]}", "spec.tools[0]", 'write it in quotes: "1"'),
        ("{tools: [~]}", "spec.tools[0]", "must be text, not nothing"),
        ("{model: [a]}", "spec.model", "must be text, not a list"),
        ("{model: !!python/object:os.system x}", "spec.model", "must be text"),
        ("{model: a, model: b}", "spec.model", "written twice"),
        ("{toolChoice: ROUTD}", "spec.toolChoice", "did you mean 'ROUTED'?"),
        ("{toolChoice: routed}", "spec.toolChoice", "did you mean 'ROUTED'?"),
        ("{toolChoice: 3}", "spec.toolChoice", "not one of its values"),
        ("{limits: 4}", "spec.limits", "must be a mapping"),
        ("{limits: {maxTurns: four}}", "spec.limits.maxTurns", "whole decimal number"),
        ("{limits: {maxTurns: 1.5}}", "spec.limits.maxTurns", "whole decimal number"),
        ("{limits: {maxTurns: 0x10}}", "spec.limits.maxTurns", "whole decimal number"),
        ("{limits: {maxTurns: -1}}", "spec.limits.maxTurns", "must be from 0 to 4294967295"),
        ("{limits: {maxSeconds: 4294967296}}", "spec.limits.maxSeconds", "must be from 0 to 4294967295"),
        ("[a]", "spec", "must be a mapping, not a list"),
        ("{<<: {model: a}}", "spec", "merge keys are not taken"),
        ("{1: a}", "spec", "must be text"),
    ],
)
def test_wrong_field_of_an_agent_is_reported_with_its_path(spec, path, what):
    """Whatever is wrong, its author reads where and what, never a traceback."""
    problem = spec_problem(spec)

    assert problem.field_path == path
    assert what in problem.what
    assert (problem.file, problem.line) == ("<text>", 4)
    assert problem.column > 1


@pytest.mark.parametrize(
    ("kind", "spec", "path", "what"),
    [
        ("Model", "{sampling: {temperature: .nan}}", "spec.sampling.temperature", "finite"),
        ("Model", "{sampling: {temperature: .inf}}", "spec.sampling.temperature", "finite"),
        ("Model", "{sampling: {temperature: 1e39}}", "spec.sampling.temperature", "too large"),
        ("Model", "{sampling: {temperature: 1e999}}", "spec.sampling.temperature", "too large"),
        ("Model", "{sampling: {temperature: hot}}", "spec.sampling.temperature", "number"),
        ("Policy", "{rules: [{arguments: [1]}]}", "spec.rules[0].arguments", "mapping"),
        ("Policy", "{rules: [{arguments: {const: .nan}}]}", "spec.rules[0].arguments[const]", "finite"),
        ("Policy", "{rules: [{arguments: {const: 9007199254740993}}]}", "spec.rules[0].arguments[const]", "as text"),
        ("Policy", "{rules: [{arguments: {a: 1, a: 2}}]}", "spec.rules[0].arguments[a]", "written twice"),
        ("Policy", "{rules: {name: a}}", "spec.rules", "must be a list"),
        ("Policy", "{rules: [{nam: a}]}", "spec.rules[0].nam", "did you mean 'name'?"),
    ],
)
def test_wrong_field_of_other_kinds_is_reported_with_its_path(kind, spec, path, what):
    """Numbers that no machine could use, and mistakes deep inside, have paths too."""
    problem = spec_problem(spec, kind)

    assert problem.field_path == path
    assert what in problem.what


@pytest.mark.parametrize(
    ("change", "path", "what"),
    [
        (("kind: Agent\n", "kind: Agnet\n"), "kind", "did you mean 'Agent'?"),
        (("kind: Agent\n", "kind: [Agent]\n"), "kind", "is no kind"),
        (("kind: Agent\n", ""), "kind", "missing; one of Agent"),
        (("faos/v1", "faos/v2"), "apiVersion", "must be 'faos/v1'"),
        (("apiVersion: faos/v1\n", ""), "apiVersion", "missing"),
        (("{name: nurse}", "{}"), "metadata.name", "missing"),
        (("{name: nurse}", "{name: ''}"), "metadata.name", "missing"),
        (("{name: nurse}", "{name: 7}"), "metadata.name", "must be text"),
        (("metadata: {name: nurse}\n", ""), "metadata.name", "missing"),
        (("spec: {model: small}\n", ""), "spec", "missing"),
        (("spec:", "status: {}\nspec:"), "status", "no such field"),
        (("name: nurse", "name: nurse, labels: {a: 1}"), "metadata.labels[a]", "must be text"),
        (("name: nurse", "name: nurse, sites: {region: north}"), "metadata.sites.region", "known: matchLabels"),
        (("nurse", "nurse, namespace: x"), "metadata.namespace", "no such field"),
    ],
)
def test_wrong_document_is_reported_with_its_path(change, path, what):
    """The frame around a spec is where newcomers stumble first."""
    (problem,) = problems(AGENT.replace(*change))

    assert problem.field_path == path
    assert what in problem.what


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (b"", "no resource"),
        (b"# only a comment\n", "no resource"),
        (b"---\n---\n", "no resource"),
        (b"a: \xff", "not UTF-8"),
        (b"a: \x00", "character that YAML does not allow"),
        (b"a: [", "expected"),
        (b"a: b: c", "mapping values are not allowed"),
        (b"\ta: b", "found character"),
        (b'"\\U99999999"', "not YAML"),
        (b"[" * 40, "maximum depth"),
        (b"a: &a b", "anchors and aliases are not taken"),
        (b"a: *a", "anchors and aliases are not taken"),
        (b"&a [*a]", "anchors and aliases are not taken"),
        (b"#" * (resource_yaml.MAX_FILE_BYTES + 1), "larger than"),
    ],
)
def test_text_that_is_no_resource_file_says_so(text, what):
    """Empty, binary, broken and hostile files each get one clear line."""
    (problem,) = problems(text)

    assert what in problem.what


def test_alias_bomb_is_refused_at_once():
    """Nine lines of YAML must not take the memory of the machine that reads them."""
    lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]

    assert "anchors" in problems("\n".join(lines))[0].what


def test_everything_wrong_is_reported_at_once_in_order():
    """Correcting one mistake per run is not what five minutes are for."""
    text = AGENT.replace("model", "modle") + "---\n" + AGENT.replace("faos/v1", "v1").replace("nurse", "other")

    assert [(p.line, p.field_path) for p in problems(text)] == [(4, "spec.modle"), (6, "apiVersion")]


def test_file_after_a_broken_document_still_reports_the_one_before():
    """A syntax error further down must not hide a mistake further up."""
    found = problems(AGENT.replace("model", "modle") + "---\na: [\n")

    assert [p.field_path for p in found] == ["spec.modle", ""]


def test_missing_name_is_reported_in_each_document():
    """The second mistake of a kind counts as much as the first."""
    nameless = AGENT.replace("{name: nurse}", "{}")

    assert [p.line for p in problems(f"{nameless}---\n{nameless}")] == [3, 8]


def test_same_resource_in_two_files_names_both_places(tmp_path):
    """Which of two declarations counts must never depend on the order of files."""
    (tmp_path / "a.yaml").write_text(AGENT)
    (tmp_path / "b.yml").write_text("\n" + AGENT)

    with pytest.raises(ResourceFilesError) as caught:
        load([tmp_path])

    (problem,) = caught.value.problems
    assert (problem.file, problem.line, problem.field_path) == (str(tmp_path / "b.yml"), 4, "metadata.name")
    assert f"{tmp_path / 'a.yaml'}:1" in problem.what


def test_same_name_of_two_kinds_is_no_duplicate():
    """A name is unique within its kind."""
    model = AGENT.replace("Agent", "Model").replace("{model: small}", "{source: small}")

    assert len(loads(f"{AGENT}---\n{model}")) == 2


def test_folder_is_read_in_order_without_hidden_files(tmp_path):
    """What a folder means must not depend on the file system or on an editor's backups."""
    for name in ("b.yaml", "sub/a.yml", ".hidden.yaml", ".git/c.yaml", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(AGENT.replace("nurse", name.replace("/", "-").strip(".").partition(".")[0]))

    assert [item.resource.metadata.name for item in load([tmp_path])] == ["b", "sub-a"]


def test_standard_input_is_read():
    """`faos apply -f -` is how other tools hand resources over."""
    (item,) = load(["-"], stdin=io.BytesIO(AGENT.encode()))

    assert (item.file, item.resource.metadata.name) == ("<stdin>", "nurse")


def test_missing_file_and_empty_folder_are_problems(tmp_path):
    """A misspelt path must not apply nothing in silence."""
    with pytest.raises(ResourceFilesError) as caught:
        load([tmp_path / "gone.yaml", tmp_path])

    assert [p.what for p in caught.value.problems] == [
        "the file cannot be read: no such file or directory",
        "the folder has no .yaml or .yml file",
    ]


def test_a_folder_that_cannot_be_read_is_a_problem(tmp_path, monkeypatch):
    """Else what is in it would count as gone, and `apply --prune` would delete it."""
    (tmp_path / "nurse.yaml").write_text(AGENT)
    monkeypatch.chdir(tmp_path)
    for _ in range(20):  # deeper than a path may be long, which no user can read: root reads what is only forbidden
        os.mkdir("d" * 250)  # noqa: PTH102 — relative, because the whole path is too long
        os.chdir("d" * 250)

    with pytest.raises(ResourceFilesError) as caught:
        load([tmp_path])

    assert [p.what for p in caught.value.problems] == ["the folder cannot be read: file name too long"]


def test_byte_order_mark_is_no_mistake():
    """Editors of some systems put one in."""
    assert loads(b"\xef\xbb\xbf" + AGENT.encode())


def test_dump_reads_like_what_people_write():
    """`faos get -o yaml` is what people edit and apply again."""
    (agent,) = (item.resource for item in load([FIXTURES / "ward.yaml"]) if item.resource.HasField("agent"))

    assert "toolChoice: ROUTED\n" in dump([agent])
    assert "instructions: |\n    You help the nurses of a ward.\n    Answer in one sentence.\n" in dump([agent])


def test_dumped_float_is_short():
    """A temperature of 0.7 must not come back as 0.699999988079071."""
    model = pb.Resource(metadata=pb.Metadata(name="m"), model=pb.Model(sampling=pb.Sampling(temperature=0.7)))

    assert "temperature: 0.7\n" in dump([model])


ODD = ["", "1", "true", "null", "~", "2024-01-01", "a\nb\n", " a\n", "a: b", "- a", "#", "=", "<<", "a \n b"]
ODDER = ["\u2028", "\x85", "...", "---\n", "%a\n", "a\n\nb", "a\n\n", "\n", "\ta", "\U0001f600", "x" * 2000]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.sampled_from(ODD + ODDER)
NUMBER = st.integers(0, 2**32 - 1)
FLOAT = st.floats(width=32, allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | TEXT
    | st.integers(1 - 2**53, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def as_struct(value):
    made = struct_pb2.Struct()
    made.update(value)
    return made


def messages(message):
    """Any instance of a message type of the schema, fields set or not."""
    fields = {field.name: values(field) for field in message.DESCRIPTOR.fields}
    return st.fixed_dictionaries({}, optional=fields).map(lambda given: message(**given))


def values(field):
    if field.message_type and field.message_type.GetOptions().map_entry:
        return st.dictionaries(TEXT, TEXT, max_size=3)
    one = single(field)
    return st.lists(one, max_size=3) if field.is_repeated else one


def single(field):
    if field.message_type and field.message_type.name == "Struct":
        return st.dictionaries(TEXT, JSON, max_size=3).map(as_struct)
    if field.message_type:
        return messages(field.message_type._concrete_class)
    if field.enum_type:
        return st.sampled_from([value.number for value in field.enum_type.values])
    return {field.CPPTYPE_STRING: TEXT, field.CPPTYPE_FLOAT: FLOAT, field.CPPTYPE_UINT32: NUMBER}[field.cpp_type]


@st.composite
def resources(draw):
    row = draw(st.sampled_from(list(BY_KIND.values())))
    made = pb.Resource(metadata=draw(messages(pb.Metadata)), **{row.field: draw(messages(row.spec))})
    made.metadata.name = draw(st.from_regex(r"[a-z0-9]{1,20}", fullmatch=True))
    return made


MINUS_ZERO = pb.Resource(
    metadata=pb.Metadata(name="p"), policy=pb.Policy(rules=[pb.PolicyRule(arguments=as_struct({"": -0.0}))])
)


@settings(max_examples=300, deadline=None)
@given(resources())
@example(MINUS_ZERO)
def test_loading_what_was_dumped_gives_the_same(resource):
    """What is shown and applied again must be what was stored, whatever it contains."""
    assert [item.resource for item in loads(dump([resource]))] == [resource]


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab:-[]{}&*!|>'\"%@`#,? \n\t\\x0\u2028\ufeff", max_size=60) | st.binary(max_size=40))
def test_any_text_is_read_or_refused(text):
    """The reader takes what anybody sends: it must never fail in another way."""
    with pytest.raises(ResourceFilesError):
        loads(text)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_resource_is_read_or_refused(data):
    """Nearly right is where parsers break."""
    text = (FIXTURES / "ward.yaml").read_text()
    at = data.draw(st.integers(0, len(text)))
    cut = data.draw(st.integers(0, 5))
    damaged = text[:at] + data.draw(st.text(max_size=5)) + text[at + cut :]

    with contextlib.suppress(ResourceFilesError):
        assert loads(damaged.encode("utf-8", "surrogatepass"))


@given(FLOAT)
def test_shortest_decimal_is_the_same_float(number):
    """Shown short must not mean changed."""
    assert struct.pack("<f", resource_yaml._shortest(number)) == struct.pack("<f", number)
