"""faos completion bash|zsh|fish"""

import click

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_FAOS_COMPLETE"


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print what makes a shell complete commands, options, kinds, and names that the control plane knows.

    \b
    Examples:
      source <(faos completion bash)          # for this shell
      faos completion fish | source
    \b
    For every new shell:
      faos completion bash > ~/.local/share/bash-completion/completions/faos
      faos completion zsh > "${fpath[1]}/_faos"
      faos completion fish > ~/.config/fish/completions/faos.fish
    """
    from click.shell_completion import BashComplete, FishComplete, ZshComplete

    from faos_cli.__main__ import faos

    classes = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}
    click.echo(classes[shell](faos, {}, "faos", VARIABLE).source())
