"""An MCP server over streamable HTTP whose tools misbehave, each in its own way: what the stdio fixture rogue.py is for
programs. Keeps every request; counts its sessions, which are its starts."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
SESSION = re.compile(rb"mcp-session-id: *(\S+)", re.IGNORECASE)
TOOLS = ("fine", "dies", "hangs", "garbage", "floods", "breaks")


class RogueMcp:
    """One endpoint, of before 2026 and with sessions. `changes`: it describes its first tool anew in each session."""

    def __init__(self, *, changes: bool = False, streams: bool = False) -> None:
        """streams: answers to calls come as an event stream, and one that breaks can be resumed."""
        self.port = 0
        self.requests: list[bytes] = []
        self.methods: list[str] = []
        self.sessions = 0
        self._open: set[int] = set()
        self.hung_up = asyncio.Event()
        self.is_down = False
        self._changes = changes
        self._streams = streams
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def forget_sessions(self) -> None:
        """As a server does that was restarted: who comes with the old session is told 404."""
        self._open.clear()

    def close_all(self) -> None:
        for writer in self._writers:
            writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while not self.is_down:
                head = await reader.readuntil(b"\r\n\r\n")
                length = LENGTH.search(head)
                body = await reader.readexactly(int(length[1])) if length else b""
                self.requests.append(head + body)
                await self._answer(reader, writer, head, json.loads(body) if body else {})
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes, message: dict[str, Any]
    ) -> None:
        method = message.get("method", head.split(b" ", 1)[0].decode())
        self.methods.append(method)
        session = SESSION.search(head)
        if session and int(session[1]) not in self._open:
            await say(writer, 404, b"")
            return
        match method:
            case "initialize":
                self.sessions += 1
                self._open.add(self.sessions)
                version = message["params"]["protocolVersion"]
                info = {"name": "rogue", "version": "1"}
                result = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}
                await say_json(writer, message, result, f"mcp-session-id: {self.sessions}\r\n")
            case "tools/list":
                await say_json(writer, message, {"tools": self._tools(session)})
            case "tools/call":
                await self._call(reader, writer, message, session[1].decode() if session else "")
            case "GET":
                await self._resume(writer, head)
            case "DELETE":
                await say(writer, 200, b"")
            case _ if "id" in message:
                error = {"code": -32601, "message": "Method not found"}
                await say(writer, 200, json.dumps({"jsonrpc": "2.0", "id": message["id"], "error": error}).encode())
            case _:
                await say(writer, 202, b"")

    def _tools(self, session: "re.Match[bytes] | None") -> list[dict[str, Any]]:
        start = session[1].decode() if session else ""
        first = f"Start {min(int(start or 0), 2)}." if self._changes else "A tool."
        return [
            {"name": name, "description": first if name == "fine" else "A tool.", "inputSchema": {"type": "object"}}
            for name in TOOLS
        ]

    async def _call(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, message: dict[str, Any], session: str
    ) -> None:
        match message["params"]["name"]:
            case "dies":
                writer.close()
            case "hangs":
                await reader.read(1)  # until the other side hangs up
                self.hung_up.set()
            case "garbage":
                await say(writer, 200, b"<html>this is no JSON-RPC</html>", "text/html")
            case "floods":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n")
                while True:
                    writer.write(b"x" * 65536)
                    await writer.drain()
            case "breaks":
                await say(writer, 200, b'{"jsonrpc": "2.0", "id": 1, "resul')
            case _ if self._streams:
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
                    + f"id: {message['id']}\nretry: 1\ndata:\n\n".encode()
                )
                await writer.drain()
                writer.close()
            case _:
                await say_json(writer, message, fine(session))

    async def _resume(self, writer: asyncio.StreamWriter, head: bytes) -> None:
        found = re.search(rb"last-event-id: *(\S+)", head, re.IGNORECASE)
        if not found:
            await say(writer, 405, b"")
            return
        answer = json.dumps({"jsonrpc": "2.0", "id": int(found[1]), "result": fine("resumed")})
        await say(writer, 200, f"id: x\nevent: message\ndata: {answer}\n\n".encode(), "text/event-stream")


def fine(session: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": f"fine, start {session}"}]}


async def say(
    writer: asyncio.StreamWriter, status: int, body: bytes, kind: str = "application/json", more: str = ""
) -> None:
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    writer.write(head.encode() + body)
    await writer.drain()


async def say_json(writer: asyncio.StreamWriter, message: dict[str, Any], result: object, more: str = "") -> None:
    body = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode()
    await say(writer, 200, body, more=more)


@asynccontextmanager
async def rogue_mcp(*, changes: bool = False, streams: bool = False, port: int = 0) -> AsyncIterator[RogueMcp]:
    rogue = RogueMcp(changes=changes, streams=streams)
    server = await asyncio.start_server(rogue.serve, "127.0.0.1", port)
    rogue.port = server.sockets[0].getsockname()[1]
    try:
        yield rogue
    finally:
        server.close()
        rogue.close_all()


@asynccontextmanager
async def silent_http() -> AsyncIterator[int]:
    """The port of one who takes every byte and never answers."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
