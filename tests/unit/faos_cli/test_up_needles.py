"""The search that stands behind "found 0 times" must be able to find."""

import base64
import gzip
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faos_cli.up.needles import encodings, finds_what_is_planted, search

NUMBERS = st.integers(10_000, 99_999).map(str)


def found(data: bytes, number: str) -> set[str]:
    return {finding.encoding for finding in search([("data", data)], [number]).found}


@given(NUMBERS, st.binary(max_size=200), st.binary(max_size=200))
def test_every_encoding_is_found_between_any_bytes(number: str, before: bytes, after: bytes) -> None:
    """A search that misses what it looks for proves nothing."""
    for name, raw in encodings(number).items():
        assert name in found(before + b"|" + raw + b"|" + after, number)


@given(NUMBERS, st.text(max_size=20), st.text(max_size=20))
def test_base64_of_a_sentence_with_the_number_in_it_is_found(number: str, before: str, after: str) -> None:
    """Base64 of a text shifts with what stands before: all three shifts must be looked for."""
    text = base64.b64encode(f"{before} {number} {after}".encode())

    assert any(name.startswith("base64") for name in found(text, number))


@pytest.mark.parametrize(
    "write",
    [
        lambda text: text.encode(),
        lambda text: quote(text).encode(),
        lambda text: text.encode().hex().upper().encode(),
        lambda text: gzip.compress(text.encode()),
        lambda text: text.encode("utf-16"),
        lambda text: json.dumps({"answer": text}).encode(),
    ],
)
def test_the_usual_ways_in_which_software_writes_a_text(write: object) -> None:
    """Real encoders, not our own: what a leak would look like."""
    assert callable(write)
    assert found(b"some bytes \x1f\x8b\x08 before " + write("call 48213 now"), "48213")


@pytest.mark.parametrize("longer", [b"2026-11-22 22:13:01.148213", b"9a482134f0c14ba2ff", b"4821399"])
def test_a_part_of_a_longer_number_is_a_coincidence_and_is_said(longer: bytes) -> None:
    """Timestamps and digests hold any five digits sooner or later; one run in a hundred must not fail for that."""
    result = search([("data", longer)], ["48213"])

    assert result.is_clean
    assert result.coincidences == 1


@pytest.mark.parametrize("shift", range(3))
@pytest.mark.parametrize("number", ["12007", "61120", "74801"])
def test_a_part_of_a_certificates_date_is_a_coincidence(shift: int, number: str) -> None:
    """Ten digits of seconds stand in each; one first start in two thousand failed for that, and named a leak."""
    der = b"\x30\x1e" + b"\x17" * shift + b"\x17\x0d261123074801Z\x17\x0d361120074801Z" + bytes(60)
    pem = base64.encodebytes(bytes(30) + der)
    escaped = json.dumps({"pem": pem.decode()}).encode()

    for written in (pem, pem.replace(b"\n", b""), base64.urlsafe_b64encode(der), escaped):
        result = search([("ca.pem", written)], [number])
        assert result.is_clean, result


@given(st.binary(max_size=90), NUMBERS)
def test_a_number_that_base64_nearly_stands_for_is_none(before: bytes, number: str) -> None:
    """The letters at its ends stand for bits of its neighbours as well."""
    other = number[:4] + str((int(number[4]) + 1) % 10)

    assert found(base64.b64encode(before + b" " + other.encode() + b" more"), number) == set()


@given(st.binary(max_size=90))
def test_a_number_in_base64_over_lines_is_found(before: bytes) -> None:
    """Whoever wraps a leak in lines does not hide it, unless a line ends within the number."""
    text = base64.encodebytes(before + b"\xff call 48213 now, and then whoever else there is in the house")

    assert found(text, "48213") or b"48213" not in base64.b64decode(text) or is_torn(text)


def is_torn(text: bytes) -> bool:
    """Whether the number lies on two lines."""
    return all(b"48213" not in base64.b64decode(line) for line in text.splitlines())


@pytest.mark.parametrize("near", [b"%3A48213%20", b"a48213b", b"x48213", b"=48213,", b"\\u004148213"])
def test_what_stands_beside_a_number_does_not_hide_it(near: bytes) -> None:
    """A letter or an escape before the number is how it would look in a URL, a log or a form."""
    assert not search([("data", near)], ["48213"]).is_clean


def test_the_self_check_fails_when_the_search_cannot_find(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check of the check: it must be able to say no."""
    assert finds_what_is_planted(b"bytes", ["48213"])

    monkeypatch.setattr("faos_cli.up.needles.places", lambda where, text, numbers: [])

    assert not finds_what_is_planted(b"bytes", ["48213"])
