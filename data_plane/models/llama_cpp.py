"""llama.cpp inside the node's process.

Three properties of the library shape this module. It always opens an HTTP listener of its own, which would let anyone
on the machine past policy and journal: it is put on a Unix socket in a private folder, behind a random key, and the
socket is unlinked as soon as the model is loaded. And what it computes depends on how work is batched: with a prompt
cache, or with two prompts decoded together, 6 to 10 of 12 greedy answers came out different. So one turn runs at a
time, from an empty cache; on two cores that costs no throughput (measured). And freed at once after loading it hangs.
"""

import asyncio
import json
import os
import secrets
import tempfile
import threading
from collections.abc import AsyncGenerator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import xllamacpp

from data_plane.models import errors
from data_plane.models.interfaces import FinishReason, Message, Sampling, TextDelta, TurnEnd
from faos_core.errors import FaosError, InvalidError, LimitError, SetupError, UnavailableError

MAX_WAITING = 1024
PROMPT_BATCH_TOKENS = 256  # cancelling while a prompt is read takes effect after this many
SILENT = -1


class LlamaCppRuntime:
    """One GGUF file, loaded. Turns run one at a time in the order in which they came; up to MAX_WAITING wait."""

    def __init__(self, server: Any, *, context_tokens: int) -> None:
        """Use `load`. server: an xllamacpp.Server, owned from here on."""
        self._server = server
        self._context_tokens = context_tokens
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="llama-cpp")
        self._turns: set[Turn] = set()
        self._closed = False

    @classmethod
    async def load(cls, path: Path, *, context_tokens: int = 4096, threads: int | None = None) -> "LlamaCppRuntime":
        """path: verified by the caller. threads: None means one core fewer than this process may use.

        Raises SetupError (the file is no model, or memory is short). Loading cannot be interrupted: cancelling
        abandons it, and its thread frees the model when it is done.
        """
        server = await asyncio.to_thread(load_server, path, context_tokens, threads or default_threads())
        return cls(server, context_tokens=context_tokens)

    async def chat(
        self,
        messages: Sequence[Message],
        *,
        sampling: Sampling,
        json_schema: Mapping[str, Any] | None = None,
    ) -> AsyncGenerator[TextDelta | TurnEnd, None]:
        """See ModelRuntime. The same messages, sampling and schema give the same text at temperature 0."""
        turn = self._begin(request_of(messages, sampling, json_schema))
        try:
            while True:
                item = await turn.items.get()
                if isinstance(item, FaosError):
                    raise item
                yield item
                if isinstance(item, TurnEnd):
                    return
        finally:
            turn.stopped.set()
            turn.future.cancel()
            self._turns.discard(turn)

    def _begin(self, request: dict[str, Any]) -> "Turn":
        if self._closed:
            raise UnavailableError(errors.CLOSED)
        if len(self._turns) >= MAX_WAITING:
            raise UnavailableError(errors.BUSY, waiting=len(self._turns))
        turn = Turn(request, self._context_tokens)
        turn.future = self._thread.submit(turn.run, self._server)
        self._turns.add(turn)
        return turn

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        for turn in tuple(self._turns):
            turn.close()
        await asyncio.to_thread(self._free)

    def _free(self) -> None:
        """Waits for the turn in progress, which ends at its next token; then the library frees its memory."""
        self._thread.shutdown(wait=True)
        self._server = None


class Turn:
    """One request on its way through the library's thread, and what came of it so far.

    items: bounded by the tokens of the turn. Ends with a TurnEnd or an error.
    """

    def __init__(self, request: dict[str, Any], context_tokens: int) -> None:
        self.items: asyncio.Queue[TextDelta | TurnEnd | FaosError] = asyncio.Queue()
        self.stopped = threading.Event()
        self.future: Future[None] = Future()
        self._loop = asyncio.get_running_loop()
        self._request = request
        self._context_tokens = context_tokens
        self._pieces: list[str] = []
        self._finish = FinishReason.STOP
        self._ended = False

    def close(self) -> None:
        """The model goes away: whoever reads the items learns it now."""
        self.stopped.set()
        self.items.put_nowait(UnavailableError(errors.CLOSED))

    def run(self, server: Any) -> None:
        """In the library's thread, start to end."""
        if self.stopped.is_set():
            return
        try:
            server.handle_chat_completions(self._request, self._receive)
        except (RuntimeError, ValueError) as error:
            self._send(self._refusal(error))
        if not self._ended and not self.stopped.is_set():
            self._send(UnavailableError(errors.FAILED, reason="it ended early"))

    def _refusal(self, error: Exception) -> FaosError:
        """The library raises ValueError for a schema that it cannot compile, before it generates."""
        if isinstance(error, ValueError) and "response_format" in self._request:
            return InvalidError(errors.SCHEMA_UNUSABLE)
        return UnavailableError(errors.FAILED, reason=type(error).__name__)

    def _receive(self, chunk: dict[str, Any]) -> bool:
        """One chunk of the stream; true stops the generation. Must not raise: the library would go on without us."""
        if self.stopped.is_set():
            return True
        if "error" in chunk:
            return self._send(error_of(chunk["error"], self._context_tokens))
        for choice in chunk.get("choices", ()):
            self._receive_choice(choice)
        if usage := chunk.get("usage"):
            return self._send(self._end(usage))
        return False

    def _receive_choice(self, choice: dict[str, Any]) -> None:
        if text := choice.get("delta", {}).get("content"):
            self._pieces.append(text)
            self._send(TextDelta(text))
        if choice.get("finish_reason") == "length":
            self._finish = FinishReason.LENGTH

    def _end(self, usage: dict[str, int]) -> TurnEnd:
        return TurnEnd("".join(self._pieces), usage["prompt_tokens"], usage["completion_tokens"], self._finish)

    def _send(self, item: TextDelta | TurnEnd | FaosError) -> bool:
        """Whether this was the last item."""
        self._ended = self._ended or not isinstance(item, TextDelta)
        try:
            self._loop.call_soon_threadsafe(self.items.put_nowait, item)
        except RuntimeError:  # the loop is closed: nobody reads any more
            self.stopped.set()
        return self._ended or self.stopped.is_set()


