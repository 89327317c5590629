"""faos model fetch · faos model list · faos model pull ENDPOINT TAG"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from faos_cli.options import FOLDER, output_option, with_node

if TYPE_CHECKING:
    from faos_cli.assets import OnProgress
    from faos_cli.context import Context

VARIABLE = "FAOS_ASSETS"
DEFAULT_FOLDER = Path(".cache/models")


@click.group("model")
def model() -> None:
    """Model files, and models on the servers that this site names."""


@model.command("fetch")
@click.option("--to", "folder", type=FOLDER, help=f"Where to keep them.  [default: ${VARIABLE}, else {DEFAULT_FOLDER}]")
@click.option("--quiet", "-q", is_flag=True, help="No progress, no paths.")
def fetch(folder: Path | None, quiet: bool) -> None:
    """Fetch the default language model and sentence embedder, and check their SHA-256. What is there is not fetched.

    \b
    Examples:
      faos model fetch
      faos model fetch --to /srv/models --quiet
    """
    from faos_cli.assets import fetch as fetch_assets

    with progress(quiet=quiet) as on_progress:
        fetched = fetch_assets(folder or Path(os.environ.get(VARIABLE) or DEFAULT_FOLDER), on_progress)
    if not quiet:
        click.echo(f"{fetched.model}\n{fetched.embedder_model}\n{fetched.tokenizer}")


@model.command("list")
@output_option("table", "json")
@with_node
def list_models(context: "Context", output: str) -> None:
    """List what the servers under [endpoints] in site.toml have. The node asks them, each time; the ledger has it.

    \b
    Examples:
      faos model list
      faos model list -o json
    """
    import asyncio

    asyncio.run(print_models(context, output))


async def print_models(context: "Context", output: str) -> None:
    from faos_cli.output import as_json, print_json, print_table
    from faos_cli.site_client import connect

    async with connect(context.require_node()) as client:
        answer = await client.list_models()
    if output == "json":
        print_json(as_json(answer))
        return
    for endpoint in answer.silent_endpoints:
        click.echo(f"{endpoint} does not answer as an Ollama server does.", err=True)
    if answer.models:
        rows = [(each.endpoint, each.tag, f"{each.size_bytes / 1e6:.0f} MB") for each in answer.models]
        print_table(("ENDPOINT", "TAG", "SIZE"), rows)
    elif not answer.silent_endpoints:
        click.echo("There are no models. Servers are named under [endpoints] in site.toml.", err=True)


@model.command("pull")
@click.argument("endpoint")
@click.argument("tag")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
@with_node
def pull(context: "Context", endpoint: str, tag: str, quiet: bool) -> None:
    """Have the Ollama server that site.toml names ENDPOINT fetch a model. Nothing fetches one without this command.

    \b
    Examples:
      faos model pull gpu-box smollm2:135m
    """
    import asyncio

    asyncio.run(pull_model(context, endpoint, tag, quiet=quiet))


async def pull_model(context: "Context", endpoint: str, tag: str, *, quiet: bool) -> None:
    """Raises SetupError (the server cannot fetch it), NotFoundError (no such endpoint)."""
    from faos_cli.site_client import connect

    with progress(quiet=quiet) as on_progress:
        async with connect(context.require_node()) as client:
            async for each in client.pull_model(endpoint, tag):
                if each.total_bytes:
                    on_progress(tag, each.done_bytes, each.total_bytes)
    if not quiet:
        click.echo(f"{endpoint} has {tag}.")


@contextmanager
def progress(*, quiet: bool) -> Iterator["OnProgress"]:
    """Where `fetch` may report to: a bar on a terminal, one line per file elsewhere, nothing when quiet."""
    from faos_cli.output import is_decorated

    if quiet:
        yield lambda label, done, total: None
    elif is_decorated(sys.stderr):
        with bars() as on_progress:
            yield on_progress
    else:
        yield one_line_each()


def one_line_each() -> "OnProgress":
    said: set[str] = set()

    def on_progress(label: str, done: int, total: int) -> None:
        if label not in said:
            said.add(label)
            click.echo(f"Fetching the {label}, {total / 1e6:.0f} MB …", err=True)

    return on_progress


@contextmanager
def bars() -> Iterator["OnProgress"]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(stderr=True)) as shown:

        def on_progress(label: str, done: int, total: int) -> None:
            if label not in tasks:
                tasks[label] = shown.add_task(label, total=total)
            shown.update(tasks[label], completed=done)

        yield on_progress
