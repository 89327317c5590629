"""The two questions: one that needs a document of the site, one that needs its tool."""

import time
from collections.abc import Callable
from dataclasses import dataclass

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


def proof_of_document(steps: list[site.Step], numbers: Numbers) -> Proof:
    """The chunk that was retrieved holds the number, and the model's output does."""
    for step in steps:
        if step.kind == site.STEP_KIND_RETRIEVAL:
            for passage in step.result["passages"] if "passages" in step.result else ():
                if numbers.document in passage["text"]:
                    where = f"{passage['document']}, chunk {int(passage['chunk'])}, score {passage['score']:.2f}"
                    said = model_said(steps, numbers.document)
                    return Proof(said, f"retrieved {where}; {'the model said it' if said else 'the model did not say it'}")
    return Proof(False, f"no retrieved chunk holds {numbers.document}")


def proof_of_tool(steps: list[site.Step], numbers: Numbers) -> Proof:
    """The tool was called, its result holds the number, and the model's output does."""
    for step in steps:
        if step.kind == site.STEP_KIND_TOOL and numbers.tool in str(step.result["text"] if "text" in step.result else ""):
            arguments = ", ".join(f"{key}={value}" for key, value in step.request["arguments"].items())
            said = model_said(steps, numbers.tool)
            called = f"{step.request['server']}/{step.request['tool']}({arguments}) returned it"
            return Proof(said, f"{called}; {'the model said it' if said else 'the model did not say it'}")
    called_tools = sum(step.kind == site.STEP_KIND_TOOL for step in steps)
    return Proof(False, f"no tool returned {numbers.tool} ({called_tools} called)")


def model_said(steps: list[site.Step], number: str) -> bool:
    """In the turn that the user reads."""
    outputs = [
        str(step.result["text"])
        for step in steps
        if step.kind == site.STEP_KIND_MODEL and "text" in step.result and step.request["purpose"] == "answer"
    ]
    return any(number in text for text in outputs)
