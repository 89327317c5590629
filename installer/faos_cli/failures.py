"""How a command ends: exit codes as gh's, and errors as people read them."""

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from faos_core.errors import FaosError

OK, FAILED, CANCELLED, UNAUTHENTICATED = 0, 1, 2, 4
USAGE = CANCELLED


def run_guarded(command: Callable[[], object]) -> int:
    """The exit code of a command: what it left with, or what its error means.

    Nothing escapes but what FAOS_DEBUG=1 asks to see.
    """
    try:
        left_with = command()
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        return CANCELLED
    except click.ClickException as error:
        error.show()
        return USAGE if isinstance(error, click.UsageError) else FAILED
    except BrokenPipeError:
        sys.stderr.close()
        return FAILED
    except Exception as error:  # the supervisor of the process
        if os.environ.get("FAOS_DEBUG"):
            raise
        return told(error)
    return left_with if isinstance(left_with, int) else OK


@contextmanager
def failing_with(code: int) -> Iterator[None]:
    """End a command whose code 1 means something else with this one instead, whatever its error is."""
    try:
        yield
    except (click.exceptions.Exit, click.Abort, click.ClickException, BrokenPipeError):
        raise
    except Exception as error:  # the supervisor of the process
        if os.environ.get("FAOS_DEBUG"):
            raise
        told(error)
        raise click.exceptions.Exit(code) from error


def told(error: Exception) -> int:
    """Tell a person, and choose the exit code."""
    from faos_core.errors import FaosError, UnauthenticatedError

    if isinstance(error, FaosError):
        for problem in getattr(error, "problems", ()):
            click.echo(shown(str(problem)), err=True)
        tell(error.what, error.why, error.next_step)
        return UNAUTHENTICATED if isinstance(error, UnauthenticatedError) else FAILED
    if isinstance(error, OSError) and (error.filename or error.errno == errno.ENOSPC):
        tell_of_system(error)
        return FAILED
    if isinstance(error, UnicodeEncodeError) and (argument := next(filter(is_no_text, sys.argv[1:]), None)):
        tell_of_argument(argument)
        return USAGE
    cause = f"{type(error).__name__}: {error}"
    tell("Something failed that should not have.", cause, "See where: FAOS_DEBUG=1 faos …, and please report it.")
    return FAILED


def is_no_text(argument: str) -> bool:
    """Python hands on the bytes of the command line that are not UTF-8 as halves of characters."""
    return any("\udc80" <= character <= "\udcff" for character in argument)


def tell_of_argument(argument: str) -> None:
    tell(
        f"The argument {argument!r} is no text.",
        "It has bytes in it that are not UTF-8, and names and reasons travel as UTF-8.",
        "Type it again in a terminal that is set to UTF-8: locale charmap",
    )


def tell_of_system(error: OSError) -> None:
    """A file that may not be read, a disk that is full: a person's matter, and no defect."""
    why = f"The system says: {error.strerror}."
    if error.errno == errno.ENOSPC:
        tell("There is no room left to write.", why, "Make room, then run it again: df -h")
    else:
        tell(
            f"{error.filename} cannot be used.",
            why,
            f"Look at it, and run this as who may use it: ls -ld {error.filename}",
        )


def warn(about: "FaosError") -> None:
    """Tell a person of something that does not fail the command."""
    tell(about.what, about.why, about.next_step, head="warning: ", colour="yellow")


def tell(what: str, why: str, next_step: str, *, head: str = "error: ", colour: str = "red") -> None:
    """Three lines on standard error; without colour when that is no terminal, or under NO_COLOR."""
    begin = head if os.environ.get("NO_COLOR") else click.style(head, fg=colour, bold=True)
    click.echo(begin + shown(what), err=True)
    click.echo(f"  why:  {shown(why)}", err=True)
    click.echo(f"  next: {shown(next_step)}", err=True)


def shown(text: str) -> str:
    """Without what would drive the terminal: a control plane that is not ours any more says some of it."""
    from faos_cli.output import printable

    return "\n".join(map(printable, text.split("\n")))
