"""A run as people read it afterwards. Shapes of requests and results: data_plane/agents/steps.py."""

import json
from typing import Any

import click
from google.protobuf.json_format import MessageToDict

from faos.site.v1 import site_pb2 as site
from faos_cli.output import (
    aligned,
    clock_time,
    duration,
    enum_text,
    is_decorated,
    moment,
    print_facts,
    printable,
)

LONGEST = 100  # characters of a summary
CANCELLED = "run.cancelled"


def show_run(answer: site.GetRunResponse) -> None:
    """The run, its steps in order, and its answer."""
    run = answer.run
    print_facts(
        {
            "run": run.run_id,
            "agent": f"{run.agent}, revision {run.revision}",
            "state": enum_text(run, "state"),
            "began": clock_time(moment(run, "started_at")),
            "took": took(run),
            "error": run.error_code,
            "question": run.input,
        }
    )
    click.echo()
    for line in step_lines(list(answer.steps)):
        click.echo(line)
    click.echo()
    print_facts({"answer": run.output})


def step_lines(steps: list[site.Step]) -> list[str]:
    """One aligned line per step, and its summary below it."""
    heads = aligned([step_cells(step) for step in steps]) if steps else []
    lines = []
    for head, step in zip(heads, steps, strict=True):
        lines.append(click.style(head, bold=True) if is_decorated() else head)
        lines.append(f"     {printable(step_summary(step, longest=400))}")
    return lines


def step_cells(step: site.Step) -> list[str]:
    attempts = f"{step.attempts} attempts" if step.attempts > 1 else ""
    return [f"{step.sequence:>2}", enum_text(step, "kind").lower(), step.name, took(step), attempts, step.error_code]


def took(timed: site.Run | site.Step) -> str:
    """From its start to its end; "in progress" while there is none."""
    started, finished = moment(timed, "started_at"), moment(timed, "finished_at")
    if started is None or finished is None:
        return "in progress"
    return duration((finished - started).total_seconds())


def step_summary(step: site.Step, *, longest: int = LONGEST) -> str:
    """What went in and what came out, in one line."""
    request, result = MessageToDict(step.request), MessageToDict(step.result)
    if step.error_code == CANCELLED:
        return "abandoned: the run was cancelled"
    if step.error_code:
        return f"failed: {step.error_code}" + (f": {shortened(result['text'], longest)}" if result.get("text") else "")
    if not step.HasField("finished_at"):
        return "begun, not finished"
    match step.kind:
        case site.STEP_KIND_RETRIEVAL:
            return retrieval_summary(result, longest)
        case site.STEP_KIND_ROUTING:
            return routing_summary(request, result)
        case site.STEP_KIND_MODEL:
            return model_summary(request, result, longest)
        case site.STEP_KIND_TOOL:
            arguments = json.dumps(request.get("arguments", {}), ensure_ascii=False)
            return shortened(f"{arguments} → {result.get('text', '')}", longest)
    return ""


def retrieval_summary(result: dict[str, Any], longest: int) -> str:
    passages = result.get("passages", [])
    if not passages:
        return "no passage found"
    best = passages[0]
    where = f"{best['document']} #{best['chunk']:.0f} ({best['score']:.2f})"
    return shortened(f"{len(passages)} passage(s), best {where}: {best['text']}", longest)


def routing_summary(request: dict[str, Any], result: dict[str, Any]) -> str:
    passage = result.get("passage_score")
    beside = f"; passages {passage:.2f}" if passage is not None else ""
    scores = [
        f"{each['server']}/{each['tool']} {score:.2f}"
        for each, score in zip(request.get("candidates", []), result.get("scores", []), strict=False)
    ]
    chosen = f"{result['server']}/{result['tool']}" if result.get("tool") else "the passages"
    return f"chose {chosen} ({', '.join(scores[:4])}{beside})"


def model_summary(request: dict[str, Any], result: dict[str, Any], longest: int) -> str:
    tokens = f"{result.get('input_tokens', 0):.0f} → {result.get('output_tokens', 0):.0f} tokens"
    return shortened(f"{request.get('purpose', '')}, {tokens}: {result.get('text', '')}", longest)


def shortened(text: str, longest: int) -> str:
    """In one line of at most so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"
