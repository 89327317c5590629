"""faos trace [ID]"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from faos_cli.options import output_option, with_node

if TYPE_CHECKING:
    from faos_cli.context import Context
    from faos_cli.traces import Span, Trace

# Of a span's attributes, what its name does not say already.
TOLD = ("faos.state", "faos.revision", "faos.step", "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens")
NAMED = {"gen_ai.usage.input_tokens": "in", "gen_ai.usage.output_tokens": "out"}


@click.command("trace")
@click.argument("named", metavar="[RUN_ID|TRACE_ID]", required=False)
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="At most so many.")
@click.option("--all", "-a", "with_looks", is_flag=True, help="With calls that only looked at something.")
@output_option("table", "json")
@with_node
def trace(context: "Context", named: str | None, limit: int, with_looks: bool, output: str) -> None:
    """What this machine's node and control plane did and how long each part took, out of their own files.

    Without an ID: the newest traces. Of a run: its turns and tool calls. Of a trace: every part of it, for example of
    an apply, from the call to each node's phases. Names, times and codes; never content.

    \b
    Examples:
      faos trace
      faos trace RUN_ID
      faos trace -o json --limit 100
    """
    from faos_cli.errors import TRACE_UNKNOWN
    from faos_cli.traces import read_traces, trace_id_of
    from faos_core.errors import NotFoundError

    found = read_traces(folders_of(context))
    if named is None:
        show_list([each for each in found if with_looks or not each.is_look][:limit], output)
        return
    wanted = trace_id_of(named)
    matching = [each for each in found if each.trace_id.startswith(wanted)]
    if len(matching) != 1:
        raise NotFoundError(TRACE_UNKNOWN, named=named, found=len(matching))
    show_one(matching[0], output)


def folders_of(context: "Context") -> list[Path]:
    """Raises SetupError where the context names no folder of this machine."""
    if context.control_plane_data_dir is None:
        return [context.require_node()]
    return [folder for folder in (context.control_plane_data_dir, context.node_data_dir) if folder]


def show_list(traces: "list[Trace]", output: str) -> None:
    from faos_cli.output import age, duration, print_json, print_table

    if output == "json":
        print_json({"items": [document(each) for each in traces]})
    elif traces:
        rows = [
            (
                each.trace_id,
                each.first.service,
                each.first.what,
                age(moment_of(each.began_ns)),
                duration(each.duration_s),
                str(len(each.spans)),
                " ".join(each.errors),
            )
            for each in traces
        ]
        print_table(("TRACE", "OF", "WHAT", "AGE", "TOOK", "SPANS", "ERRORS"), rows)
    else:
        hint = 'Traces are kept where [telemetry] in node.toml or control-plane.toml says to = "file".'
        click.echo(f"There are no traces here yet. {hint}", err=True)


def show_one(found: "Trace", output: str) -> None:
    from faos_cli.output import clock_time, duration, print_json, print_table

    if output == "json":
        print_json(document(found))
        return
    click.echo(f"trace {found.trace_id}   {clock_time(moment_of(found.began_ns))}   {duration(found.duration_s)}\n")
    rows = [
        (
            "  " * depth + span.what,
            span.service,
            f"+{duration(offset_s(span, found))}",
            duration(span.duration_s),
            details(span),
        )
        for depth, span in found.tree()
    ]
    print_table(("WHAT", "OF", "AT", "TOOK", ""), rows)


def offset_s(span: "Span", whole: "Trace") -> float:
    return (span.began_ns - whole.began_ns) / 1e9


def details(span: "Span") -> str:
    told = [
        f"{NAMED.get(key, key.rsplit('.', 1)[-1])}={span.attributes[key]}" for key in TOLD if key in span.attributes
    ]
    error = span.attributes.get("error.type", "error") if span.has_failed else ""
    return " ".join([*told, *filter(None, [error])])


def document(found: "Trace") -> dict[str, Any]:
    """For programs."""
    from dataclasses import asdict

    return {"traceId": found.trace_id, "durationSeconds": found.duration_s, "spans": [asdict(it) for it in found.spans]}


def moment_of(at_ns: int) -> Any:
    """An aware time."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(at_ns / 1e9, UTC)
