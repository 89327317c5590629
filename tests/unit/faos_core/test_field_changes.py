"""What differs between two versions of a resource, field by field."""

from hypothesis import given
from hypothesis import strategies as st

from faos.resource.v1 import resource_pb2 as pb
from faos_core.field_changes import MAX_FIELDS, MAX_VALUE_CHARACTERS, field_changes


def shown(before, after):
    return [(it.field_path, it.before, it.after) for it in field_changes(before, after).fields]


def test_fields_are_named_as_in_yaml():
    """Whoever reads a path finds the line."""
    before = pb.Resource(
        metadata=pb.Metadata(name="x", labels={"team": "a"}),
        agent=pb.Agent(model="m", tools=["t", "u"], tool_choice=pb.TOOL_CHOICE_ROUTED),
    )
    after = pb.Resource(
        metadata=pb.Metadata(name="x", labels={"team": "b"}, sites=pb.Selector(match_labels={"site": "n"})),
        agent=pb.Agent(model="m", tools=["t"], limits=pb.RunLimits(max_turns=3)),
    )

    assert shown(before, after) == [
        ("metadata.labels[team]", "a", "b"),
        ("spec.tools[u]", "u", None),
        ("spec.toolChoice", "ROUTED", None),
        ("metadata.sites.matchLabels[site]", None, "n"),
        ("spec.limits.maxTurns", None, "3"),
    ]


def test_numbers_and_schemas_read_as_people_write_them():
    """0.2 is not 0.20000000298."""
    model = pb.Resource(model=pb.Model(sampling=pb.Sampling(temperature=0.2)))
    policy = pb.Resource(policy=pb.Policy(rules=[pb.PolicyRule(name="r")]))
    policy.policy.rules[0].arguments.update({"type": "object"})

    assert shown(None, model)[-1] == ("spec.sampling.temperature", None, "0.2")
    assert shown(None, policy)[-1] == ("spec.rules[r].arguments", None, '{\n  "type": "object"\n}')


def test_differences_are_bounded():
    """An answer about ten thousand resources must fit."""
    many = pb.Resource(tool_server=pb.ToolServer(allowed_tools=[f"t{number}" for number in range(MAX_FIELDS + 1)]))
    long = pb.Resource(agent=pb.Agent(instructions="x" * (MAX_VALUE_CHARACTERS + 1)))

    assert (len(field_changes(None, many).fields), field_changes(None, many).is_truncated) == (MAX_FIELDS, True)
    assert field_changes(None, long).is_truncated
    assert len(field_changes(None, long).fields[-1].after) == MAX_VALUE_CHARACTERS + 1
    assert field_changes(None, many, limit=20).is_truncated
    assert field_changes(None, many, limit=20).size_characters <= 20
    assert not field_changes(many, many).is_truncated


def policy(*names, effect=pb.POLICY_EFFECT_ALLOW):
    rules = [pb.PolicyRule(name=name, effect=effect) for name in names]
    return pb.Resource(metadata=pb.Metadata(name="p"), policy=pb.Policy(rules=rules))


def test_element_put_in_at_the_front_is_one_difference():
    """By place, every rule behind it would read as changed, and the reviewer would miss the one that is new."""
    assert shown(policy("b", "c"), policy("a", "b", "c")) == [
        ("spec.rules[a].name", None, "a"),
        ("spec.rules[a].effect", None, "ALLOW"),
    ]


def test_change_within_a_named_element_says_which():
    """A rule is looked for by its name."""
    changed = policy("a", "b")
    changed.policy.rules[1].effect = pb.POLICY_EFFECT_DENY

    assert shown(policy("a", "b"), changed) == [("spec.rules[b].effect", "ALLOW", "DENY")]


def test_order_is_shown_where_only_it_differs():
    """A resource that changed must never read as one that did not."""
    assert shown(policy("a", "b"), policy("b", "a")) == [("spec.rules[*]", "a\nb", "b\na")]


def test_elements_without_names_of_their_own_are_told_by_place():
    """Two rules of one name, or none, cannot be told apart by it."""
    assert shown(policy("a", "a"), policy("a", "b")) != []
    assert ("spec.rules[1].name", "a", None) in shown(policy("a", "a"), policy("a", "b"))
    assert ("spec.rules[0].effect", "ALLOW", "DENY") in shown(policy("", ""), policy("", "", effect=3))


LISTS = st.lists(st.sampled_from("abcd"), max_size=4)


@given(LISTS, LISTS)
def test_lists_that_differ_are_shown_to_differ(before, after):
    """Whatever way elements are matched, a difference is never hidden, and equal lists show none."""
    sides = [pb.Resource(agent=pb.Agent(model="m", tools=tools)) for tools in (before, after)]

    assert bool(shown(*sides)) == (before != after)
    assert bool(shown(policy(*before), policy(*after))) == (before != after)
