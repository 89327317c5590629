"""faos top"""

from typing import TYPE_CHECKING, Any

import click

from faos_cli.options import output_option, with_node

if TYPE_CHECKING:
    from faos_cli.activity import Rates, Sample
    from faos_cli.context import Context

FRAME_LINES = 16  # of the screen that are no rows of a table


@click.command("top")
@click.option("--once", is_flag=True, help="One picture, over one interval; so in a pipe.")
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(min=0.2, max=3600),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two looks.",
)
@output_option("text", "json")
@with_node
@click.pass_context
def top(ctx: click.Context, context: "Context", output: str, interval_s: float, once: bool) -> None:
    """What the node and the control plane are busy with, until Ctrl-C: runs, tokens, ledger, processes, nodes.

    A side that is not in this context is left out; one that does not answer is shown as DOWN and asked again. No word
    of a run is shown, only its agent and its step. With --once: exit code 1 when one side does not answer.

    \b
    Examples:
      faos top
      faos top --once
      faos top -o json                   one picture, for scripts
    """
    import asyncio
    from contextlib import suppress

    from faos_cli.output import is_decorated

    if not once and output == "text" and is_decorated():
        with suppress(KeyboardInterrupt):
            asyncio.run(watch(context, interval_s))
        return
    sample, rate = asyncio.run(one_interval(context, interval_s))
    show(sample, rate, output)
    ctx.exit(0 if sample.is_well else 1)


async def one_interval(context: "Context", interval_s: float) -> "tuple[Sample, Rates]":
    """Two samples, for there to be rates."""
    import asyncio

    from faos_cli.activity import Sampler, rates

    async with Sampler(context) as sampler:
        before = await sampler.sample()
        await asyncio.sleep(interval_s)
        after = await sampler.sample()
    return after, rates(before, after)


def show(sample: "Sample", rate: "Rates", output: str) -> None:
    from faos_cli.activity import document
    from faos_cli.activity_lines import lines_of
    from faos_cli.output import print_json

    if output == "json":
        print_json(document(sample, rate))
        return
    for line in lines_of(sample, rate, most_rows=10_000):
        click.echo(line)


async def watch(context: "Context", interval_s: float) -> None:
    """Until cancelled; the screen then is as it was before."""
    import asyncio

    from rich.console import Console
    from rich.live import Live

    from faos_cli.activity import Sampler, rates

    console, before = Console(), None
    async with Sampler(context) as sampler:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                sample = await sampler.sample()
                live.update(picture(sample, rates(before, sample), console.height, interval_s), refresh=True)
                before = sample
                await asyncio.sleep(interval_s)


def picture(sample: "Sample", rate: "Rates", height: int, interval_s: float) -> Any:
    """What fits a screen of so many lines; what is wider than it is cut."""
    from datetime import datetime

    from rich.text import Text

    from faos_cli.activity_lines import lines_of
    from faos_cli.output import COLOURS

    room = max(2, (height - FRAME_LINES) // 3)
    at = datetime.now().astimezone().strftime("%H:%M:%S")
    head = f"faos top   {at}   every {interval_s:g} s   Ctrl-C ends it"
    text = Text("\n".join([head, "", *lines_of(sample, rate, most_rows=room)]), no_wrap=True, overflow="ellipsis")
    for word, colour in COLOURS.items():
        text.highlight_regex(rf"\b{word}\b", style=colour)
    text.stylize("dim", 0, len(head))
    return text
