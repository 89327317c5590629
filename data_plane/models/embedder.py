"""Sentence embeddings with ONNX Runtime: BERT tokens in, mean over tokens, unit length out. Offline."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime
import tokenizers
from numpy.typing import NDArray

from data_plane.ceiling.models import EmbedderFiles
from data_plane.models import errors
from data_plane.models.verification import FileVerifier
from faos_core.errors import SetupError, UnavailableError

MAX_TOKENS = 256  # what all-MiniLM-L6-v2 was trained to read
BATCH_TEXTS = 16


class OnnxEmbedder:
    """A loaded embedder. Calls queue for one thread, so that embedding takes no more than its share of the cores.

    Texts are run one by one, without padding: in a batch each costs as much as the longest (on one core nothing is
    gained by it), and a vector would depend, in its last bits, on the batch that it was made in.
    """

    def __init__(self, session: Any, tokenizer: Any, *, digest: str, dimensions: int) -> None:
        """Use `load`."""
        self.digest = digest
        self.dimensions = dimensions
        self._session = session
        self._tokenizer = tokenizer
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embedder")
        self._closed = False

    @classmethod
    async def load(cls, files: EmbedderFiles, verifier: FileVerifier) -> "OnnxEmbedder":
        """Raises: IntegrityError (a checksum is wrong), SetupError (a file is missing, or is no model)."""
        await verifier.verify(files.model, files.model_sha256)
        await verifier.verify(files.tokenizer, files.tokenizer_sha256)
        session = await asyncio.to_thread(load_session, files.model)
        tokenizer = await asyncio.to_thread(load_tokenizer, files.tokenizer)
        dimensions = session.get_outputs()[0].shape[-1]
        return cls(session, tokenizer, digest=files.model_sha256.lower(), dimensions=dimensions)

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See Embedder. Raises UnavailableError after `aclose`. Cancel-safe; what runs already runs to its end."""
        if self._closed:
            raise UnavailableError(errors.CLOSED)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._embed, list(texts))

    async def aclose(self) -> None:
        """Idempotent; waits for what runs."""
        self._closed = True
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)

    def _embed(self, texts: list[str]) -> NDArray[np.float32]:
        rows = np.empty((len(texts), self.dimensions), dtype=np.float32)
        encoded = [encoding.ids for encoding in self._tokenizer.encode_batch(texts)]
        for row, token_ids in enumerate(encoded):
            rows[row] = self._run(token_ids)
        return rows

    def _run(self, token_ids: list[int]) -> NDArray[np.float32]:
        ids = np.array([token_ids], dtype=np.int64)
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        (hidden,) = self._session.run(None, inputs)
        mean = hidden[0].mean(axis=0)
        return cast("NDArray[np.float32]", mean / np.linalg.norm(mean))


def load_session(path: Path) -> Any:
    """Blocking. One thread within an operation: the model is small and the language model wants the cores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library's classes share no other base
        raise SetupError(errors.LOAD_FAILED, path=path) from error


def load_tokenizer(path: Path) -> Any:
    """Blocking. Whatever padding the file asks for is dropped: padding is only for batches."""
    try:
        tokenizer = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises no other class for a file that it cannot parse
        raise SetupError(errors.LOAD_FAILED, path=path) from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer
