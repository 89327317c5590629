"""Every outbound client of the node is a registered door, or a local client that a person listed here with a reason.

The scan reads source, so it finds what Python code of ours opens; what libraries, C code or child processes open is
the kernel's to prove (DESIGN section 6).
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_plane.egress.doors import DOORS

ROOT = Path(__file__).resolve().parents[2]
SCANNED = ("data_plane", "tunnel", "faos_core", "installer/faos_cli")
OWN_PACKAGES = ("data_plane", "tunnel", "faos_core", "faos_cli")

# Modules that may hold a client which is no door, because it does not leave the site or is not the node's.
LOCAL_CLIENTS: dict[str, str] = {
    "data_plane.egress.dialing": "dials for doors: whoever calls it opens a connection, and is found by that",
    "data_plane.api.server": "its channel() dials the node's own Unix socket (mode 0600): nothing leaves the machine",
    "faos_core.store_postgres": "the node's own database, named by node.toml alone: nothing from the cloud names one",
    "faos_core.store_sqlite": "a file in the node's data folder; the engine dials nothing",
    "faos_cli.admin_client": "the operator's own calls of the admin API, over TLS; it knows nothing of a node's data",
    "faos_cli.site_client": "dials the node's own Unix socket (mode 0600): nothing leaves the machine",
    "faos_cli.up.ports": "listens for a moment to learn whether a port is free; it connects to nothing",
}

# Modules whose import alone makes an outbound client possible.
CLIENT_MODULES = (
    "aiohttp",
    "anthropic",
    "asyncpg",
    "boto3",
    "ftplib",
    "http.client",
    "httpcore",
    "httpcore2",
    "httpx",
    "httpx2",
    "huggingface_hub",
    "mcp.client.sse",
    "mcp.client.streamable_http",
    "mcp.client.websocket",
    "ollama",
    "openai",
    "pika",
    "psycopg",
    "psycopg2",
    "redis",
    "requests",
    "smtplib",
    "tuf.ngclient.urllib3_fetcher",
    "urllib.request",
    "urllib3",
    "websockets",
    "xmlrpc.client",
)
# Names that construct a client, once imports are resolved.
CONSTRUCTORS = frozenset(
    {f"{module}.{name}" for module in ("grpc", "grpc.aio") for name in ("secure_channel", "insecure_channel")}
    | {"socket.socket", "socket.create_connection", "socket.SocketType", "_socket.socket"}
    | {"asyncio.open_connection", "asyncio.open_unix_connection", "data_plane.egress.dialing.dial"}
    | {"sqlalchemy.create_engine", "sqlalchemy.ext.asyncio.create_async_engine"}
    | {"tuf.ngclient.RequestsFetcher", "tuf.ngclient.Urllib3Fetcher", "tuf.ngclient.Updater"}
)
# Methods that do, whatever they are called on.
CONNECTING_METHODS = frozenset(
    {"create_connection", "create_unix_connection", "create_datagram_endpoint", "sock_connect", "connect_ex"}
)


def openings(source: str) -> list[str]:
    """What in this source can open a connection, as "line: name"."""
    tree = ast.parse(source)
    names = imported_names(tree)
    found = {(line, name) for node in ast.walk(tree) for line, name in openings_at(node, names)}
    return [f"{line}: {name}" for line, name in sorted(found)]


def imported_names(tree: ast.AST) -> dict[str, str]:
    """Local name → what it stands for."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                plain = alias.name.split(".")[0]
                names[alias.asname or plain] = alias.name if alias.asname else plain
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def openings_at(node: ast.AST, names: dict[str, str]) -> Iterator[tuple[int, str]]:
    if isinstance(node, ast.Import):
        yield from ((node.lineno, alias.name) for alias in node.names if is_client_module(alias.name))
    elif isinstance(node, ast.ImportFrom) and node.module:
        for full in {f"{node.module}.{alias.name}" for alias in node.names}:
            if is_client_module(full) or full in CONSTRUCTORS:
                yield node.lineno, full
    elif isinstance(node, ast.Attribute):
        full = dotted(node, names)
        if full in CONSTRUCTORS or is_client_module(full) or node.attr in CONNECTING_METHODS:
            yield node.lineno, full or node.attr
    elif isinstance(node, ast.Call) and dotted(node.func, names) in ("importlib.import_module", "__import__"):
        named = imported_by(node)
        if named is None:
            yield node.lineno, "import of a computed name"
        elif is_client_module(named):
            yield node.lineno, named


def imported_by(call: ast.Call) -> str | None:
    """What a call of import_module imports: a constant name, or a computed one within a package of ours, whose modules
    are scanned themselves; None when it could be anything."""
    match call.args:
        case [ast.Constant(str() as name)]:
            return name
        case [ast.JoinedStr([ast.Constant(str() as prefix), ast.FormattedValue(format_spec=None)])]:
            return prefix if prefix.endswith(".") and prefix.split(".")[0] in OWN_PACKAGES else None
    return None


def is_client_module(name: str) -> bool:
    return any(name == module or name.startswith(module + ".") for module in CLIENT_MODULES)


def dotted(node: ast.AST, names: dict[str, str]) -> str:
    """Full dotted name of an expression; "" when it is something else."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute) and (left := dotted(node.value, names)):
        return f"{left}.{node.attr}"
    return ""


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removeprefix("installer.")


def clients() -> dict[str, list[str]]:
    """Module → what it opens, for every module that opens anything."""
    paths = [path for root in SCANNED for path in sorted((ROOT / root).rglob("*.py"))]
    assert len(paths) > 20
    return {module_of(path): found for path in paths if (found := openings(path.read_text()))}


def test_no_client_outside_the_registry_of_doors() -> None:
    """A way out that no gate watches would make the ledger a lie."""
    registered = {module for door in DOORS.values() for module in door.opened_by}

    strays = {module: found for module, found in clients().items() if module not in registered | LOCAL_CLIENTS.keys()}

    assert strays == {}, "register a door in data_plane/egress/doors.py, or list a local client here with its reason"


def test_registered_modules_do_open_what_they_are_registered_for() -> None:
    """A stale entry is a hole that the next client slips through unseen."""
    registered = {module for door in DOORS.values() for module in door.opened_by}

    assert registered | LOCAL_CLIENTS.keys() <= clients().keys()
    assert all(len(reason) > 20 for reason in LOCAL_CLIENTS.values())
    assert not registered & LOCAL_CLIENTS.keys()


@pytest.mark.parametrize(
    "planted",
    [
        "import grpc\nchannel = grpc.secure_channel('x:1', c)",
        "import grpc\nchannel = grpc.aio.insecure_channel('x:1')",
        "from grpc import aio\nchannel = aio.secure_channel('x:1', c)",
        "from grpc.aio import secure_channel as quiet\nquiet('x:1', c)",
        "import grpc as g\nopen_later = g.aio.secure_channel",
        "import socket\nsocket.create_connection(('x', 1))",
        "import socket as s\ns.socket().connect(('x', 1))",
        "from socket import socket\nsocket()",
        "import urllib.request\nurllib.request.urlopen('http://x')",
        "from urllib import request\nrequest.urlopen('http://x')",
        "from urllib.request import urlopen\nurlopen('http://x')",
        "import http.client",
        "from http import client",
        "import httpx",
        "import httpx2",
        "def later():\n    import requests",
        "from aiohttp import ClientSession",
        "import asyncio\nasyncio.open_connection('x', 1)",
        "import asyncio\nasyncio.get_running_loop().create_connection(None, 'x', 1)",
        "async def f(loop, sock):\n    await loop.sock_connect(sock, ('x', 1))",
        "from mcp.client.streamable_http import streamable_http_client",
        "from mcp.client import sse",
        "import importlib\nimportlib.import_module('httpx')",
        "import importlib\nimportlib.import_module('ht' + 'tpx')",
        "__import__('requests')",
        "import importlib\nimportlib.import_module(f'{name}')",
        "import importlib\nimportlib.import_module(f'faos_cli{name}')",
        "import importlib\nimportlib.import_module(f'{name}.commands')",
        "import importlib\nimportlib.import_module(f'faos_cli.commands.{name}', package)",
        "import importlib\nimportlib.import_module(f'other.{name}')",
        "import importlib\nimportlib.import_module('faos_cli.commands.' + name)",
        "import importlib\nimportlib.import_module(f'faos_cli.{name:{spec}}')",
        "from tuf.ngclient import Updater\nUpdater('x')",
        "import sqlalchemy as sa\nsa.create_engine('postgresql://x/y')",
        "from sqlalchemy import create_engine\ncreate_engine('postgresql://x/y')",
        "import psycopg\npsycopg.connect('host=x')",
        "from data_plane.egress.dialing import dial",
    ],
)
def test_scanner_catches_a_planted_client(planted: str) -> None:
    """A scanner that finds nothing proves nothing."""
    assert openings(planted)


@pytest.mark.parametrize(
    "harmless",
    [
        "import grpc\nserver = grpc.aio.server()",
        "import asyncio\nasyncio.start_unix_server(None, 'x')",
        "from urllib.parse import urlparse",
        "from mcp.client.stdio import stdio_client",
        "import http\nhttp.HTTPStatus.OK",
        "'import httpx'",
        "import importlib\nimportlib.import_module(f'faos_cli.commands.{name}')",
    ],
)
def test_scanner_leaves_what_opens_nothing(harmless: str) -> None:
    """False alarms would fill the list of exceptions until nobody reads it."""
    assert openings(harmless) == []
