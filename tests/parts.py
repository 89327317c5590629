"""The real parts that tests may need, and how to tell whether this machine has them."""

import os
import shutil
import socket
import subprocess
from functools import cache
from pathlib import Path

from tests.patience import PATIENCE_S
from tests.servers import earlier_version, mcp_over_http, ollama, postgres, softhsm

ROOT = Path(__file__).resolve().parent.parent
ASSETS = Path(os.environ.get("FAOS_ASSETS", ROOT / ".cache" / "models"))


@cache
def have(part: str) -> bool:
    """Whether the part is here and works. Raises KeyError for a name that nothing defines."""
    return CHECKS[part]()


def runs(*command: str) -> bool:
    return (
        bool(shutil.which(command[0]))
        and subprocess.run(command, capture_output=True, timeout=PATIENCE_S).returncode == 0
    )


def has_model() -> bool:
    return any(ASSETS.glob("*.gguf"))


def has_embedder() -> bool:
    return any(ASSETS.glob("**/*.onnx"))


@cache
def libfaketime() -> Path | None:
    """The library that gives a program a clock of its own; of the Debian package `faketime`."""
    return next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)


def has_ipv6() -> bool:
    """Whether something can listen on the IPv6 loopback."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


CHECKS = {
    "installed": lambda: (ROOT / ".venv" / "embedded.stamp").exists(),  # the environment that make makes
    "bwrap": lambda: runs("bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"),
    "namespaces": lambda: runs("unshare", "--user", "--map-root-user", "--net", "--mount", "ip", "link", "show"),
    "faketime": lambda: libfaketime() is not None,
    "ipv6": has_ipv6,
    "grpcurl": lambda: runs("grpcurl", "-version"),
    "mcp-server-time": lambda: bool(
        shutil.which("mcp-server-time") or list(ROOT.glob(".cache/tools/*/bin/mcp-server-time"))
    ),
    "mcp-server-everything": lambda: bool(shutil.which("node")) and mcp_over_http.everything_is_here(),
    "postgres": postgres.is_here,
    "history": earlier_version.is_here,  # of git, for the version before this one
    "ollama": lambda: ollama.is_here() and has_model(),
    "softhsm": softhsm.is_here,
    "model": has_model,
    "embedder": has_embedder,
}
