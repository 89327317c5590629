"""What an Ollama server streams in answer to /api/chat: one JSON object a line. Pure.

The library's own reading of it goes through httpx and pydantic, which cost several times what all else of a turn does.
"""

import json
from dataclasses import dataclass
from typing import Any

LINE_BYTES = 4 << 20  # of the longest line that is taken
MOST_TOKENS = 10_000_000  # of one turn


class RefusedError(Exception):
    """The server says that it cannot. text: its own words, which may quote the prompt. status: 200 in a stream."""

    def __init__(self, text: str, status: int = 200) -> None:
        self.text = text
        self.status = status
        super().__init__(f"HTTP {status}")


@dataclass(frozen=True, slots=True)
class ChatPiece:
    """One line. The counts, and why it ended, stand in the last one alone."""

    text: str
    done: bool = False
    done_reason: str = ""
    input_tokens: int = 0
    output_tokens: int = 0


class Lines:
    """Lines that are not empty, out of pieces that were cut anywhere."""

    def __init__(self) -> None:
        self._rest = b""

    def added(self, piece: bytes) -> list[bytes]:
        """Those that the piece ends. Raises ValueError for a line that is too long."""
        *whole, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > LINE_BYTES:
            raise ValueError("a line without end")
        return [line for line in whole if line.strip()]

    def last(self) -> list[bytes]:
        """What no line end came after."""
        return [self._rest] if self._rest.strip() else []


def piece_of(line: bytes) -> ChatPiece:
    """Raises RefusedError for an error that the server reports, ValueError for anything but a piece of a chat."""
    try:
        fields = json.loads(line.decode())
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(fields, dict):
        raise ValueError("not an object")
    if said := fields.get("error"):
        raise RefusedError(str(said))
    message = fields.get("message")
    text = message.get("content", "") if isinstance(message, dict) else None
    if not isinstance(text, str) or not is_text(text):
        raise ValueError("no message")
    if fields.get("done") is not True:
        return ChatPiece(text)
    reason = fields.get("done_reason")
    return ChatPiece(
        text,
        done=True,
        done_reason=reason if isinstance(reason, str) else "",
        input_tokens=count_of(fields, "prompt_eval_count"),
        output_tokens=count_of(fields, "eval_count"),
    )


def is_text(text: str) -> bool:
    """Not with half a character in it, which JSON can say and nothing that keeps or shows an answer can take."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def count_of(fields: dict[str, Any], name: str) -> int:
    """0 where the server does not say, or says what cannot be: a run that counted it could not be recorded."""
    value = fields.get(name)
    return value if isinstance(value, int) and 0 <= value <= MOST_TOKENS else 0


def refusal(body: bytes, status: int) -> RefusedError:
    """The error of an answer that is none."""
    try:
        fields = json.loads(body)
        return RefusedError(str(fields["error"]), status)
    except (ValueError, KeyError, TypeError, RecursionError):
        return RefusedError("", status)
