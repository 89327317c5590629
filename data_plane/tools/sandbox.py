"""Runs a program of the ceiling without network: turns it into an argument vector and an environment.

Three levels, the first that works on this machine: bubblewrap; util-linux `unshare` with a network and a process
namespace only; none, which is an error. Nothing ever runs outside a network namespace of its own.

What a program sees under bubblewrap: the system folders read-only, a private /tmp, its own /proc and /dev, what
`readable` and `writable` name, and what its command needs to start. That is each file on the way of the command's
symbolic links and `#!` lines, and
- for a file in the `bin` of a virtual environment (beside `pyvenv.cfg`): that whole environment, and the Python
  installation that its `home` names;
- for a file in the `bin` of a Python installation (beside `lib/python3*/os.py`): that whole installation;
- for any other: nothing more, whatever lies beside it.

The program dies with the node, also when the node is killed: bubblewrap and setpriv ask the kernel for it
(PR_SET_PDEATHSIG). That signal follows the *thread* that started the child, so start programs from one that lasts.
"""

import logging
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from data_plane.ceiling.models import Program
from data_plane.tools.errors import SANDBOX_UNAVAILABLE
from faos_core import names
from faos_core.errors import SetupError

log = logging.getLogger(__name__)

SEARCH_PATH = "/usr/local/bin:/usr/bin:/bin"
ENVIRONMENT = {"PATH": SEARCH_PATH, "LANG": "C.UTF-8", "HOME": "/tmp"}  # noqa: S108 - private to the sandbox
SYSTEM_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
# Of /etc only what programs need to start; the rest may hold secrets that root can read.
SYSTEM_FILES = ("/etc/alternatives", "/etc/ld.so.cache", "/etc/localtime", "/etc/ssl/certs")
PROBE_TIMEOUT_S = 10
LINK_HOPS = 40  # as the kernel's own limit


class Isolation(StrEnum):
    """How programs are kept from the network here."""

    BUBBLEWRAP = "bubblewrap"
    NETWORK_NAMESPACE = "network_namespace"  # files stay as readable as they are to the node's user


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a program. The environment is complete: what starts it adds nothing of its own."""

    argv: tuple[str, ...]
    environment: dict[str, str]


def available(candidates: Sequence[Isolation] = tuple(Isolation)) -> Isolation:
    """The first isolation that works on this machine, tried for real. Blocks for up to 10 s each.

    Raises: SetupError (sandbox.unavailable) when none does.
    """
    for isolation in candidates:
        if _works(isolation):
            if isolation is Isolation.NETWORK_NAMESPACE:
                log.warning("sandbox.network_only", extra={names.ISOLATION: isolation.value})
            return isolation
    raise SetupError(SANDBOX_UNAVAILABLE)


def launch(program: Program, isolation: Isolation) -> Launch:
    """The program as it is started. Its environment goes as such and not as arguments, which anyone may list."""
    environment = ENVIRONMENT | program.environment
    if isolation is Isolation.BUBBLEWRAP:
        return Launch((*_bubblewrap(program), "--", *program.command), environment)
    return Launch((*_network_namespace(), *program.command), environment)


def needed_by(command: Sequence[str]) -> list[Path]:
    """What the command needs besides the system folders, by the rule above; parents before children."""
    found = shutil.which(command[0], path=SEARCH_PATH)
    paths = {path for file in _files_on_the_way(Path(found or command[0])) for path in _home_of(file)}
    return sorted(path for path in paths if not _in_system(path))


def _works(isolation: Isolation) -> bool:
    probe = launch(Program("probe", ("true",)), isolation)
    try:
        done = subprocess.run(  # noqa: S603 - our own words only
            probe.argv, env=probe.environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=PROBE_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _network_namespace() -> tuple[str, ...]:
    namespaces = ("unshare", "--user", "--map-current-user", "--net", "--pid", "--fork", "--kill-child")
    return ("setpriv", "--pdeathsig", "KILL", "--", *namespaces, "--")


def _bubblewrap(program: Program) -> Iterator[str]:
    yield from ("bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL")
    for folder in SYSTEM_FOLDERS:
        yield from _system_folder(Path(folder))
    for file in SYSTEM_FILES:
        yield from ("--ro-bind-try", file, file)
    yield from ("--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--chdir", "/tmp")  # noqa: S108
    # After the private /tmp, so that what is named below it is seen.
    for path in (*needed_by(program.command), *program.readable):
        yield from ("--ro-bind", str(path), str(path))
    for path in program.writable:
        yield from ("--bind", str(path), str(path))


def _system_folder(folder: Path) -> tuple[str, ...]:
    if folder.is_symlink():
        return ("--symlink", str(folder.readlink()), str(folder))
    return ("--ro-bind", str(folder), str(folder)) if folder.exists() else ()


def _files_on_the_way(executable: Path) -> Iterator[Path]:
    """The executable, each symbolic link that it stands for, and the interpreters of scripts among them."""
    path = executable
    for _ in range(LINK_HOPS):
        yield path
        if path.is_symlink():
            path = path.parent / path.readlink()
        elif interpreter := _interpreter(path):
            path = interpreter
        else:
            return


def _interpreter(script: Path) -> Path | None:
    """The program of a script's `#!` line."""
    try:
        with script.open("rb") as file:
            first = file.readline(512)
    except OSError:
        return None
    words = first[2:].split() if first.startswith(b"#!") else []
    return Path(words[0].decode(errors="surrogateescape")) if words else None


def _home_of(executable: Path) -> Iterator[Path]:
    """The executable itself, or all of the Python that it belongs to."""
    prefix = executable.parent.parent
    settings = prefix / "pyvenv.cfg"
    if executable.parent.name == "bin" and settings.is_file():
        yield prefix
        yield from _python_of(_base(settings))
    elif _is_python(prefix):
        yield prefix
    else:
        yield executable


def _base(settings: Path) -> Path | None:
    """`home` of a virtual environment: the folder of the interpreter that it was made with."""
    for line in settings.read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "home":
            return Path(value.strip())
    return None


def _python_of(folder: Path | None) -> Iterator[Path]:
    if folder and _is_python(folder.parent):
        yield folder.parent


def _is_python(prefix: Path) -> bool:
    return any(prefix.glob("lib/python3*/os.py"))


def _in_system(path: Path) -> bool:
    return any(path.is_relative_to(folder) for folder in SYSTEM_FOLDERS)
