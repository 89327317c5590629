"""Cutting text into the pieces that are embedded and retrieved whole. Pure."""

import re
from collections.abc import Iterator, Sequence

# Where text may be cut, best first. Each pattern matches a whole piece up to and including the break behind it.
PARAGRAPH = re.compile(r".+?(?:\n[ \t]*\n\s*|\Z)", re.DOTALL)
SENTENCE = re.compile(r".+?(?:(?<=[.!?…:;])\s+|\n|\Z)", re.DOTALL)
WORD = re.compile(r"\s*\S+\s*|\s+")
CUTS: tuple[re.Pattern[str], ...] = (PARAGRAPH, SENTENCE, WORD)


def chunks(text: str, limit: int) -> list[str]:
    """Pieces of at most `limit` characters (1 or more); joined they are `text` again, none is empty.

    A piece ends at the end of a paragraph where it can, else of a sentence, else of a word, else anywhere.
    """
    return pack(pieces(text, limit, CUTS), limit)


def pieces(text: str, limit: int, cuts: Sequence[re.Pattern[str]]) -> Iterator[str]:
    """The text in its smallest natural parts that each fit."""
    if len(text) <= limit:
        yield from [text] if text else []
    elif cuts:
        for part in cuts[0].findall(text):
            yield from pieces(part, limit, cuts[1:])
    else:
        yield from (text[start : start + limit] for start in range(0, len(text), limit))


def pack(parts: Iterator[str], limit: int) -> list[str]:
    """Neighbours put together as long as they fit."""
    packed: list[str] = []
    for part in parts:
        if packed and len(packed[-1]) + len(part) <= limit:
            packed[-1] += part
        else:
            packed.append(part)
    return packed
