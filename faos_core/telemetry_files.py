"""OTLP in local files: one request a line, in OTLP's JSON, with rotation.

Source: https://opentelemetry.io/docs/specs/otel/protocol/file-exporter/ and OTLP's mapping to JSON, which has ids in
hex and enums as numbers.
"""

import asyncio
import base64
import json
import os
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

IDS = frozenset({"traceId", "spanId", "parentSpanId"})


class FileSink:
    """traces.jsonl and metrics.jsonl in a folder of mode 0700. Each is at most `file_bytes` (and one request) long;
    then it becomes traces.1.jsonl, that traces.2.jsonl, and so on; of each signal `files` are kept."""

    def __init__(self, folder: Path, *, file_bytes: int, files: int) -> None:
        """No I/O."""
        self._folder = folder
        self._file_bytes = file_bytes
        self._files = files

    async def send(self, signal: str, request: Message) -> None:
        """Not fsynced: losing the last lines to a power cut loses nothing that was promised. Raises OSError."""
        await asyncio.to_thread(self._append, signal, request)

    def _append(self, signal: str, request: Message) -> None:
        line = json.dumps(as_otlp_json(request), separators=(",", ":")).encode() + b"\n"
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / f"{signal}.jsonl"
        if path.exists() and path.stat().st_size + len(line) > self._file_bytes:
            self._rotate(signal)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab") as file:
            file.write(line)

    def _rotate(self, signal: str) -> None:
        paths = [self._folder / f"{signal}.jsonl"]
        paths += [self._folder / f"{signal}.{number}.jsonl" for number in range(1, self._files)]
        paths[-1].unlink(missing_ok=True)
        for older, newer in zip(reversed(paths), reversed(paths[:-1]), strict=False):
            if newer.exists():
                newer.replace(older)


def as_otlp_json(request: Message) -> dict[str, Any]:
    found: dict[str, Any] = MessageToDict(request, use_integers_for_enums=True)
    _ids_in_hex(found)
    return found


def _ids_in_hex(value: Any) -> None:
    if isinstance(value, list):
        for each in value:
            _ids_in_hex(each)
    elif isinstance(value, dict):
        for key, each in value.items():
            if key in IDS and isinstance(each, str):
                value[key] = base64.b64decode(each).hex()
            else:
                _ids_in_hex(each)
