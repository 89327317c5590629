import errno
import os
import sys
from collections.abc import Callable
from typing import NoReturn

import click
import pytest

from faos_cli.failures import run_guarded
from faos_core.errors import FaosError, NotFoundError, UnauthenticatedError, define
from faos_core.resource_yaml import ResourceFilesError, loads

CODE = define("test.cli", what="The {thing} is gone.", why="It was {how}.", next_step="Type: faos {thing}")


def raising(error: BaseException) -> Callable[[], NoReturn]:
    def command() -> NoReturn:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFoundError(CODE, thing="x", how="lost"), 1),
        (UnauthenticatedError(CODE, thing="x", how="lost"), 4),
        (click.UsageError("no"), 2),
        (click.ClickException("no"), 1),
        (click.Abort(), 2),
        (KeyboardInterrupt(), 2),
        (click.exceptions.Exit(3), 3),
        (ZeroDivisionError("defect"), 1),
    ],
)
def test_exit_code_tells_scripts_what_to_do(error: BaseException, code: int) -> None:
    """Scripts tell a refused login from a wrong flag from a failure by the exit code alone."""
    assert run_guarded(raising(error)) == code


@pytest.mark.parametrize(("left_with", "code"), [(None, 0), (0, 0), (1, 1), ("text", 0)])
def test_exit_code_is_what_the_command_left_with(left_with: object, code: int) -> None:
    """`faos ledger verify` leaves with 1 when the ledger does not hold: that must reach the shell."""
    assert run_guarded(lambda: left_with) == code


def test_error_is_told_as_what_why_and_next(capsys: pytest.CaptureFixture[str]) -> None:
    """A person sees what happened, why, and what to type; standard output stays clean for scripts."""
    run_guarded(raising(NotFoundError(CODE, thing="node", how="evicted")))

    captured = capsys.readouterr()
    assert captured.err.splitlines() == [
        "error: The node is gone.",
        "  why:  It was evicted.",
        "  next: Type: faos node",
    ]
    assert captured.out == ""


def test_every_problem_of_files_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody mends ten mistakes in one go when all ten places are shown."""

    def command() -> None:
        loads("apiVersion: faos/v1\nkind: Agent\nmetadata: {name: x}\nspec: {modle: a, tols: b}\n", file="a.yaml")

    with pytest.raises(ResourceFilesError) as caught:
        command()
    run_guarded(command)

    told = capsys.readouterr().err
    assert len(caught.value.problems) >= 2
    for problem in caught.value.problems:
        assert f"a.yaml:4:{problem.column}: {problem.field_path}" in told


def test_defect_is_one_line_and_no_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A traceback tells a user nothing; how to get one must stand there."""
    monkeypatch.delenv("FAOS_DEBUG", raising=False)

    run_guarded(raising(ZeroDivisionError("by zero")))

    told = capsys.readouterr().err
    assert "ZeroDivisionError: by zero" in told
    assert "FAOS_DEBUG=1" in told
    assert "Traceback" not in told


def test_an_argument_that_is_no_text_is_no_defect_of_ours(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A paste from another encoding must not be reported to us as a bug."""
    name = os.fsdecode("Näherei".encode("latin-1"))
    monkeypatch.setattr(sys, "argv", ["faos", "delete", "agent", name])

    code = run_guarded(name.encode)

    assert (code, "report it" in capsys.readouterr().err) == (2, False)


def test_half_a_character_from_elsewhere_is_a_defect(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The person who typed plain words is not to look for it there."""
    monkeypatch.setattr(sys, "argv", ["faos", "delete", "agent", "fine"])

    assert run_guarded("\udc80".encode) == 1
    assert "report it" in capsys.readouterr().err


def test_defect_is_raised_where_it_is_debugged(monkeypatch: pytest.MonkeyPatch) -> None:
    """FAOS_DEBUG=1 is the promise that the line above makes."""
    monkeypatch.setenv("FAOS_DEBUG", "1")

    with pytest.raises(FaosError):
        run_guarded(raising(NotFoundError(CODE, thing="x", how="y")))


def test_error_of_a_server_does_not_drive_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A control plane that is not ours any more says what went wrong: it must not paint over what a person reads."""
    run_guarded(raising(NotFoundError(CODE, thing="\x1b[2Jnode\x9b1A", how="\x1b]0;evicted\x07")))

    told = capsys.readouterr().err
    assert [each for each in told if not each.isprintable() and each != "\n"] == []
    assert len(told.splitlines()) == 3


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/srv/node"), "ls -ld /srv/node"),
        (OSError(errno.ENOSPC, "No space left on device"), "df -h"),
    ],
)
def test_what_the_system_refuses_is_no_defect_of_ours(
    error: OSError, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever runs a command as the wrong user is told so, and not to report it."""
    assert run_guarded(raising(error)) == 1

    told = capsys.readouterr().err
    assert (words in told, "should not have" in told) == (True, False)
