"""faos run AGENT TEXT · faos run show ID · faos runs"""

import sys
from typing import TYPE_CHECKING, Any

import click

from faos_cli.options import output_option, with_node

if TYPE_CHECKING:
    from faos.site.v1 import site_pb2 as site
    from faos_cli.context import Context

DEFAULT_LIMIT = 20


@click.command("run")
@click.argument("agent")
@click.argument("text", nargs=-1, required=True)
@click.option("--subject", default="", help="Data subject that the run concerns; its key seals the run.")
@output_option("text", "json")
@with_node
def run(context: "Context", agent: str, text: tuple[str, ...], subject: str, output: str) -> None:
    """Ask an agent of this machine's node; TEXT '-' is read from standard input. Or show a run step by step.

    The run outlives this command: interrupted, it goes on, and `faos runs` finds it.

    \b
    Examples:
      faos run assistant "What is the number of the oxygen emergency line?"
      faos run assistant - < question.txt
      faos run show ID
      faos run show ID -o json
    """
    import asyncio

    if agent == "show":
        if len(text) > 1:
            raise click.UsageError("faos run show takes one run's ID.")
        asyncio.run(show(context, text[0], output))
        return
    question = sys.stdin.read() if text == ("-",) else " ".join(text)
    try:
        asyncio.run(ask(context, agent, question, subject, output))
    except KeyboardInterrupt:
        click.echo("\nWhat was begun goes on at the node: faos runs", err=True)
        raise


async def ask(context: "Context", agent: str, question: str, subject: str, output: str) -> None:
    """Stream one run. Raises InvalidError when it did not succeed."""
    from faos_cli.answer import screen
    from faos_cli.site_client import connect

    shown = screen()
    async with connect(context.require_node()) as client:
        async for event in client.stream_run(agent, question, subject=subject):
            if output == "text":
                shown.show(event)
            run_id, ending = event.run_id, event.finished
        if output == "json":
            print_run(await client.get_run(run_id))
    refuse_unsuccessful(run_id, ending)


def refuse_unsuccessful(run_id: str, ending: "site.RunFinished") -> None:
    from faos.site.v1 import site_pb2 as site
    from faos_cli.errors import RUN_FAILED
    from faos_core.errors import InvalidError, LimitError

    if ending.state == site.RUN_STATE_LIMITED:
        how = "was stopped by one of its limits"
        raise LimitError(RUN_FAILED, how=how, error_code=ending.error_code, run_id=run_id)
    if ending.state != site.RUN_STATE_SUCCEEDED:
        raise InvalidError(RUN_FAILED, how="failed", error_code=ending.error_code or "nothing", run_id=run_id)


async def show(context: "Context", run_id: str, output: str) -> None:
    from faos_cli.site_client import connect
    from faos_cli.timeline import show_run

    async with connect(context.require_node()) as client:
        answer = await client.get_run(run_id)
    if output == "json":
        print_run(answer)
    else:
        show_run(answer)


def print_run(answer: "site.GetRunResponse") -> None:
    from faos_cli.output import as_json, print_json

    print_json(as_json(answer))


@click.group("runs", invoke_without_command=True)
@click.option("--limit", type=click.IntRange(min=1), default=DEFAULT_LIMIT, show_default=True, help="At most so many.")
@output_option("table", "json", "name")
@with_node
@click.pass_context
def runs(ctx: click.Context, context: "Context", limit: int, output: str) -> None:
    """List the runs of this machine's node, newest first.

    \b
    Examples:
      faos runs
      faos runs --limit 100 -o json
      faos runs show ID
    """
    import asyncio

    if ctx.invoked_subcommand is None:
        asyncio.run(list_runs(context, limit, output))
    else:
        ctx.obj = context


async def list_runs(context: "Context", limit: int, output: str) -> None:
    from faos_cli.output import as_json, print_json
    from faos_cli.site_client import connect

    async with connect(context.require_node()) as client:
        found = await client.list_runs(limit=limit)
    if output == "json":
        print_json({"items": [as_json(each) for each in found]})
    elif output == "name":
        click.echo("".join(f"run/{each.run_id}\n" for each in found), nl=False)
    else:
        print_runs(found)


def print_runs(found: "list[site.Run]") -> None:
    from faos_cli.output import age, enum_text, moment, print_table
    from faos_cli.timeline import shortened, took

    if not found:
        click.echo('There are no runs. Begin one: faos run AGENT "…"; agents are in: faos status', err=True)
        return
    rows = [
        (
            each.run_id,
            each.agent,
            enum_text(each, "state"),
            age(moment(each, "started_at")),
            took(each),
            shortened(each.input, 50),
        )
        for each in found
    ]
    print_table(("RUN", "AGENT", "STATE", "AGE", "TOOK", "QUESTION"), rows)


@runs.command("show")
@click.argument("run_id")
@output_option("text", "json")
@click.pass_obj
def runs_show(context: Any, run_id: str, output: str) -> None:
    """Show a run step by step.

    \b
    Examples:
      faos runs show ID
      faos runs show ID -o json
    """
    import asyncio

    asyncio.run(show(context, run_id, output))
