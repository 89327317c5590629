"""The real parts that tests may need, and how to tell whether this machine has them."""

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from tests.servers import ollama, postgres

ROOT = Path(__file__).resolve().parent.parent
ASSETS = Path(os.environ.get("FAOS_ASSETS", ROOT / ".cache" / "models"))


@cache
def have(part: str) -> bool:
    """Whether the part is here and works. Raises KeyError for a name that nothing defines."""
    return CHECKS[part]()


def runs(*command: str) -> bool:
    return bool(shutil.which(command[0])) and subprocess.run(command, capture_output=True, timeout=20).returncode == 0


def has_model() -> bool:
    return any(ASSETS.glob("*.gguf"))


def has_embedder() -> bool:
    return any(ASSETS.glob("**/*.onnx"))


CHECKS = {
    "installed": lambda: (ROOT / ".venv" / "embedded.stamp").exists(),  # the environment that make makes
    "bwrap": lambda: runs("bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"),
    "namespaces": lambda: runs("unshare", "--user", "--map-root-user", "--net", "--mount", "ip", "link", "show"),
    "grpcurl": lambda: runs("grpcurl", "-version"),
    "mcp-server-time": lambda: bool(
        shutil.which("mcp-server-time") or list(ROOT.glob(".cache/tools/*/bin/mcp-server-time"))
    ),
    "postgres": postgres.is_here,
    "ollama": lambda: ollama.is_here() and has_model(),
    "model": has_model,
    "embedder": has_embedder,
}
