"""What a span may say: numbers, words of our own, names that somebody vouches for. Nothing else, whoever sets it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faos_core.errors import REGISTRY
from faos_core.ids import new_id
from faos_core.names import Attribute, Span
from faos_core.tracing import KINDS, MOST_CHARACTERS, OFF, OWN_ID, Kind, Word, admitted

CANARY = "Jane Roe has diabetes"
BY_KIND = {kind: [key for key, its in KINDS.items() if its is kind] for kind in Kind}


def nobody(text: str) -> bool:
    return False


@given(key=st.sampled_from(Attribute), text=st.text(max_size=200))
def test_no_text_gets_into_any_attribute_unless_somebody_answers_for_it(key: Attribute, text: str) -> None:
    """Promise 1: a span is made beside prompts and answers, and must not be able to hold one."""
    is_ours = text in REGISTRY or OWN_ID.fullmatch(text) is not None

    assert is_ours or not admitted(key, text, nobody)


@pytest.mark.parametrize("key", list(Attribute))
def test_a_sentence_passes_nowhere(key: Attribute) -> None:
    """The canary, by hand, into each attribute that there is."""
    assert not admitted(key, CANARY, nobody)


@pytest.mark.parametrize("key", BY_KIND[Kind.NAME])
def test_name_passes_where_the_plane_vouches_for_it(key: Attribute) -> None:
    """Names of the running configuration are what a trace is read by."""
    assert admitted(key, "assistant", {"assistant"}.__contains__)
    assert not admitted(key, "assistant2", {"assistant"}.__contains__)
    assert not admitted(key, Word("assistant2"), {"assistant"}.__contains__), "a word of ours is no name"


@pytest.mark.parametrize("key", BY_KIND[Kind.WORD])
def test_word_passes_as_one_of_ours_alone(key: Attribute) -> None:
    """The same letters, from somewhere else, are not ours."""
    assert admitted(key, Word("HEALTHY"), nobody)
    assert not admitted(key, "HEALTHY", lambda text: True)


@pytest.mark.parametrize("key", BY_KIND[Kind.NUMBER])
def test_number_passes_and_its_text_does_not(key: Attribute) -> None:
    """A number of a customer's could stand in a text of digits."""
    assert admitted(key, 7, nobody)
    assert not admitted(key, "7", lambda text: True)


def test_error_passes_as_a_code_of_the_registry() -> None:
    """Codes are ours; what an error says may quote a customer."""
    code = next(iter(REGISTRY))

    assert admitted(Attribute.ERROR_TYPE, code, nobody)
    assert not admitted(Attribute.ERROR_TYPE, f"{code}x", lambda text: True)


def test_id_passes_in_the_form_that_we_give_ids() -> None:
    """A run's id is made here, so nothing of a customer's is in it."""
    assert admitted(Attribute.RUN_NUMBER, new_id("run"), nobody)
    assert not admitted(Attribute.RUN_NUMBER, "run-4711", lambda text: True)


def test_what_is_too_long_passes_nowhere() -> None:
    """Whoever vouches too easily still cannot be made to carry a document."""
    long = "a" * (MOST_CHARACTERS + 1)

    assert not any(admitted(key, Word(long), lambda text: True) for key in Attribute)


def test_where_nobody_traces_it_costs_no_object() -> None:
    """Each step of each run passes here, also where telemetry is off."""
    with OFF.span(Span.RUN, {Attribute.AGENT_NAME: "a"}) as one, OFF.span(Span.MODEL_TURN) as two:
        one.set(Attribute.STATE_NAME, "x")
        one.fail("x")

    assert one is two
