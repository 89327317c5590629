"""A language model that says what a test tells it to: one of the three things that tests may fake."""

import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any

import jsonschema

from data_plane.models.interfaces import FinishReason, Message, Sampling, TextDelta, TurnEnd
from faos_core.errors import InvalidError, LimitError, UnavailableError, define

Answer = Callable[[Sequence[Message], Mapping[str, Any] | None], str]
Turn = str | Answer

SCRIPT_ENDED = define(
    "test.script_ended",
    what="The scripted model has no turn left.",
    why="The code under test asked for more turns than the test scripted.",
    next_step="Script another turn.",
)


class ScriptedModel:
    """Answers turn by turn from a script; a callable turn sees (messages, json_schema) and says the text.

    One token is one word with the blanks before it. `seen` holds the messages of every turn that was begun.
    Raises UnavailableError when the script has ended: a fake that repeats itself would hide endless loops.
    """

    def __init__(self, turns: Sequence[Turn], *, context_tokens: int = 4096) -> None:
        self._turns = list(turns)
        self._context_tokens = context_tokens
        self._closed = False
        self.seen: list[Sequence[Message]] = []

    async def chat(
        self, messages: Sequence[Message], *, sampling: Sampling, json_schema: Mapping[str, Any] | None = None
    ) -> AsyncGenerator[TextDelta | TurnEnd, None]:
        """As ModelRuntime.chat. A scripted text that does not fit the schema is an error of the test."""
        input_tokens = sum(len(tokens_of(message.content)) for message in messages)
        self._check(input_tokens, json_schema)
        self.seen.append(tuple(messages))
        tokens = tokens_of(self._next_text(messages, json_schema))
        said = tokens[: sampling.max_tokens]
        for token in said:
            if self._closed:
                raise UnavailableError(SCRIPT_ENDED)
            yield TextDelta(token)
        reason = FinishReason.STOP if len(said) == len(tokens) else FinishReason.LENGTH
        yield TurnEnd("".join(said), input_tokens, len(said), reason)

    async def aclose(self) -> None:
        self._closed = True

    def _check(self, input_tokens: int, json_schema: Mapping[str, Any] | None) -> None:
        if self._closed or not self._turns:
            raise UnavailableError(SCRIPT_ENDED)
        if input_tokens > self._context_tokens:
            raise LimitError(SCRIPT_ENDED)
        if json_schema is not None:
            try:
                jsonschema.Draft202012Validator.check_schema(json_schema)
            except jsonschema.SchemaError as error:
                raise InvalidError(SCRIPT_ENDED) from error

    def _next_text(self, messages: Sequence[Message], json_schema: Mapping[str, Any] | None) -> str:
        turn = self._turns.pop(0)
        text = turn if isinstance(turn, str) else turn(messages, json_schema)
        if json_schema is not None:
            jsonschema.validate(json.loads(text), json_schema)
        return text


def tokens_of(text: str) -> list[str]:
    """Words, each with the blanks before it; joined they are the text."""
    words = text.split(" ")
    return [word if index == 0 else f" {word}" for index, word in enumerate(words)] if text else []
