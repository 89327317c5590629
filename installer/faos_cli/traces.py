"""Traces out of the files in which a plane keeps its own: OTLP's JSON, a request a line."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from hashlib import sha256
from pathlib import Path
from typing import Any

FOLDER = "telemetry"
PATTERN = "traces*.jsonl"
LOOKS = ("Get", "List")  # calls that change nothing
FAILED = 2  # STATUS_CODE_ERROR


@dataclass(frozen=True, slots=True)
class Span:
    """One piece of work. Times: nanoseconds since 1970; ids in hex, parent_id "" for a root."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    service: str
    began_ns: int
    ended_ns: int
    attributes: Mapping[str, str]
    has_failed: bool

    @property
    def what(self) -> str:
        """The name, with the call's where it is one."""
        return f"{self.name} {self.attributes.get('rpc.method', '')}".strip()

    @property
    def duration_s(self) -> float:
        return max(0, self.ended_ns - self.began_ns) / 1e9


@dataclass(slots=True)
class Trace:
    """All spans of one trace that are in the files; the files of more than one plane make it whole."""

    trace_id: str
    spans: list[Span] = field(default_factory=list)

    @property
    def began_ns(self) -> int:
        return min(span.began_ns for span in self.spans)

    @property
    def duration_s(self) -> float:
        return (max(span.ended_ns for span in self.spans) - self.began_ns) / 1e9

    @property
    def first(self) -> Span:
        """The root, or what began first of what is there."""
        return self.tree()[0][1]

    @property
    def is_look(self) -> bool:
        """Whether somebody only looked at something."""
        methods = [span.attributes.get("rpc.method", "").rpartition("/")[2] for span in self.spans]
        return all(method.startswith(LOOKS) for method in methods)

    @property
    def errors(self) -> list[str]:
        """Codes, each once."""
        found = [span.attributes.get("error.type", "") for span in self.spans if span.has_failed]
        return list(dict.fromkeys(filter(None, found)))

    def tree(self) -> list[tuple[int, Span]]:
        """Depth and span, parents before children, in the order in which they began. What has its parent in nobody's
        file stands at the top."""
        children: dict[str, list[Span]] = {}
        known = {span.span_id for span in self.spans}
        for span in sorted(self.spans, key=lambda each: each.began_ns):
            children.setdefault(span.parent_id if span.parent_id in known else "", []).append(span)
        found = list(below("", children, 0))
        while children:  # two that are each other's parent: no such thing is written here, but a file can be damaged
            found += below(next(iter(children)), children, 0)
        return found


def below(parent_id: str, children: dict[str, list[Span]], depth: int) -> Iterator[tuple[int, Span]]:
    """Each span once."""
    for span in children.pop(parent_id, ()):
        yield depth, span
        yield from below(span.span_id, children, depth + 1)


def trace_id_of(named: str) -> str:
    """A run's, of its id; anything else is meant as the id of a trace."""
    return sha256(named.encode()).hexdigest()[:32] if named.startswith("run-") else named.lower()


def read_traces(data_dirs: Sequence[Path]) -> list[Trace]:
    """Newest first. A line that is cut off, or none of OTLP's, is passed over. Raises OSError, also for a folder that
    may not be looked into: that there is nothing in it would not be true."""
    found: dict[str, Trace] = {}
    for folder in data_dirs:
        for file in files_in(folder / FOLDER):
            for span in spans_in(file):
                found.setdefault(span.trace_id, Trace(span.trace_id)).spans.append(span)
    return sorted(found.values(), key=lambda trace: trace.began_ns, reverse=True)


def files_in(folder: Path) -> list[Path]:
    """None where there is no such folder. Raises OSError."""
    try:
        return sorted(folder / name for name in os.listdir(folder) if fnmatch(name, PATTERN))  # noqa: PTH208  # raises
    except FileNotFoundError:
        return []


def spans_in(file: Path) -> Iterator[Span]:
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                yield from spans_of(json.loads(line))
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                continue


def spans_of(request: Mapping[str, Any]) -> list[Span]:
    """Raises ValueError, TypeError, KeyError, AttributeError for what is no request of OTLP's."""
    return [
        span_of(span, attributes_of(resource.get("resource", {})).get("service.name", ""))
        for resource in request["resourceSpans"]
        for scope in resource.get("scopeSpans", ())
        for span in scope.get("spans", ())
    ]


def span_of(span: Mapping[str, Any], service: str) -> Span:
    return Span(
        trace_id=str(span["traceId"]),
        span_id=str(span["spanId"]),
        parent_id=str(span.get("parentSpanId", "")),
        name=str(span["name"]),
        service=service.removeprefix("faos-"),
        began_ns=int(span["startTimeUnixNano"]),
        ended_ns=int(span["endTimeUnixNano"]),
        attributes=attributes_of(span),
        has_failed=span.get("status", {}).get("code") == FAILED,
    )


def attributes_of(message: Mapping[str, Any]) -> dict[str, str]:
    return {str(each["key"]): str(next(iter(each["value"].values()), "")) for each in message.get("attributes", ())}
