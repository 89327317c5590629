import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from faos_cli.__main__ import COMMANDS, LazyGroup, faos, main
from faos_core import kinds
from faos_core.resource_validation import validate
from faos_core.resource_yaml import loads
from tests.patience import PATIENCE_S


def run_main(*arguments: str) -> int:
    with pytest.raises(SystemExit) as leaving:
        main(arguments)
    return int(leaving.value.code or 0)


def leaves(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that does something, with the words that lead to it."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        child = command.get_command(context, name)
        assert child is not None, f"{name} is listed and cannot be loaded"
        yield from leaves(child, (*path, name))


def every_command() -> list[tuple[tuple[str, ...], click.Command]]:
    return list(leaves(faos, ()))


def test_every_command_listed_loads_and_has_examples() -> None:
    """An entry of the table that leads nowhere is found by a user otherwise; examples are how people learn it."""
    commands = every_command()

    without = [" ".join(path) for path, command in commands if "Examples:" not in (command.help or "")]
    assert without == []
    assert {path[0] for path, _ in commands} == {name for group in COMMANDS.values() for name in group}


def test_every_option_has_help() -> None:
    """An option that does not say what it does is a guess."""
    silent = [
        f"{' '.join(path)} {option.opts[0]}"
        for path, command in every_command()
        for option in command.params
        if isinstance(option, click.Option) and not option.help and option.name != "help"
    ]

    assert silent == []


def test_misspelt_command_gets_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    """The commonest mistake must answer itself."""
    assert run_main("aply", "-f", "x") == 2

    assert "faos apply" in capsys.readouterr().err


def test_without_a_command_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """Typing the bare name is how people begin: it is no mistake."""
    assert run_main() == 0

    assert "Everything on this machine" in capsys.readouterr().out


def test_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Support begins with the version."""
    assert run_main("--version") == 0

    assert capsys.readouterr().out.startswith("faos 0.")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["get", "nods"], "nodes"),
        (["get", "agent/a", "b"], "KIND/NAME"),
        (["get", "revision", "one"], "number"),
        (["describe", "node"], "faos describe node NAME"),
        (["apply"], "--file"),
        (["join-token", "create"], "--site"),
        (["join-token", "create", "--ttl", "soon", "--site", "s"], "90s"),
        (["site", "create", "s", "--label", "north"], "key=value"),
        (["run", "show", "a", "b"], "one run"),
        (["ledger", "verify", "--witness", "4"], "SIZE:ROOT"),
        (["control-plane", "run"], "--data"),
        (["control-plane", "run", "--data", "x", "--admin-listen", "nowhere"], "admin_listen"),
        (["node", "run"], "--data"),
    ],
)
def test_wrong_use_says_what_is_right(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Exit code 2, and the right form in the message: nobody should need the manual for a slip."""
    context = tmp_path / "context.json"
    context.write_text('{"admin_address": "127.0.0.1:1", "ca_file": "ca", "token_file": "token", "tenant": "mercy"}')

    code = run_main("--context", str(context), *arguments)

    assert (code, said in capsys.readouterr().err) == (2, True)


def test_example_resources_of_apply_help_are_valid_and_of_each_kind() -> None:
    """Every command shown works; so must what it is given. An unknown kind's error sends people here."""
    command = LazyGroup.get_command(faos, click.Context(faos), "apply")  # type: ignore[arg-type]  # it is one
    assert command is not None
    example = (command.help or "").split("(source, folder, program):\n")[1]

    resources = [located.resource for located in loads(textwrap.dedent(example))]

    assert sorted(kinds.kind_of(resource) for resource in resources) == sorted(kinds.BY_KIND)
    assert validate(resources, complete=True) == []


def test_libraries_write_nothing_among_what_a_person_reads(tmp_path: Path) -> None:
    """The `faos` that pip installs begins at main(), not at `python -m`: what holds for one must hold for the other."""
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    (tmp_path / "token").write_text("t")
    start = "import sys; from faos_cli.__main__ import main; main(sys.argv[1:])"
    flags = ["--server", "127.0.0.1:1", "--ca", "ca.pem", "--token-file", "token"]
    without = {key: value for key, value in os.environ.items() if not key.startswith("GRPC_")}

    done = subprocess.run(
        [sys.executable, "-c", start, "get", "nodes", *flags],
        cwd=tmp_path,
        env=without | {"XDG_CONFIG_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )

    assert done.returncode == 1
    assert [line[:8] for line in done.stderr.splitlines()] == ["error: T", "  why:  ", "  next: "]
