"""A real Ollama server with the small model in it: own data folder, free loopback port, stopped by pid."""

import hashlib
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.patience import PATIENCE_S
from tests.ports import own_port

ROOT = Path(__file__).resolve().parent.parent.parent
BINARY = ROOT / ".cache" / "bin" / "ollama"
TAG = "smollm2:135m"
# ChatML, as the model was trained. Source: the model card of SmolLM2-135M-Instruct.
TEMPLATE = """{{ range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
"""


@dataclass(frozen=True, slots=True)
class OllamaProcess:
    """A server that answers."""

    url: str
    pid: int


def binary() -> str | None:
    return str(BINARY) if BINARY.exists() else shutil.which("ollama")


def is_here() -> bool:
    return binary() is not None


def ask(url: str, path: str, body: bytes | None = None) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url + path, data=body), timeout=PATIENCE_S) as answer:
        return bytes(answer.read())


def environment_of(folder: Path, port: int) -> dict[str, str]:
    """Nothing of the machine's own Ollama; one turn at a time, so that greedy answers repeat."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "OLLAMA_HOST": f"127.0.0.1:{port}",
        "OLLAMA_MODELS": str(folder / "models"),
        "OLLAMA_NUM_PARALLEL": "1",
        "OLLAMA_NO_CLOUD": "1",
    }


@contextmanager
def ollama_server(folder: Path) -> Iterator[OllamaProcess]:
    """A server without models. Raises RuntimeError where it does not come up."""
    url = f"http://127.0.0.1:{(port := own_port())}"
    with (folder / "ollama.log").open("wb") as log:
        process = subprocess.Popen(
            [str(binary()), "serve"], env=environment_of(folder, port), stdout=log, stderr=log, cwd=folder
        )
    try:
        wait_until_answering(url, process)
        yield OllamaProcess(url, process.pid)
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_answering(url: str, process: "subprocess.Popen[bytes]") -> None:
    give_up_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < give_up_s and process.poll() is None:
        try:
            ask(url, "/api/version")
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("ollama did not come up")


def create_model(url: str, gguf: Path, tag: str = TAG) -> None:
    """Put the file into the server as `tag`."""
    data = gguf.read_bytes()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    ask(url, f"/api/blobs/{digest}", data)
    wanted = {
        "model": tag,
        "files": {"m.gguf": digest},
        "template": TEMPLATE,
        "parameters": {"stop": ["<|im_end|>"], "num_thread": 1},  # beside busy neighbours, more threads are slower
        "stream": False,
    }
    ask(url, "/api/create", json.dumps(wanted).encode())
