"""The `faos` command. Imports nothing but click until a command is chosen."""

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

# name → module under faos_cli.commands, attribute, one line of help; grouped as `faos --help` shows them.
COMMANDS: dict[str, dict[str, tuple[str, str, str]]] = {
    "Begin": {
        "up": ("up", "up", "Everything on this machine, from nothing to an agent's answers."),
        "status": ("status", "status", "How the control plane and the node of this context are."),
        "top": ("top", "top", "What both are busy with, live."),
        "context": ("context", "context", "Which control plane and node the commands speak to."),
        "doctor": ("doctor", "doctor", "What keeps this machine from working, and what to do about it."),
    },
    "Agents": {
        "run": ("run", "run", "Ask an agent: faos run AGENT TEXT · faos run show|follow|cancel ID."),
        "runs": ("run", "runs", "List runs."),
    },
    "Configuration": {
        "apply": ("apply", "apply", "Make what is declared in files the desired state."),
        "diff": ("diff", "diff", "What an apply would change; what a node lacks."),
        "delete": ("delete", "delete", "Remove resources."),
        "rollback": ("rollback", "rollback", "Bring back what an earlier revision declared."),
        "get": ("get", "get", "List resources, nodes, revisions and more."),
        "describe": ("describe", "describe", "One thing in full."),
    },
    "Sites and nodes": {
        "tenant": ("tenancy", "tenant", "Tenants."),
        "site": ("tenancy", "site", "Sites of a tenant."),
        "key": ("key", "key", "Keys of your own, to sign with."),
        "join-token": ("tenancy", "join_token", "One-time tokens that enrol nodes."),
        "join": ("join", "join", "Enrol this machine as a node of a site."),
        "ledger": ("ledger", "ledger", "What left this site: show it, verify it."),
        "tool": ("tool", "tool", "Tools of this node, and accepting what changed."),
        "model": ("model", "model", "Model files."),
    },
    "Sight": {
        "trace": ("trace", "trace", "What was done here, and how long each part took."),
        "metrics": ("metrics", "metrics", "What a node, or the control plane, counted and measured."),
    },
    "This command line": {
        "completion": ("completion", "completion", "Completion for your shell."),
    },
    "Servers": {
        "control-plane": ("control_plane", "control_plane", "Run the control plane."),
        "node": ("node", "node", "Run this machine's node."),
    },
}


class LazyGroup(click.Group):
    """Loads a command's module when the command is used; lists them without loading any."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for group in COMMANDS.values() for name in group]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for group in COMMANDS.values():
            if cmd_name in group:
                module, attribute, _ = group[cmd_name]
                command: click.Command = getattr(importlib.import_module(f"faos_cli.commands.{module}"), attribute)
                return command
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, with a suggestion for a misspelt name."""
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], self.list_commands(ctx), n=1)
            hint = f" Did you mean 'faos {near[0]}'?" if near else " See: faos --help"
            raise click.UsageError(f"There is no command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, group in COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl([(name, text) for name, (_, _, text) in group.items()])


@click.command(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--context",
    "context_file",
    metavar="NAME|FILE",
    help="Whom to speak to: see faos context.",
    shell_complete=lambda *given: completed_contexts(*given),
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda ctx, _, wanted: show_version(ctx, wanted),
    help="Show the version and exit.",
)
@click.pass_context
def faos(ctx: click.Context, context_file: str | None) -> None:
    """Run AI agents inside your own walls, steered from a cloud that never sees your data.

    \b
    Examples:
      faos up                          a control plane, a node and an agent, on this machine
      faos run assistant "…"           ask the agent
      faos get nodes                   who is there, and what they run
      faos ledger verify               prove what left the site
    """
    ctx.obj = context_file
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def completed_contexts(*given: Any) -> Any:
    from faos_cli.completion import contexts

    return contexts(*given)


def show_version(ctx: click.Context, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        click.echo(f"faos {version('faos-hybrid')}")
        ctx.exit()


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point, however it is started: every error ends as what, why and what to type next."""
    from faos_cli.failures import run_guarded
    from faos_core.grpc_environment import settle

    settle(os.environ)
    sys.exit(run_guarded(lambda: faos.main(arguments, prog_name="faos", standalone_mode=False)))


if __name__ == "__main__":
    main()
