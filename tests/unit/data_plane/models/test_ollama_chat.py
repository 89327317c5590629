"""How an Ollama server's stream is read: whatever it says, nothing but text, counts and a code comes out."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_plane.models import ollama_chat
from data_plane.models.ollama_chat import ChatPiece, Lines, RefusedError, piece_of, refusal


def lines(*pieces: bytes) -> list[bytes]:
    found = Lines()
    return [line for piece in pieces for line in found.added(piece)] + found.last()


@given(st.lists(st.binary(min_size=1).filter(lambda it: b"\n" not in it and it.strip()), max_size=5), st.data())
def test_lines_are_the_same_however_they_were_cut(wanted: list[bytes], data: st.DataObject) -> None:
    """The network cuts where it likes, in the middle of a letter too."""
    whole, pieces = b"\n".join(wanted), []
    while whole:
        cut = data.draw(st.integers(1, len(whole)))
        pieces.append(whole[:cut])
        whole = whole[cut:]

    assert lines(*pieces) == wanted


def test_line_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that never ends a line must not fill the node's memory."""
    monkeypatch.setattr(ollama_chat, "LINE_BYTES", 10)
    with pytest.raises(ValueError, match="without end"):
        lines(*[b"x" * 6] * 3)


def test_last_piece_says_why_and_how_much() -> None:
    """Limits on tokens are kept by these counts."""
    line = (
        b'{"message": {"content": "a"}, "done": true, "done_reason": "length", "prompt_eval_count": 3, "eval_count": 4}'
    )
    assert piece_of(line) == ChatPiece("a", True, "length", 3, 4)


@pytest.mark.parametrize("count", [-1, 10**30, 0.5, "7", None])
def test_a_count_that_cannot_be_is_none(count: object) -> None:
    """The counts of a run go into its end, which has to be written in any case."""
    line = {"message": {"content": "a"}, "done": True, "eval_count": count, "prompt_eval_count": 9}

    piece = piece_of(json.dumps(line).encode())

    assert (piece.output_tokens, piece.input_tokens) == (0, 9)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"{}",
        b'{"message": 1}',
        b'{"message": {"content": 7}}',
        b"\xff",
        b"[" * 100_000,
        b'"text"',
        b'{"message": null}',
        rb'{"message": {"content": "half \ud83d"}}',
    ],
)
def test_nonsense_is_a_value_error(line: bytes) -> None:
    """The runtime has a code for an endpoint that answers nonsense; a defect of ours would end the run otherwise."""
    with pytest.raises(ValueError):
        piece_of(line)


@given(st.binary() | st.text().map(str.encode))
def test_any_line_is_a_piece_or_an_error_of_these(line: bytes) -> None:
    """What a server says must never come out as an error that nobody expects."""
    with suppress(ValueError, RefusedError):
        piece = piece_of(line)
        assert piece.text.encode().decode() == piece.text


def test_error_in_the_stream_is_a_refusal() -> None:
    """The server reports what it could not do with status 200 once it began to answer."""
    with pytest.raises(RefusedError) as caught:
        piece_of(b'{"error": "out of memory"}')
    assert (caught.value.text, str(caught.value)) == ("out of memory", "HTTP 200")


@pytest.mark.parametrize(
    ("body", "text"), [(b'{"error": "no"}', "no"), (b"<html>", ""), (b"[]", ""), (b"{}", ""), (b"\xff", "")]
)
def test_refusal_has_the_servers_words_where_it_has_some(body: bytes, text: str) -> None:
    """A proxy answers with a page of its own; the status is what can be told in any case."""
    found = refusal(body, 502)
    assert (found.text, found.status) == (text, 502)
