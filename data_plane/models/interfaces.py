"""What agents and knowledge bases need from models, whatever runs them."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Role(StrEnum):
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation as a model reads it."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a turn is sampled. temperature 0 is greedy; repeat_penalty 1.0 is none."""

    temperature: float = 0.0
    repeat_penalty: float = 1.0
    max_tokens: int = 256
    seed: int = 0


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of text as it is generated."""

    text: str


class FinishReason(StrEnum):
    STOP = "stop"
    LENGTH = "length"  # max_tokens or the context was reached


@dataclass(frozen=True, slots=True)
class TurnEnd:
    """Last item of every turn that did not raise."""

    text: str  # the whole text
    input_tokens: int
    output_tokens: int
    finish_reason: FinishReason


class ModelRuntime(Protocol):
    """A loaded language model. Concurrent turns are allowed; the runtime queues what it cannot run at once."""

    def chat(
        self,
        messages: Sequence[Message],
        *,
        sampling: Sampling,
        json_schema: Mapping[str, Any] | None = None,
    ) -> AsyncGenerator[TextDelta | TurnEnd, None]:
        """One turn: deltas, then exactly one TurnEnd.

        json_schema: constrain the text to JSON that this schema accepts; what cannot be compiled to a grammar
            raises InvalidError before anything is generated.
        Closing the iterator stops generation within one token.
        Raises: LimitError (messages exceed the context), UnavailableError (the runtime failed).
        """

    async def aclose(self) -> None:
        """Free the model. Turns in progress end with UnavailableError. Idempotent."""


class Embedder(Protocol):
    """Sentence embeddings."""

    dimensions: int
    digest: str  # of the model file, so that stored vectors of another model are not mixed in

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Shape (len(texts), dimensions), rows of unit length. Longer texts than the model reads are cut."""
