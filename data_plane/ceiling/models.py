"""The site's ceiling: what `site.toml` allows at most. No RPC, resource or root rotation changes it.

Everything that could reach outside the node's own process (a command, a path, a host) is defined here under a
name; resources from the cloud only refer to the names.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

# What opens something of the site to agents, or says what they may do with it: taken only where site.toml admits it.
SENSITIVE_KINDS = frozenset({"Model", "ToolServer", "KnowledgeBase", "Policy"})


class Network(StrEnum):
    """What network a program gets."""

    NONE = "none"  # a network namespace with nothing in it, not even loopback to the host


class DoorCeiling(StrEnum):
    """Highest data class that may pass a door; ordered as DataClass is."""

    OPERATIONAL = "operational"
    IDENTIFIER = "identifier"
    CUSTOMER = "customer"


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A GGUF file that this site runs."""

    name: str
    file: Path
    sha256: str  # 64 hex digits, checked before each load


@dataclass(frozen=True, slots=True)
class EmbedderFiles:
    """The ONNX sentence embedder and its tokenizer."""

    model: Path
    model_sha256: str
    tokenizer: Path
    tokenizer_sha256: str


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of documents that knowledge bases may read."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class Program:
    """A stdio MCP server that the site itself decided to run."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    network: Network = Network.NONE
    readable: tuple[Path, ...] = ()  # files and folders it sees read-only besides the system's own
    writable: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server that the node may ask over HTTP: on this machine, at the site, or beyond."""

    name: str
    url: str  # http or https, host, port and path; requests stay under it
    data_class: DoorCeiling  # the highest that may be sent there
    ca_file: Path | None = None  # PEM, instead of the system's authorities and those of the node's `ca_dir`
    through_proxy: bool = False  # the node's proxy; without it the node goes straight there


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds on any run, whatever an Agent asks for."""

    max_turns: int = 16
    max_tool_calls: int = 32
    max_output_tokens: int = 8192
    max_seconds: int = 900
    concurrent_runs: int = 64
    tool_result_bytes: int = 65536
    context_tokens: int = 32768  # of one model: what it takes of the machine's memory
    tool_servers: int = 32  # run or asked at once
    concurrent_tool_calls: int = 64  # of one tool server


@dataclass(frozen=True, slots=True)
class Ceiling:
    """`site.toml`, parsed; every path absolute."""

    models: dict[str, ModelFile] = field(default_factory=dict)
    embedder: EmbedderFiles | None = None
    folders: dict[str, Folder] = field(default_factory=dict)
    programs: dict[str, Program] = field(default_factory=dict)
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    doors: dict[str, DoorCeiling] = field(default_factory=lambda: {"tunnel": DoorCeiling.IDENTIFIER})
    # Kinds, as in YAML, of which nothing new is taken without the site's own yes, which nobody can give yet.
    approval_required: frozenset[str] = SENSITIVE_KINDS
