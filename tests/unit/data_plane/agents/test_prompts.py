import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_plane.agents.prompts import answer_messages, result_block, sentences_of


def test_answer_puts_context_before_question() -> None:
    """The one shape that the default model was measured with."""
    system, user = answer_messages("Be brief.", "How many?", ["A.", "B."])

    assert system == {"role": "system", "content": "Be brief."}
    assert user == {"role": "user", "content": "Context:\nA.\n\nB.\n\nQuestion: How many?"}


def test_answer_without_context_or_instructions_is_the_question_alone() -> None:
    """An empty frame around the question makes small models talk about the frame."""
    assert answer_messages("", "How many?", []) == [{"role": "user", "content": "How many?"}]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Two beds.", "Two beds."),
        ('{"free": true, "reservation_number": 7}', "The free is yes. The reservation number is 7."),
        ('{"ward": {"beds": [1, 2]}, "note": null}', "The ward beds is 1, 2. The note is not known."),
        ("[1, 2]", "[1, 2]"),
        ("7", "7"),
        ("{" * 3, "{" * 3),
        ('{"a":' * 50_000, '{"a":' * 50_000),
    ],
)
def test_json_of_a_tool_becomes_sentences(text: str, sentences: str) -> None:
    """Small models copy a number from a sentence, and hardly ever from JSON."""
    assert sentences_of(text) == sentences
    assert result_block("beds", text) == f"beds: {sentences}"


names = st.text("ab_ ", max_size=5)
nested = st.recursive(
    st.integers(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=8
)


@settings(deadline=None)
@given(st.dictionaries(names, nested, max_size=3))
def test_no_number_is_lost_on_the_way(value: dict[str, object]) -> None:
    """What the tool said must stand in the prompt, however it nested it."""
    numbers = [word for word in json.dumps(list(leaves(value)))[1:-1].split(", ") if word]

    said = sentences_of(json.dumps(value))

    assert all(number in said for number in numbers)


def leaves(value: object) -> list[object]:
    if isinstance(value, dict):
        value = list(value.values())
    return [leaf for item in value for leaf in leaves(item)] if isinstance(value, list) else [value]
