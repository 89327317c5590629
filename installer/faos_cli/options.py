"""Options that several commands share, and values that are typed in a form of their own."""

import functools
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
DEFAULT_WAIT_S = 300
UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic in its newest version only
    """Whole seconds: 90, 90s, 5m, 2h, 1d."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"([0-9]{1,9})([smhd]?)", value)
        if match is None:
            self.fail(f"{value!r} is no duration; write 90s, 5m, 2h or 1d.", param, ctx)
        return int(match[1]) * UNITS_S[match[2]]


class Label(click.ParamType):  # type: ignore[type-arg]  # as above
    """key=value."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        key, equals, rest = value.partition("=")
        if not (key and equals):
            self.fail(f"{value!r} is no label; write key=value.", param, ctx)
        return key, rest


DURATION, LABEL = Duration(), Label()


def labels_option(command: F) -> F:
    """--label k=v, as often as wanted: a tuple of pairs."""
    return click.option(
        "--label", "-l", "labels", type=LABEL, multiple=True, metavar="KEY=VALUE", help="As often as wanted."
    )(command)


def reason_option(command: F) -> F:
    """--reason TEXT."""
    return click.option("--reason", default="", metavar="TEXT", help="Why, for the history: faos get revisions.")(
        command
    )


def wait_option(command: F) -> F:
    """--wait [TIMEOUT]: seconds, or None."""
    return click.option(
        "--wait",
        "wait_s",
        type=DURATION,
        is_flag=False,
        flag_value=DEFAULT_WAIT_S,
        metavar="[TIMEOUT]",
        help="Until the nodes that it concerns are healthy, or one refuses [5m].",
    )(command)


def set_options(command: F) -> F:
    """--set NAME and --prune."""
    prune = click.option("--prune", is_flag=True, help="Delete what the set no longer declares; needs --set.")
    named = click.option(
        "--set", "apply_set", default="", metavar="NAME", help="Set that these files make up; the same each time."
    )
    return prune(named(command))


def network_options(command: F) -> F:
    """--proxy, --proxy-credentials and --ca-dir: how this machine reaches others."""
    proxy = click.option("--proxy", metavar="URL", help="Proxy of this network: http://proxy.example:3128")
    credentials = click.option("--proxy-credentials", type=FILE, help="File of one line, user:password, for the proxy.")
    authorities = click.option("--ca-dir", type=FOLDER, help="Folder of PEM files to trust, besides the system's.")
    return proxy(credentials(authorities(command)))


def sign_options(command: F) -> F:
    """--sign KEYREF, --yes, --adopt: a keyword `signing`, a Signing or None."""

    @click.option("--sign", metavar="KEYREF", help="Sign here, as publisher: file:PATH, hsm:ID?label=TOKEN, pkcs11:…")
    @click.option("--yes", "-y", is_flag=True, help="Sign without asking, having seen the difference before.")
    @click.option("--adopt", is_flag=True, help="Sign also what stands and this key never signed.")
    @functools.wraps(command)
    def wrapped(*args: Any, sign: str | None, yes: bool, adopt: bool, **given: Any) -> Any:
        if sign is None and (yes or adopt):
            raise click.UsageError("--yes and --adopt say how to sign: they need --sign KEYREF")
        return command(*args, signing=signing_of(sign, yes=yes, adopt=adopt) if sign else None, **given)

    return wrapped  # type: ignore[return-value]  # called by click only, which has no type for it


def signing_of(reference: str, *, yes: bool, adopt: bool) -> Any:
    """A Signing; opens nothing yet."""
    from faos_cli.publisher_memory import PublisherMemory
    from faos_cli.signing import Signing, confirming

    return Signing(reference, PublisherMemory.of_user(os.environ), confirming(assume_yes=yes), adopt=adopt)


def expectation_option(command: F) -> F:
    """--expect-revision N."""
    return click.option(
        "--expect-revision",
        "expected_revision",
        type=click.IntRange(min=1),
        metavar="N",
        help="Change nothing unless revision N stands.",
    )(command)


def output_option(*formats: str) -> Callable[[F], F]:
    """-o; the first format is the default."""
    choice = click.Choice(formats)
    return click.option("-o", "--output", type=choice, default=formats[0], show_default=True, help="Output format.")


def telemetry_option(command: F) -> F:
    """--telemetry off|file, over what the settings say; None where it is not given."""
    choice = click.Choice(["off", "file"])
    return click.option("--telemetry", type=choice, help="Keep spans and metrics in the data folder: faos trace.")(
        command
    )


def with_control_plane(command: F) -> F:
    """Give the command a Context as its first argument, with the flags that say which control plane."""

    @click.option("--tenant", metavar="NAME", help="Tenant that is meant; needless where there is only one.")
    @click.option("--server", metavar="HOST:PORT", help="Admin API of the control plane.")
    @click.option("--ca", type=FILE, help="CA certificate of the control plane.")
    @click.option("--token-file", type=FILE, help="Admin token.")
    @click.pass_context
    @functools.wraps(command)
    def wrapped(ctx: click.Context, *args: Any, **given: Any) -> Any:
        flags = {
            "tenant": given.pop("tenant"),
            "admin_address": given.pop("server"),
            "ca_file": given.pop("ca"),
            "token_file": given.pop("token_file"),
        }
        return command(context_of(ctx).overridden(**flags), *args, **given)

    return wrapped  # type: ignore[return-value]  # called by click only, which has no type for it


def with_node(command: F) -> F:
    """Give the command a Context as its first argument, with the flag that says which node of this machine."""

    @click.option("--data", type=FOLDER, help="The node's data folder.")
    @click.pass_context
    @functools.wraps(command)
    def wrapped(ctx: click.Context, *args: Any, **given: Any) -> Any:
        data: Path | None = given.pop("data")
        flags = {"node_data_dir": data.absolute() if data else None}
        return command(context_of(ctx).overridden(**flags), *args, **given)

    return wrapped  # type: ignore[return-value]  # called by click only, which has no type for it


def context_of(ctx: click.Context) -> Any:
    """The Context that applies. Raises SetupError."""
    from faos_cli.context import find_context

    return find_context(ctx.find_root().obj, os.environ, Path.cwd())
