"""Join strings, derived keys and fingerprint words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core.errors import InvalidError
from tunnel.identity import (
    certificate_request,
    decode_join_string,
    encode_join_string,
    enrolment_key,
    fingerprint_words,
    key_pem,
    load_key,
    new_key,
)

JOIN = tunnel.JoinString(
    addresses=["cp.example:7443"],
    ca_certificate_der=b"c" * 400,
    token_id="jt-1",
    secret=b"s" * 32,
    tenant="t",
    site="s",
)


@given(st.binary(max_size=600), st.text(max_size=20), st.lists(st.text(max_size=30), max_size=4))
def test_join_string_comes_back_whole(ca: bytes, token_id: str, addresses: list[str]) -> None:
    """What is pasted must be what was copied."""
    join = tunnel.JoinString(addresses=addresses, ca_certificate_der=ca, token_id=token_id, secret=b"x" * 32)

    assert decode_join_string(encode_join_string(join)) == join


def test_join_string_survives_line_breaks() -> None:
    """Mail programs and terminals wrap long lines."""
    text = encode_join_string(JOIN)

    assert decode_join_string("\n ".join(text[at : at + 60] for at in range(0, len(text), 60))) == JOIN


@given(st.data())
def test_join_string_with_one_character_changed_or_lost_is_refused(data: st.DataObject) -> None:
    """A string cut in copying must not turn into a puzzling failure later."""
    text = encode_join_string(JOIN)
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from([c for c in "Ax9-_" if c != text[at]] + [""]))
    damaged = text[:at] + other + text[at + 1 :]

    with pytest.raises(InvalidError, match="whole join string"):
        decode_join_string(damaged)


@given(st.text(max_size=200))
def test_arbitrary_text_is_refused(text: str) -> None:
    """People paste the wrong thing."""
    with pytest.raises(InvalidError):
        decode_join_string(text)


def test_enrolment_key_is_the_same_on_both_ends_and_differs_by_secret() -> None:
    """Only whoever holds the secret can use the enrolment certificate."""
    here, there, other = enrolment_key(b"s" * 32), enrolment_key(b"s" * 32), enrolment_key(b"t" * 32)

    assert here.private_numbers() == there.private_numbers()
    assert here.private_numbers() != other.private_numbers()


def test_a_key_survives_its_file() -> None:
    """The key born on the node is read back at every start."""
    key = new_key()

    assert load_key(key_pem(key)).private_numbers() == key.private_numbers()
    assert certificate_request(key)


def test_fingerprint_words_depend_on_the_ca_and_on_the_key() -> None:
    """Two people who compare them notice a machine in between."""
    words = fingerprint_words(b"ca", b"k" * 32)

    assert len(words) == 3
    assert all(len(word) == 5 for word in words)
    assert words == fingerprint_words(b"ca", b"k" * 32)
    assert words != fingerprint_words(b"other ca", b"k" * 32)
    assert words != fingerprint_words(b"ca", b"l" * 32)
