"""JSON in as few bytes as it takes, for what is sealed or sent many times a second."""

import json
from typing import Any

ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))  # json.dumps makes one each time


def encoded(value: Any) -> bytes:
    """UTF-8. Raises TypeError or ValueError for what JSON cannot say, and for half a character."""
    return ENCODER.encode(value).encode()
