"""python stub_model.py PORT LOG: a model server that speaks Ollama's protocol as far as a node asks, and answers each
question with a number that no answer had before.

LOG gets a line of JSON per question, as it comes: {"question", "answer", "at_s"} (monotonic).
"""

import asyncio
import json
import re
import secrets
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

TAG = "stub:1b"
QUESTION = re.compile(r"question [\d-]+")
TURN_S = 0.3
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, log: Path) -> None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        length = LENGTH.search(head)
        body = await reader.readexactly(int(length[1])) if length else b""
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nConnection: close\r\n\r\n")
        if b"/api/chat" in head:
            await answer(body.decode(), writer, log)
        else:
            writer.write(json.dumps({"details": {}, "model_info": {}, "capabilities": ["completion"]}).encode())
        await writer.drain()
    except (OSError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def answer(body: str, writer: asyncio.StreamWriter, log: Path) -> None:
    question, said = QUESTION.findall(body)[-1], secrets.token_hex(8)
    with log.open("a") as lines:
        lines.write(json.dumps({"question": question, "answer": said, "at_s": time.monotonic()}) + "\n")
    for done, content in ((False, "It is "), (False, said), (True, "")):
        piece = {"model": TAG, "created_at": "2026-01-01T00:00:00Z", "done": done}
        piece |= {"message": {"role": "assistant", "content": content}}
        piece |= {"done_reason": "stop", "prompt_eval_count": 9, "eval_count": 3} if done else {}
        writer.write(json.dumps(piece).encode() + b"\n")
        await writer.drain()
        await asyncio.sleep(TURN_S / 3)


@asynccontextmanager
async def stub_model(log: Path) -> AsyncIterator[int]:
    """One in this process; its port."""
    log.touch()
    server = await asyncio.start_server(lambda reader, writer: serve(reader, writer, log), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def main(port: int, log: Path) -> None:
    server = await asyncio.start_server(lambda reader, writer: serve(reader, writer, log), "127.0.0.1", port)
    sys.stdout.write("stub is ready\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2])))
