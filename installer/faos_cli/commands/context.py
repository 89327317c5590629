"""faos context list · show · add · use · remove"""

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from faos_cli import completion
from faos_cli.options import FILE, FOLDER, output_option

if TYPE_CHECKING:
    from faos_cli.context import Context
    from faos_cli.contexts import Contexts


@click.group("context")
def context() -> None:
    """Which control plane and which node the commands speak to.

    \b
    What applies, the first that there is:
      --context NAME|FILE|DIR, then FAOS_CONTEXT
      .faos/context.json in this folder or above (`faos up` writes it)
      the named context in use (`faos context use NAME`)
      ~/.config/faos/context.json
    """


@context.command("list")
@output_option("table", "name", "json")
@click.pass_context
def list_contexts(ctx: click.Context, output: str) -> None:
    """List the named contexts; * marks the one that applies here.

    \b
    Examples:
      faos context list
      faos context list -o name
    """
    from faos_cli.output import print_json, print_table

    named = contexts().all()
    here = applying(ctx)
    if output == "name":
        for name in named:
            click.echo(name)
        return
    rows = {**named, **({"": here} if here.file and not here.name else {})}
    if output == "json":
        print_json({"items": [facts(each) | {"applies": name == here.name} for name, each in rows.items()]})
        return
    if not rows:
        click.echo("There are no contexts. Make one: faos context add NAME --server HOST:PORT …, or faos up", err=True)
        return
    print_table(("", "NAME", "CONTROL PLANE", "TENANT", "NODE"), [row(name, each, here) for name, each in rows.items()])


def row(name: str, each: "Context", here: "Context") -> tuple[str, ...]:
    mark = "*" if name == here.name and here.file else ""
    cells = (each.admin_address, each.tenant, each.node_data_dir)
    return (mark, name or f"({each.file})", *(str(cell or "") for cell in cells))


@context.command("show")
@click.argument("name", required=False, shell_complete=completion.contexts)
@output_option("text", "json")
@click.pass_context
def show(ctx: click.Context, name: str | None, output: str) -> None:
    """Show what a context says: the one that applies here, or a named one. Never a token, only where it lies.

    \b
    Examples:
      faos context show
      faos context show prod -o json
    """
    from faos_cli.output import print_facts, print_json

    shown = contexts().require(name) if name else applying(ctx)
    if shown.file is None:
        from faos_cli.context import user_file
        from faos_cli.errors import CONTEXT_MISSING
        from faos_core.errors import SetupError

        raise SetupError(CONTEXT_MISSING, user_file=user_file(os.environ))
    if output == "json":
        print_json(facts(shown))
    else:
        print_facts({key.replace("_", " "): value for key, value in facts(shown).items()})


@context.command("add")
@click.argument("name")
@click.option("--server", metavar="HOST:PORT", help="Admin API of the control plane.")
@click.option("--ca", type=FILE, help="CA certificate of the control plane.")
@click.option("--token-file", type=FILE, help="Admin token; the file is read each time.")
@click.option("--with-token", is_flag=True, help="Read the token from standard input, and keep it.")
@click.option("--tenant", metavar="NAME", help="Tenant that is meant where none is said.")
@click.option("--site", metavar="NAME", help="Site that is meant where none is said.")
@click.option("--data", type=FOLDER, help="Data folder of a node of this machine.")
@click.pass_context
def add(ctx: click.Context, /, name: str, with_token: bool, **given: Any) -> None:
    """Give a context a name: the one that applies here, with these flags over it. The first one is in use at once.

    \b
    Examples:
      faos context add home                            what applies in this folder, from anywhere
      faos --context ./cp context add lab              what `faos control-plane run --data ./cp` wrote
      faos context add prod --server cloud.example:7444 --ca prod-ca.pem --with-token < token
    """
    made = described(ctx, name, **given)
    kept = contexts()
    kept.refuse_unusable(name)
    if with_token:
        token = typed_token()
        made = made.overridden(token_file=kept.keep_token(name, token))
    in_use = kept.add(name, made)
    click.echo(f"context/{name} added{', and in use' if in_use else ''}")
    if not in_use:
        click.echo(f"  next: faos context use {name}", err=True)


def typed_token() -> str:
    """A line of standard input; on a terminal one that is asked for, and not shown. Raises InvalidError for none."""
    from faos_cli.errors import TOKEN_EMPTY
    from faos_core.errors import InvalidError

    if sys.stdin.isatty():
        return str(click.prompt("Admin token", hide_input=True, err=True)).strip()
    token = sys.stdin.readline().strip()
    if not token:
        raise InvalidError(TOKEN_EMPTY)
    return token


def described(ctx: click.Context, name: str, **given: Any) -> "Context":
    """What applies here with the flags over it. Raises InvalidError when that is nothing."""
    from faos_cli.context import Context, facts_of
    from faos_cli.errors import CONTEXT_EMPTY
    from faos_core.errors import InvalidError

    paths = {"ca_file": given["ca"], "token_file": given["token_file"], "node_data_dir": given["data"]}
    flags: dict[str, Any] = {"admin_address": given["server"], "tenant": given["tenant"], "site": given["site"]}
    flags |= {key: path.absolute() if path else None for key, path in paths.items()}
    base = applying(ctx)
    made = (Context() if given["server"] else base).overridden(**flags)
    if not facts_of(made):
        raise InvalidError(CONTEXT_EMPTY, name=name)
    return made


@context.command("use")
@click.argument("name", shell_complete=completion.contexts)
@click.pass_context
def use(ctx: click.Context, name: str) -> None:
    """Make a named context the one in use.

    \b
    Examples:
      faos context use prod
    """
    contexts().use(name)
    click.echo(f"context/{name} is in use")
    here = applying(ctx)
    if here.name != name and not os.environ.get("FAOS_CONTEXT"):
        click.echo(f"warning: in this folder {here.file} goes before it.", err=True)
    elif here.name != name:
        click.echo("warning: FAOS_CONTEXT goes before it while it is set.", err=True)


@context.command("remove")
@click.argument("name", shell_complete=completion.contexts)
def remove(name: str) -> None:
    """Forget a named context, and the token that was typed in for it. Nothing else is touched.

    \b
    Examples:
      faos context remove lab
    """
    contexts().remove(name)
    click.echo(f"context/{name} removed")


def contexts() -> "Contexts":
    from faos_cli.contexts import Contexts

    return Contexts.of_user(os.environ)


def applying(ctx: click.Context) -> "Context":
    from faos_cli.options import context_of

    here: Context = context_of(ctx)
    return here


def facts(each: "Context") -> dict[str, str]:
    from faos_cli.context import facts_of

    return {"name": each.name, "source": str(each.file or "")} | facts_of(each)
