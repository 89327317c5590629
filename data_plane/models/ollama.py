"""Models on an Ollama server. The only importer of `ollama`; what is sent, by it and beside it, goes through a door."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

import httpx
import ollama
from pydantic import ValidationError

from data_plane.ceiling.models import DoorCeiling
from data_plane.egress.http_door import HttpAnswer, HttpDoor, HttpRequest
from data_plane.egress.httpx_transport import DoorTransport
from data_plane.models import errors
from data_plane.models.interfaces import FinishReason, Message, Sampling, TextDelta, TurnEnd
from data_plane.models.ollama_chat import ChatPiece, Lines, RefusedError, piece_of, refusal
from faos_core.compact_json import encoded
from faos_core.errors import FaosError, InvalidError, LimitError, SetupError, UnavailableError
from faos_core.json_schema import BadSchemaError, compile_schema

SILENCE_S = 300.0  # longest wait for the next piece; a server that loads a large model says nothing meanwhile
ERROR_BYTES = 64 * 1024
ANSWER_BYTES = 64 << 20  # of all but a turn; a pull of many hours says as much of how far it is
ANSWER_CHARACTERS = 4 << 20  # of one turn; a server that does not keep to num_predict must not fill the memory
TOO_LONG = ("exceeds the context length", "exceeds maximum context length")  # what the server says of a prompt
NAMES_ONLY = frozenset({"/api/tags", "/api/show", "/api/pull"})  # requests that carry tags and nothing else


@dataclass(frozen=True, slots=True)
class PulledModel:
    """A model that the server has."""

    tag: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class PullProgress:
    """How far a pull is. Zeros where the server does not say."""

    done_bytes: int
    total_bytes: int


class OllamaServer:
    """What one server has, and its chat. Owns the door, which is entered; `aclose` closes it."""

    def __init__(self, door: HttpDoor) -> None:
        self._door = door
        self._client = ollama.AsyncClient(
            host=door.endpoint.url,
            transport=DoorTransport(door, class_of_path(door.endpoint.url), answer_bytes=ANSWER_BYTES),
            timeout=httpx.Timeout(SILENCE_S),
            follow_redirects=False,
            trust_env=False,
        )

    @property
    def name(self) -> str:
        return self._door.endpoint.name

    async def pulled(self) -> list[PulledModel]:
        """What the server has, by tag. Raises UnavailableError, DeniedError."""
        try:
            found = (await self._client.list()).models
        except (ollama.ResponseError, ValidationError, ValueError, httpx.HTTPError) as error:
            raise failed(error) from None
        return sorted((PulledModel(it.model or "", int(it.size or 0)) for it in found), key=lambda it: it.tag)

    async def require(self, tag: str) -> None:
        """Raises SetupError when the server does not have the model; it is never pulled by itself."""
        try:
            await self._client.show(tag)
        except ollama.ResponseError as error:
            if error.status_code == httpx.codes.NOT_FOUND:
                raise SetupError(errors.NOT_PULLED, tag=tag, endpoint=self.name) from None
            raise failed(error) from None
        except (ValidationError, ValueError, httpx.HTTPError) as error:
            raise failed(error) from None

    async def pull(self, tag: str) -> AsyncGenerator[PullProgress, None]:
        """Have the server fetch the model; ends when it has it. Raises SetupError (it cannot), UnavailableError."""
        try:
            async with aclosing(cast("Any", await self._client.pull(tag, stream=True))) as stream:
                async for part in stream:
                    yield PullProgress(part.completed or 0, part.total or 0)
        except ollama.ResponseError:
            raise SetupError(errors.PULL_FAILED, tag=tag, endpoint=self.name) from None
        except (ValidationError, ValueError, httpx.HTTPError) as error:
            raise failed(error) from None

    async def lines(self, request: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
        """The answer of /api/chat, line by line, past the library: it is slow, and its own `chat` cannot say
        `truncate`, without which the server drops what does not fit and answers all the same.

        Raises RefusedError, ValueError (the answer makes no sense), and as the door.
        """
        wanted = HttpRequest(
            method="POST",
            url=self._door.endpoint.url.rstrip("/") + "/api/chat",
            headers={"content-type": "application/json"},
            body=encoded(request),
            data_class=DoorCeiling.CUSTOMER,
            read_timeout_s=SILENCE_S,
        )
        async with self._door.send(wanted) as answer:
            if answer.status >= httpx.codes.BAD_REQUEST:
                raise refusal(await first_bytes(answer), answer.status)
            lines = Lines()
            async for piece in answer.pieces:
                for line in lines.added(piece):
                    yield line
            for line in lines.last():
                yield line

    async def aclose(self) -> None:
        """Idempotent."""
        await self._client.close()  # type: ignore[no-untyped-call]  # the library's, without types
        await self._door.aclose()


class OllamaRuntime:
    """One model of one server. Implements ModelRuntime; the server queues what it cannot run at once."""

    def __init__(self, server: OllamaServer, tag: str, *, context_tokens: int) -> None:
        """Use `load`."""
        self._server = server
        self._tag = tag
        self._context_tokens = context_tokens
        self._closed = False

    @classmethod
    async def load(cls, door: HttpDoor, tag: str, *, context_tokens: int) -> "OllamaRuntime":
        """door: not entered yet, owned from here on. The server loads the model at the first turn.

        Raises: SetupError (not pulled), UnavailableError, DeniedError.
        """
        await door.__aenter__()
        server = OllamaServer(door)
        try:
            await server.require(tag)
        except BaseException:
            await server.aclose()
            raise
        return cls(server, tag, context_tokens=context_tokens)

    async def chat(
        self,
        messages: Sequence[Message],
        *,
        sampling: Sampling,
        json_schema: Mapping[str, Any] | None = None,
    ) -> AsyncGenerator[TextDelta | TurnEnd, None]:
        """See ModelRuntime. Closing the iterator hangs up, and the server stops generating."""
        if self._closed:
            raise UnavailableError(errors.CLOSED)
        request = self._request(messages, sampling, json_schema)
        pieces: list[str] = []
        room = ANSWER_CHARACTERS
        try:
            async with aclosing(self._server.lines(request)) as lines:
                async for line in lines:
                    part = piece_of(line)
                    if part.text:
                        pieces.append(part.text)
                        room -= len(part.text)
                        if room < 0:
                            raise ValueError("an answer without end")
                        yield TextDelta(part.text)
                    if part.done:
                        yield end_of(part, "".join(pieces))
                        return
        except (FaosError, RefusedError, ValueError) as error:
            raise self._mapped(error) from None  # the server's words may quote the prompt
        raise UnavailableError(errors.FAILED, reason="it ended early")

    async def aclose(self) -> None:
        self._closed = True
        await self._server.aclose()

    def _request(
        self, messages: Sequence[Message], sampling: Sampling, json_schema: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        request = {
            "model": self._tag,
            "messages": [{"role": str(message.role), "content": message.content} for message in messages],
            "stream": True,
            "truncate": False,
            "shift": False,
            "options": {
                "num_ctx": self._context_tokens,
                "num_predict": sampling.max_tokens,
                "repeat_penalty": sampling.repeat_penalty,
                "seed": sampling.seed,
                "temperature": sampling.temperature,
            },
        }
        return request if json_schema is None else request | {"format": checked(json_schema)}

    def _mapped(self, error: Exception) -> FaosError:
        if self._closed:
            return UnavailableError(errors.CLOSED)
        if isinstance(error, FaosError):
            return error
        if isinstance(error, RefusedError):
            if any(words in error.text for words in TOO_LONG):
                most = self._context_tokens
                return LimitError(errors.CONTEXT_EXCEEDED, input_tokens=f"more than {most}", context_tokens=most)
            if error.status == httpx.codes.NOT_FOUND:
                return UnavailableError(errors.NOT_PULLED, tag=self._tag, endpoint=self._server.name)
        return failed(error)


def class_of_path(url: str) -> "ClassOfPath":
    return ClassOfPath(httpx.URL(url).path.rstrip("/"))


@dataclass(frozen=True, slots=True)
class ClassOfPath:
    """Highest class of data in a request: a tag is a name of the configuration, all else may be a customer's."""

    prefix: str

    def __call__(self, path: str) -> DoorCeiling:
        names_only = path.removeprefix(self.prefix) in NAMES_ONLY
        return DoorCeiling.IDENTIFIER if names_only else DoorCeiling.CUSTOMER


def checked(json_schema: Mapping[str, Any]) -> dict[str, Any]:
    """The server compiles a schema into a grammar and answers unconstrained where it does not understand one."""
    try:
        compile_schema(json_schema)
    except (BadSchemaError, TypeError, ValueError) as error:
        raise InvalidError(errors.SCHEMA_UNUSABLE) from error
    return dict(json_schema)


async def first_bytes(answer: HttpAnswer) -> bytes:
    """Of what a server says instead of an answer."""
    found = b""
    async for piece in answer.pieces:
        found += piece
        if len(found) > ERROR_BYTES:
            break
    return found


def end_of(part: ChatPiece, text: str) -> TurnEnd:
    reason = FinishReason.LENGTH if part.done_reason == "length" else FinishReason.STOP
    return TurnEnd(text, part.input_tokens, part.output_tokens, reason)


def failed(error: Exception) -> UnavailableError:
    match error:
        case RefusedError(status=status) | ollama.ResponseError(status_code=status):
            return UnavailableError(errors.FAILED, reason=f"HTTP {status}")
    return UnavailableError(errors.FAILED, reason=type(error).__name__)
