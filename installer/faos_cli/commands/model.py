"""faos model fetch"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from faos_cli.options import FOLDER

if TYPE_CHECKING:
    from faos_cli.assets import OnProgress

VARIABLE = "FAOS_ASSETS"
DEFAULT_FOLDER = Path(".cache/models")


@click.group("model")
def model() -> None:
    """Model files."""


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
