"""What a model is shown: one neutral shape for every turn, which small models can follow.

The system message is the agent's instructions. Everything else is one user message: what was retrieved and what
tools said, as context in the same shape, then what is asked.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from data_plane.agents.steps import MessageRecord, PassageRecord
from data_plane.tools.interfaces import ToolDefinition

SPOKEN = {"true": "yes", "false": "no", "null": "not known"}
TOOL_FAILED_SENTENCE = "The tool failed and gave no result."
MALFORMED_SENTENCE = "The last reply was not valid. Reply with JSON that the schema accepts."


def answer_messages(instructions: str, question: str, context: Sequence[str]) -> list[MessageRecord]:
    """The turn that the user reads. context: blocks of `passage_block` and `result_block`, best first."""
    return _messages(instructions, context, question)


def arguments_messages(
    instructions: str, question: str, context: Sequence[str], *, tools: Sequence[ToolDefinition], malformed: int
) -> list[MessageRecord]:
    """A turn under a JSON schema. malformed: how many replies to this very turn were not valid."""
    offered = "\n".join(f"- {tool.name}: {tool.description}" for tool in tools)
    task = f"Tools:\n{offered}\n\nReply with the JSON of the tool call for this request: {question}"
    return _messages(instructions, context, task + f"\n\n{MALFORMED_SENTENCE}" * malformed)


def decision_messages(
    instructions: str, question: str, context: Sequence[str], *, tools: Sequence[ToolDefinition], malformed: int
) -> list[MessageRecord]:
    """The turn in which the model chooses between a tool and answering."""
    offered = "\n".join(f"- {tool.name}: {tool.description}" for tool in tools)
    task = (
        f'Tools:\n{offered}\n- answer: reply to the user now\n\nReply with JSON: the next tool call, or {{"tool": '
        f'"answer"}} when the context holds what is needed. Request: {question}'
    )
    return _messages(instructions, context, task + f"\n\n{MALFORMED_SENTENCE}" * malformed)


def passage_block(passage: PassageRecord) -> str:
    return passage["text"]


def result_block(tool: str, text: str) -> str:
    """text: of the tool, or `TOOL_FAILED_SENTENCE`. JSON becomes sentences: small models do not read it (measured,
    a number in it was copied 8 of 24 times, from a sentence 18 of 24)."""
    return f"{tool}: {sentences_of(text)}"


def sentences_of(text: str) -> str:
    """A JSON object as "The reservation number is 7." for each of its values; any other text as it is."""
    try:
        value = json.loads(text)
        return " ".join(_sentences(value, "")) if isinstance(value, dict) else text
    except (ValueError, RecursionError):
        return text


def _sentences(value: Any, name: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _sentences(inner, f"{name} {key}".strip().replace("_", " "))
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        for item in value:
            yield from _sentences(item, name)
    else:
        yield f"The {name} is {_spoken(value)}."


def _spoken(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_spoken(item) for item in value) or "none"
    return SPOKEN.get(json.dumps(value), str(value))


def _messages(instructions: str, context: Sequence[str], task: str) -> list[MessageRecord]:
    body = "Context:\n" + "\n\n".join(context) + f"\n\nQuestion: {task}" if context else task
    system: list[MessageRecord] = [{"role": "system", "content": instructions}] if instructions else []
    return [*system, {"role": "user", "content": body}]
