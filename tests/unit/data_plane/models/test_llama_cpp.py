import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from data_plane.models.interfaces import Message, Role, Sampling, TurnEnd
from data_plane.models.llama_cpp import LlamaCppRuntime, error_of
from faos_core.errors import LimitError, SetupError, UnavailableError
from tests.parts import ASSETS
from tests.patience import PATIENCE_S

PROMPTS = [f"Explain {topic} with the number {number}." for number, topic in enumerate(["rain", "tax law", "tea"], 40)]


@pytest.fixture
async def runtime() -> AsyncIterator[LlamaCppRuntime]:
    loaded = await LlamaCppRuntime.load(next(ASSETS.glob("*.gguf")), context_tokens=1024)
    yield loaded
    await loaded.aclose()


async def text_of(runtime: LlamaCppRuntime, prompt: str) -> str:
    stream = runtime.chat([Message(Role.USER, prompt)], sampling=Sampling(max_tokens=60))
    (end,) = [item async for item in stream if isinstance(item, TurnEnd)]
    return end.text


@pytest.mark.needs("model")
async def test_answers_do_not_depend_on_what_else_runs(runtime: LlamaCppRuntime) -> None:
    """With a prompt cache or two slots, half of these differ: an answer would depend on who else asked."""
    alone = [await text_of(runtime, prompt) for prompt in PROMPTS]

    together = await asyncio.gather(*(text_of(runtime, prompt) for prompt in [*PROMPTS, *PROMPTS]))

    assert together == [*alone, *alone]
    assert len(set(alone)) == len(PROMPTS)


@pytest.mark.needs("model")
async def test_no_listener_can_be_reached(runtime: LlamaCppRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library serves HTTP by itself: whoever reached it would talk past policy and journal."""
    assert Path("/proc/self/fd").exists()
    listening = [line.split() for line in Path("/proc/net/unix").read_text().splitlines() if "l.sock" in line]
    ours = own_inodes()

    paths = [fields[7] for fields in listening if fields[6] in ours]

    assert paths, "the library no longer opens its listener: this test and load_server can be simplified"
    assert not any(Path(path).exists() for path in paths)
    for path in paths:
        with socket.socket(socket.AF_UNIX) as client, pytest.raises(FileNotFoundError):
            client.connect(path)
    assert not own_tcp_listeners(ours)


LOADED_AND_FREED = """
import sys
from pathlib import Path
from data_plane.models.llama_cpp import load_server
for _ in range(4):
    load_server(Path(sys.argv[1]), 512, 1)
"""


@pytest.mark.needs("model")
def test_a_model_that_is_freed_as_soon_as_it_is_loaded_does_not_hold_the_node() -> None:
    """A revision that fails while its model loads frees it at once; the library then waited for ever, with the
    interpreter held, so that not even a signal was heard. In a process of its own, because of that."""
    command = [sys.executable, "-c", LOADED_AND_FREED, str(next(ASSETS.glob("*.gguf")))]

    subprocess.run(command, check=True, timeout=PATIENCE_S)


def own_inodes() -> set[str]:
    """Of this process's sockets."""
    names = [path.readlink().name for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    return {name.removeprefix("socket:[").removesuffix("]") for name in names if name.startswith("socket:[")}


def own_tcp_listeners(inodes: set[str]) -> list[str]:
    tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    lines = [line.split() for table in tables if table.exists() for line in table.read_text().splitlines()[1:]]
    return [fields[1] for fields in lines if fields[3] == "0A" and fields[9] in inodes]


async def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    """The person who put a wrong file there needs its path, not a crash of the node."""
    wrong = tmp_path / "wrong.gguf"
    wrong.write_bytes(b"no model at all")

    with pytest.raises(SetupError) as refused:
        await LlamaCppRuntime.load(wrong)

    assert str(wrong) in refused.value.what


def test_errors_of_the_library_lose_their_text() -> None:
    """The library may quote the prompt in its message, and our errors go into logs."""
    quoting = {"code": 500, "message": "bad prompt: patient Miller", "type": "server_error"}
    too_long = {"code": 400, "type": "exceed_context_size_error", "n_prompt_tokens": 9031, "message": "Miller"}

    errors = [error_of(quoting, 4096), error_of(too_long, 4096)]

    assert isinstance(errors[0], UnavailableError)
    assert isinstance(errors[1], LimitError)
    assert "9031" in errors[1].why
    assert not any("Miller" in f"{error.what}{error.why}{error.next_step}{error.fields}" for error in errors)
