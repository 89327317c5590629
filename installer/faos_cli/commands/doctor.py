"""faos doctor"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from faos_cli.options import FILE, FOLDER, network_options, output_option

if TYPE_CHECKING:
    from faos_core.checkup import Check, Result, Verdict

MARKS = {"pass": "green", "warn": "yellow", "fail": "red", "skipped": None}
DEFAULT_FOLDER = Path("faos-node")


@click.command("doctor")
@click.argument("string", required=False, default="")
@click.option("--data", type=FOLDER, help="The node's data folder.  [default: of the context]")
@click.option("--config", type=FILE, help="node.toml; with --control-plane: control-plane.toml")
@click.option("--site-file", type=FILE, help="The site's ceiling.  [default: the context's, or site.toml in --data]")
@click.option("--control-plane", "of_control_plane", is_flag=True, help="Look at a control plane of this machine.")
@network_options
@output_option("text", "json")
@click.pass_context
def doctor(ctx: click.Context, /, string: str, output: str, **given: Any) -> None:
    """Look for what keeps this machine's node from working: clock, names, ports, proxy, who answers TLS, disk,
    sandbox, model files, settings, certificates, ledger. Each finding comes with its cause and the next command.

    Changes nothing, and works whether or not the node runs. With the STRING of `faos join-token create` ('-': from
    standard input) it looks before the machine joins. Exit code 1 when something fails.

    \b
    Examples:
      faos doctor
      faos doctor --data /var/lib/faos/node -o json
      ssh cloud faos join-token create --site annex | faos doctor -
      faos doctor faos-join-v1.CgN… --proxy http://proxy.example:3128
      faos doctor --control-plane --data /var/lib/faos/cp
    """
    import asyncio
    import logging

    logging.getLogger().addHandler(logging.NullHandler())  # findings are told once, in words
    if given.pop("of_control_plane"):
        checks = checks_of_control_plane(ctx, given["data"], given["config"])
    else:
        checks = checks_of_node(ctx, sys.stdin.read() if string == "-" else string, **given)
    ctx.exit(asyncio.run(told(checks, as_json=output == "json")))


def checks_of_node(
    ctx: click.Context, string: str, *, data: Path | None, config: Path | None, site_file: Path | None, **network: Any
) -> "list[Check]":
    """Of the node that was named, else of the context's; for a machine that is about to join, of the folder where
    `faos join` would put its data. Raises FaosError for settings or a string that cannot be read."""
    from dataclasses import replace

    from data_plane.doctor.service import checks_of
    from data_plane.doctor.subject import subject_of
    from faos_cli.commands.join import network_of
    from faos_cli.commands.node import settings_of
    from faos_cli.options import context_of
    from faos_core.clock import SystemClock

    known: Path | None = None  # of the context: what a flag or a variable says wins over it
    if not (config or data or string):
        context = context_of(ctx)
        data, known = context.require_node(), context.site_file
    settings = settings_of(config, data=data or (None if config else DEFAULT_FOLDER), site_file=site_file, soak_s=None)
    settings = replace(settings, site_file=settings.site_file or known)
    said = network_of(**network)
    return checks_of(subject_of(settings, said or settings.network(), SystemClock(), string))


def checks_of_control_plane(ctx: click.Context, data: Path | None, config: Path | None) -> "list[Check]":
    from control_plane.doctor.service import checks_of
    from faos_cli.commands.control_plane import settings_of
    from faos_cli.options import context_of
    from faos_core.clock import SystemClock

    if not (config or data):
        data = context_of(ctx).control_plane_data_dir
    return checks_of(settings_of(config, data=data), SystemClock())


async def told(checks: "list[Check]", *, as_json: bool) -> int:
    """Tells each finding when it is there (JSON: all at the end, in order); the exit code."""
    from faos_cli.output import print_json
    from faos_core.checkup import Verdict, examine

    results = await examine(checks) if as_json else await examine(checks, tell)
    if as_json:
        print_json([facts_of(result) for result in results])
    else:
        click.echo(summary([result.finding.verdict for result in results]))
    return int(any(result.finding.verdict is Verdict.FAIL for result in results))


def tell(result: "Result") -> None:
    from faos_cli.output import is_decorated, printable

    finding = result.finding
    colour = MARKS[finding.verdict] if is_decorated() else None
    mark = (
        click.style(f"{finding.verdict:7}", fg=colour, bold=bool(colour)) if is_decorated() else f"{finding.verdict:7}"
    )
    title = f"{result.check.name} {result.check.subject}".strip()
    click.echo(f"{mark}  {printable(title)}: {printable(finding.what)}")
    for word, text in (("cause", finding.cause), ("next", finding.next_step)):
        if text and finding.verdict in ("warn", "fail"):
            click.echo(f"         {word + ':':6} {printable(text)}")


def facts_of(result: "Result") -> dict[str, Any]:
    finding = result.finding
    return {
        "check": result.check.name,
        "subject": result.check.subject,
        "verdict": finding.verdict.value,
        "what": finding.what,
        "cause": finding.cause,
        "next": finding.next_step,
        "tookMs": round(result.took_s * 1000),
    }


def summary(verdicts: "list[Verdict]") -> str:
    words = {"pass": "passed", "warn": "to be looked at", "fail": "failed", "skipped": "skipped"}
    counts = [f"{verdicts.count(each)} {word}" for each, word in words.items() if verdicts.count(each)]  # type: ignore[arg-type]  # a StrEnum equals its text
    return ", ".join(counts) + "."
