"""MCP servers over streamable HTTP in processes of their own: the fixtures', and other people's."""

import contextlib
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.patience import PATIENCE_S
from tests.ports import own_port

ROOT = Path(__file__).resolve().parents[2]
EVERYTHING = ROOT / ".cache" / "tools" / "mcp-server-everything"


def everything_is_here() -> bool:
    return (EVERYTHING / "node_modules" / "@modelcontextprotocol" / "server-everything" / "dist" / "index.js").is_file()


@contextmanager
def everything() -> Iterator[str]:
    """The URL of @modelcontextprotocol/server-everything."""
    program = EVERYTHING / "node_modules" / "@modelcontextprotocol" / "server-everything" / "dist" / "index.js"
    port = own_port()
    with served(["node", str(program), "streamableHttp"], port, environment={"PORT": str(port)}) as url:
        yield url


@contextmanager
def fixture_server(script: str) -> Iterator[str]:
    """The URL of a server among the fixtures, made with the mcp package."""
    port = own_port()
    command = [sys.executable, str(ROOT / "tests" / "fixtures" / "mcp" / f"{script}.py"), str(port)]
    with served(command, port) as url:
        yield url


@contextmanager
def served(command: Sequence[str], port: int, *, environment: Mapping[str, str] | None = None) -> Iterator[str]:
    process = subprocess.Popen(
        command,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{port}/mcp"
        wait_for(url, process)
        yield url
    finally:
        process.kill()
        process.wait()


def wait_for(url: str, process: "subprocess.Popen[bytes]") -> None:
    end_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < end_s and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            try:
                urllib.request.urlopen(url, timeout=1).close()
            except urllib.error.HTTPError:
                return  # it answers
        time.sleep(0.05)
    raise RuntimeError(f"no MCP server came up at {url}")
