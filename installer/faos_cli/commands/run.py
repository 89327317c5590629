"""faos run AGENT TEXT · faos run show|follow|cancel ID · faos runs"""

import sys
from typing import TYPE_CHECKING, Any

import click

from faos_cli import completion
from faos_cli.options import output_option, with_node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from faos.site.v1 import site_pb2 as site
    from faos_cli.context import Context
    from faos_cli.site_client import SiteClient

DEFAULT_LIMIT = 20
VERBS = ("show", "follow", "cancel")  # in the place of an agent's name


@click.command("run")
@click.argument("agent", shell_complete=completion.agents)
@click.argument("text", nargs=-1, required=True)
@click.option("--subject", default="", help="Data subject that the run concerns; its key seals the run.")
@click.option("--cancel-on-interrupt", is_flag=True, help="Ctrl-C stops the run too, and not only the watching.")
@output_option("text", "json")
@with_node
def run(
    context: "Context", agent: str, text: tuple[str, ...], subject: str, cancel_on_interrupt: bool, output: str
) -> None:
    """Ask an agent of this machine's node; TEXT '-' is read from standard input. Or show, follow or cancel a run.

    The run outlives this command: Ctrl-C gives back the terminal and says how to follow the run or to cancel it.

    \b
    Examples:
      faos run assistant "What is the number of the oxygen emergency line?"
      faos run assistant - < question.txt
      faos run --cancel-on-interrupt assistant "…"
      faos run show ID -o json
      faos run follow ID
      faos run cancel ID
    """
    import asyncio

    if agent in VERBS:
        if len(text) > 1:
            raise click.UsageError(f"faos run {agent} takes one run's ID.")
        if subject or cancel_on_interrupt:
            raise click.UsageError("--subject and --cancel-on-interrupt go with a question: faos run AGENT TEXT")
        asyncio.run(WITH_RUN[agent](context, text[0], output))
        return
    question = typed_question() if text == ("-",) else " ".join(text)
    asyncio.run(ask(context, agent, question, subject, output, cancel_on_interrupt=cancel_on_interrupt))


def typed_question() -> str:
    """Raises UsageError for what is no text."""
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise click.UsageError("Standard input is no text in UTF-8.") from error


async def ask(
    context: "Context", agent: str, question: str, subject: str, output: str, *, cancel_on_interrupt: bool
) -> None:
    """Stream one run. Raises InvalidError when it did not succeed."""
    import uuid

    from faos_cli.site_client import connect

    key = uuid.uuid4().hex
    async with connect(context.require_node()) as client:

        def events() -> "AsyncIterator[site.RunEvent]":
            return client.stream_run(agent, question, subject=subject, key=key)

        await show_events(client, events, output, cancel_on_interrupt=cancel_on_interrupt)


async def follow(context: "Context", run_id: str, output: str) -> None:
    """Stream a run that is there. Raises InvalidError when it did not succeed."""
    from faos_cli.site_client import connect

    async with connect(context.require_node()) as client:
        await show_events(client, lambda: client.watch_run(run_id), output, cancel_on_interrupt=False)


async def show_events(
    client: "SiteClient",
    events: "Callable[[], AsyncIterator[site.RunEvent]]",
    output: str,
    *,
    cancel_on_interrupt: bool,
) -> None:
    """events: from the first on, of the same run each time."""
    import asyncio

    from faos_cli.answer import screen

    shown = screen()
    try:
        async for event in events():
            shown.show(event, silently=output != "text")
    except asyncio.CancelledError:  # Ctrl-C
        run_id = shown.run_id or (await anext(events())).run_id  # it was asked for, and nothing had come yet
        await interrupted(client, run_id, cancel=cancel_on_interrupt)
        raise
    if output == "json":
        print_run(await client.get_run(shown.run_id))
    if shown.ending:
        refuse_unsuccessful(shown.run_id, shown.ending)


async def interrupted(client: "SiteClient", run_id: str, *, cancel: bool) -> None:
    """Say what becomes of the run; a second Ctrl-C does not wait for it."""
    if cancel:
        state = enum_text_of(await client.cancel_run(run_id))
        click.echo(f"\nThe run is {state.lower()}. See how far it came: faos run show {run_id}", err=True)
    else:
        hint = f"Follow it: faos run follow {run_id} · stop it: faos run cancel {run_id}"
        click.echo(f"\nThe run goes on at the node. {hint}", err=True)


async def cancel(context: "Context", run_id: str, output: str) -> None:
    """Stop a run; one that has ended stays as it is, which is said."""
    from faos.site.v1 import site_pb2 as site
    from faos_cli.output import as_json, print_json
    from faos_cli.site_client import connect

    async with connect(context.require_node()) as client:
        stands = await client.cancel_run(run_id)
    if output == "json":
        print_json({"run": as_json(stands)})
    elif stands.state == site.RUN_STATE_CANCELLED:
        click.echo(f"run/{run_id} cancelled")
    else:
        click.echo(f"run/{run_id} had ended before: {enum_text_of(stands).lower()}")


def enum_text_of(run: "site.Run") -> str:
    from faos_cli.output import enum_text

    return enum_text(run, "state")


def refuse_unsuccessful(run_id: str, ending: "site.RunFinished") -> None:
    from faos.site.v1 import site_pb2 as site
    from faos_cli.errors import RUN_FAILED
    from faos_core.errors import InvalidError, LimitError

    if ending.state == site.RUN_STATE_LIMITED:
        how = "was stopped by one of its limits"
        raise LimitError(RUN_FAILED, how=how, error_code=ending.error_code, run_id=run_id)
    if ending.state == site.RUN_STATE_CANCELLED:
        raise InvalidError(RUN_FAILED, how="was cancelled", error_code=ending.error_code, run_id=run_id)
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


WITH_RUN = {"show": show, "follow": follow, "cancel": cancel}


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
      faos runs cancel ID
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


@runs.command("follow")
@click.argument("run_id")
@output_option("text", "json")
@click.pass_obj
def runs_follow(context: Any, run_id: str, output: str) -> None:
    """Watch a run to its end; one that has ended is told from its journal.

    \b
    Examples:
      faos runs follow ID
    """
    import asyncio

    asyncio.run(follow(context, run_id, output))


@runs.command("cancel")
@click.argument("run_id")
@output_option("text", "json")
@click.pass_obj
def runs_cancel(context: Any, run_id: str, output: str) -> None:
    """Stop a run for good: what is under way is abandoned, not undone. One that has ended stays as it is.

    \b
    Examples:
      faos runs cancel ID
      faos runs cancel ID -o json
    """
    import asyncio

    asyncio.run(cancel(context, run_id, output))
