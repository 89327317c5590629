"""The steps of a run, and the shapes of what goes into them and comes out: what the journal holds, sealed, and
what a `Step` of the site API carries as `request` and `result`.

    kind        request             result
    RETRIEVAL   RetrievalRequest    RetrievalResult
    ROUTING     RoutingRequest      RoutingResult
    MODEL       ModelRequest        ModelResult
    TOOL        ToolRequest         ToolOutcome

A failed step has an error code and an empty result, but for `{"overflow": true}` of a MODEL step whose messages
did not fit the model's context. Where a step was begun under another revision than its run, its request also has
`revision`. A request says everything that the step needs, so that a step cut off by a crash is begun again from its own
record and not from a definition that may have changed.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NotRequired, TypedDict


class StepKind(StrEnum):
    RETRIEVAL = "retrieval"
    ROUTING = "routing"
    MODEL = "model"
    TOOL = "tool"


class RunState(StrEnum):
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    LIMITED = "limited"  # stopped by one of its limits
    CANCELLED = "cancelled"  # stopped by a person


class Purpose(StrEnum):
    """What a model turn is for."""

    ARGUMENTS = "arguments"  # JSON arguments of a tool that is already chosen
    CALL = "call"  # JSON: which tool, and its arguments
    DECISION = "decision"  # JSON: which tool and its arguments, or that it is time to answer
    ANSWER = "answer"  # the text that the user reads; the only purpose that is streamed


class PassageRecord(TypedDict):
    knowledge_base: str
    document: str
    chunk: int
    text: str
    score: float


class RetrievalRequest(TypedDict):
    query: str
    knowledge: list[str]
    top_k: int


class RetrievalResult(TypedDict):
    passages: list[PassageRecord]  # best first


class Candidate(TypedDict):
    server: str
    tool: str
    text: str  # what is embedded: name and description


class RoutingRequest(TypedDict):
    query: str
    candidates: list[Candidate]
    passage_score: float | None  # of the best passage; None without one


class RoutingResult(TypedDict):
    scores: list[float]  # cosine similarity per candidate, in their order
    passage_score: float | None
    server: str  # of the chosen tool; "" when the passages won
    tool: str


class MessageRecord(TypedDict):
    role: str
    content: str


class ModelRequest(TypedDict):
    purpose: str
    messages: list[MessageRecord]
    json_schema: dict[str, Any] | None
    sampling: dict[str, Any]  # fields of data_plane.models.interfaces.Sampling
    labels: list[str]  # of the untrusted text in the messages
    server: NotRequired[str]  # for ARGUMENTS: the tool that they are for
    tool: NotRequired[str]


class ModelResult(TypedDict):
    text: str
    input_tokens: int
    output_tokens: int
    finish_reason: str


class ToolRequest(TypedDict):
    server: str
    tool: str
    arguments: dict[str, Any]
    labels: list[str]


class ToolOutcome(TypedDict):
    text: str
    is_error: bool
    structured: dict[str, Any] | None
    truncated: bool


@dataclass(frozen=True, slots=True)
class StepRequest:
    """A step to do: what `decide` asks for and what `begin_step` records."""

    kind: StepKind
    name: str  # knowledge bases, "router", model or tool: names of the configuration, never customer text
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """What doing it came to. error_code: of the registry, "" when it succeeded."""

    result: dict[str, Any]
    error_code: str = ""


@dataclass(frozen=True, slots=True)
class RecordedStep:
    """A row of the journal. finished_at is None for a step that was begun and never recorded."""

    sequence: int  # counts from 1 within the run
    request: StepRequest
    outcome: StepOutcome | None
    started_at: datetime
    finished_at: datetime | None
    attempts: int
    idempotency_key: str
    elapsed_s: float = 0.0  # how long the run had been under way when it was first begun; to the millisecond


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ends."""

    state: RunState
    output: str = ""
    error_code: str = ""
