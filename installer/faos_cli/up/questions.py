"""The two questions: one that needs a document of the site, one that needs its tool."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from google.protobuf.json_format import MessageToDict

from faos.site.v1 import site_pb2 as site
from faos_cli.site_client import SiteClient
from faos_cli.up.site_files import Numbers

AGENT = "assistant"
DOCUMENT_QUESTION = "What is the number of the oxygen emergency line?"
TOOL_QUESTION = "What is the reservation number for a free bed in cardiology?"


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished run, as it was streamed."""

    question: str
    run_id: str
    text: str
    state: int  # a RunState
    error_code: str
    first_token_at_s: float | None  # monotonic
    took_s: float


async def ask(client: SiteClient, question: str, *, on_text: Callable[[str], None]) -> Answer:
    """Stream one run to its end. Raises what the node raised."""
    began_s, first_s = time.monotonic(), None
    run_id, finished = "", site.RunFinished()
    async for event in client.stream_run(AGENT, question):
        run_id = event.run_id
        if event.HasField("text_delta"):
            first_s = first_s or time.monotonic()
            on_text(event.text_delta.text)
        if event.HasField("finished"):
            finished = event.finished
    took_s = time.monotonic() - began_s
    return Answer(question, run_id, finished.output, finished.state, finished.error_code, first_s, took_s)


@dataclass(frozen=True, slots=True)
class Proof:
    """Whether an answer came from where it should, and how that is known."""

    is_right: bool
    text: str


def proof_of_document(steps: Sequence[site.Step], numbers: Numbers) -> Proof:
    """The chunk that was retrieved holds the number, and the model's output does."""
    for step in of_kind(steps, site.STEP_KIND_RETRIEVAL):
        for passage in MessageToDict(step.result).get("passages", ()):
            if numbers.document in passage["text"]:
                where = f"{passage['document']}, chunk {int(passage['chunk'])}, score {passage['score']:.2f}"
                return said_by_model(steps, numbers.document, f"retrieved {where}")
    return Proof(False, f"no retrieved chunk holds {numbers.document}")


def proof_of_tool(steps: Sequence[site.Step], numbers: Numbers) -> Proof:
    """The tool was called, its result holds the number, and the model's output does."""
    calls = list(of_kind(steps, site.STEP_KIND_TOOL))
    for step in calls:
        request, result = MessageToDict(step.request), MessageToDict(step.result)
        if numbers.tool in result.get("text", ""):
            arguments = ", ".join(f"{key}={value}" for key, value in request["arguments"].items())
            called = f"{request['server']}/{request['tool']}({arguments}) returned it"
            return said_by_model(steps, numbers.tool, called)
    return Proof(False, f"no tool returned {numbers.tool} ({len(calls)} called)")


def said_by_model(steps: Sequence[site.Step], number: str, so_far: str) -> Proof:
    """Whether the turn that the user reads has the number."""
    turns = [step for step in of_kind(steps, site.STEP_KIND_MODEL) if step.request["purpose"] == "answer"]
    said = any(number in MessageToDict(turn.result).get("text", "") for turn in turns)
    return Proof(said, f"{so_far}; the model {'said' if said else 'did not say'} it")


def of_kind(steps: Sequence[site.Step], kind: int) -> Iterator[site.Step]:
    return (step for step in steps if step.kind == kind)
