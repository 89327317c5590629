"""How a command ends: exit codes as gh's, and errors as people read them."""

import os
import sys
from collections.abc import Callable

import click

OK, FAILED, USAGE, UNAUTHENTICATED = 0, 1, 2, 4
INTERRUPTED = 130


def run_guarded(command: Callable[[], object]) -> int:
    """The exit code of a command. Nothing escapes but what FAOS_DEBUG=1 asks to see."""
    try:
        command()
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        return INTERRUPTED
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
    return OK


def told(error: Exception) -> int:
    """Tell a person, and choose the exit code."""
    from faos_core.errors import FaosError, UnauthenticatedError

    if isinstance(error, FaosError):
        tell(error.what, error.why, error.next_step)
        return UNAUTHENTICATED if isinstance(error, UnauthenticatedError) else FAILED
    cause = f"{type(error).__name__}: {error}"
    tell("Something failed that should not have.", cause, "See where: FAOS_DEBUG=1 faos …, and please report it.")
    return FAILED


def tell(what: str, why: str, next_step: str) -> None:
    """Three lines on standard error."""
    click.echo(click.style("error: ", fg="red", bold=True) + what, err=True)
    click.echo(f"  why:  {why}", err=True)
    click.echo(f"  next: {next_step}", err=True)
