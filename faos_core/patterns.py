"""Regular expressions of untrusted origin, in linear time (RE2): none can burn a core, whatever it is held against.

What only backtracking could do (look-around, references back) is refused, and so are repetitions of more than 1000.
Source: https://github.com/google/re2/wiki/Syntax
"""

from functools import lru_cache

import re2


class BadPatternError(ValueError):
    """The pattern, or the text that it is held against, cannot be used."""


@lru_cache(maxsize=512)
def compiled(pattern: str) -> "re2._Regexp[str]":
    """Raises BadPatternError."""
    options = re2.Options()
    options.log_errors = False  # it would print the pattern
    try:
        return re2.compile(pattern, options=options)
    except (re2.error, UnicodeEncodeError) as error:
        raise BadPatternError from error


def found_in(pattern: str, text: str) -> bool:
    """Whether the pattern matches somewhere in the text. Raises BadPatternError, also for a text that is no Unicode."""
    try:
        return compiled(pattern).search(text) is not None
    except UnicodeEncodeError as error:
        raise BadPatternError from error