def request_of(
    messages: Sequence[Message], sampling: Sampling, json_schema: Mapping[str, Any] | None
) -> dict[str, Any]:
    """A chat completion as the library takes it."""
    request: dict[str, Any] = {
        "messages": [{"role": str(message.role), "content": message.content} for message in messages],
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_progress": True,
        "cache_prompt": False,
        "temperature": sampling.temperature,
        "repeat_penalty": sampling.repeat_penalty,
        "max_tokens": sampling.max_tokens,
        "seed": sampling.seed,
    }
    return request if json_schema is None else request | {"response_format": response_format_of(json_schema)}


def response_format_of(json_schema: Mapping[str, Any]) -> dict[str, Any]:
    """The library compiles it before it generates, and refuses what is no schema. (Its other way in, a grammar made
    beforehand, answers unconstrained when that does not compile.) Keywords that a grammar cannot express, `not` and
    unanchored `pattern`, it leaves out: whoever acts on the text validates it."""
    try:
        schema = json.loads(json.dumps(json_schema))
    except (TypeError, ValueError) as error:
        raise InvalidError(errors.SCHEMA_UNUSABLE) from error
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


def error_of(error: Mapping[str, Any], context_tokens: int) -> FaosError:
    """The library's error, without its text: that may quote the prompt."""
    if error.get("type") == "exceed_context_size_error":
        return LimitError(
            errors.CONTEXT_EXCEEDED, input_tokens=error.get("n_prompt_tokens"), context_tokens=context_tokens
        )
    return UnavailableError(errors.FAILED, reason=f"code {error.get('code')}")


def load_server(path: Path, context_tokens: int, threads: int) -> Any:
    """Blocking. The listener's folder is private (0700) and gone when this returns."""
    with tempfile.TemporaryDirectory(prefix="faos-") as folder:
        parameters = parameters_of(path, context_tokens, threads)
        parameters.hostnames = [os.path.join(folder, "l.sock")]  # noqa: PTH118 — the library takes text
        try:
            server = xllamacpp.Server(parameters)
        except RuntimeError as error:
            raise SetupError(errors.LOAD_FAILED, path=path) from error
        # A question that only the library's own loop answers: one that is freed before its loop has begun waits for the
        # loop's end for ever, and holds the interpreter meanwhile.
        server.handle_metrics()
        return server


def parameters_of(path: Path, context_tokens: int, threads: int) -> Any:
    """Quiet (its logs would quote prompts), offline, deterministic, with no cache of prompts left in memory."""
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.n_ctx = context_tokens
    parameters.n_parallel = 1
    parameters.n_batch = PROMPT_BATCH_TOKENS
    parameters.cpuparams.n_threads = threads
    parameters.cpuparams_batch.n_threads = threads
    parameters.cpuparams.poll = parameters.cpuparams_batch.poll = 0  # idle threads sleep instead of spinning
    parameters.cache_prompt = False
    parameters.cache_ram_mib = 0
    parameters.n_ctx_checkpoints = 0
    parameters.n_gpu_layers = 0
    parameters.offline = True
    parameters.ui = False
    parameters.endpoint_slots = False
    parameters.endpoint_metrics = True  # see load_server
    parameters.api_keys = [secrets.token_hex(16)]
    parameters.verbosity = SILENT
    return parameters


def default_threads() -> int:
    """One core fewer than this process may use. llama.cpp's threads spin where they meet, hundreds of times a token, so
    a thread that has lost its core to somebody else costs the others their whole time slice. Measured on 2 cores with
    busy neighbours: 2 threads 1.5 tokens/s, 1 thread 48."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores - 1)
