from hypothesis import given
from hypothesis import strategies as st

from data_plane.memory.chunking import chunks

PROSE = st.lists(st.sampled_from(["word", "Sentence. ", "\n\n", "\n", " ", "é", "12345", "! ", "\t"]), max_size=60)


@given(text=st.one_of(st.text(), PROSE.map("".join)), limit=st.integers(1, 40))
def test_no_text_is_lost_and_no_piece_is_too_long(text: str, limit: int) -> None:
    """A number that falls between two pieces can never be found again."""
    pieces = chunks(text, limit)

    assert "".join(pieces) == text
    assert all(0 < len(piece) <= limit for piece in pieces)


def test_cuts_fall_between_paragraphs_where_they_can() -> None:
    """A paragraph is what its author meant to be read together."""
    text = "# Oxygen\n\nThe line is 61234. Call it.\n\nNever close a valve."

    assert chunks(text, 30) == ["# Oxygen\n\n", "The line is 61234. Call it.\n\n", "Never close a valve."]


def test_a_long_paragraph_is_cut_between_sentences() -> None:
    """Half a sentence answers nothing."""
    assert chunks("One is here. Two is there. Three.", 15) == ["One is here. ", "Two is there. ", "Three."]
