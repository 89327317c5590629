"""Structured logs: one JSON object a line in production, readable lines on a terminal. Never customer content."""

import json
import logging
import sys
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from faos_core import names, trace_context

STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class LogLevel(StrEnum):
    """Least severity that is logged."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


class LogFormat(StrEnum):
    """How log lines look."""

    JSON = "json"  # one object a line
    TEXT = "text"  # lines for people


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What the caller gave as `extra`; then the trace and span that are under way, if any."""
    return {key: value for key, value in vars(record).items() if key not in STANDARD} | trace_fields()


def trace_fields() -> dict[str, str]:
    if (context := trace_context.current()) is None:
        return {}
    return {names.TRACE_ID: f"{context.trace_id:032x}", names.SPAN_ID: f"{context.span_id:016x}"}


class JsonFormatter(logging.Formatter):
    """event, level, logger, at (RFC 3339 UTC) and the fields. Exceptions go by type and place, not by message:
    a message may quote what a customer wrote."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        entry: dict[str, Any] = {
            "at": at,
            "level": record.levelname,
            "logger": record.name,
            "event": record.getMessage(),
        }
        entry |= fields_of(record)
        if record.exc_info and record.exc_info[0]:
            entry["exception"] = record.exc_info[0].__name__
            entry["raised_at"] = raised_at(record)
        return json.dumps(entry, default=str, separators=(",", ":"))


class LineFormatter(logging.Formatter):
    """`12:00:00 INFO event key=value …` for people."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        fields = " ".join(f"{key}={value}" for key, value in fields_of(record).items())
        exception = (
            f" {record.exc_info[0].__name__} at {raised_at(record)}" if record.exc_info and record.exc_info[0] else ""
        )
        return f"{at} {record.levelname:<7} {record.getMessage()} {fields}{exception}".rstrip()


def raised_at(record: logging.LogRecord) -> list[str]:
    """file:line:function of each frame, outermost first."""
    traceback = record.exc_info[2] if record.exc_info else None
    places = []
    while traceback:
        code = traceback.tb_frame.f_code
        places.append(f"{code.co_filename.rsplit('/', 1)[-1]}:{traceback.tb_lineno}:{code.co_name}")
        traceback = traceback.tb_next
    return places


def configure(level: LogLevel, log_format: LogFormat) -> None:
    """Send every log of the process to standard error. Call once, first thing in a process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format is LogFormat.JSON else LineFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("httpx", "httpx2", "httpcore", "httpcore2", "chromadb", "mcp", "tuf", "alembic", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
