"""Which control plane and which node the commands speak to: a small JSON file, and flags over it.

    {"admin_address": "127.0.0.1:7444", "ca_file": "control-plane/ca/ca.pem", "token_file": "…/admin.token",
     "tenant": "mercy", "site": "main", "node_data_dir": "node", "site_file": "site/site.toml",
     "control_plane_data_dir": "control-plane"}

Every key may be absent; relative paths are relative to the file's own folder. Looked for in this order: --context and
FAOS_CONTEXT (a name that `faos context add` gave, or a file, or a folder that holds one), .faos/context.json in the
working folder and above, the named one in use (faos_cli/contexts.py), then
${XDG_CONFIG_HOME:-~/.config}/faos/context.json.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from faos_cli.errors import CONTEXT_FILE_MISSING, CONTEXT_INCOMPLETE, CONTEXT_MISSING, CONTEXT_UNUSABLE
from faos_core.disk import Disk
from faos_core.errors import SetupError

T = TypeVar("T")

FILE_NAME = "context.json"
FOLDER = ".faos"
VARIABLE = "FAOS_CONTEXT"
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
PATHS = ("ca_file", "token_file", "node_data_dir", "site_file", "control_plane_data_dir")


@dataclass(frozen=True, slots=True)
class Context:
    """Whom to speak to. Paths are absolute; None means that nobody said."""

    admin_address: str | None = None  # host:port
    ca_file: Path | None = None
    token_file: Path | None = None
    tenant: str | None = None
    site: str | None = None
    node_data_dir: Path | None = None
    site_file: Path | None = None  # of that node; None: site.toml in its data folder
    control_plane_data_dir: Path | None = None
    file: Path | None = None  # that it was read from
    name: str = ""  # of a named one

    def overridden(self, **flags: Any) -> "Context":
        """With every flag that was given in place of what the file says; another node has another ceiling."""
        given = {key: value for key, value in flags.items() if value is not None}
        return replace(self, **({"site_file": None} if "node_data_dir" in given else {}) | given)

    def require_admin(self) -> tuple[str, Path, Path]:
        """Address, CA file and token file. Raises SetupError that names the first one missing."""
        address = self._require("admin_address", self.admin_address, "where the control plane is", "--server HOST:PORT")
        ca_file = self._require("ca_file", self.ca_file, "which CA the control plane has", "--ca FILE")
        token_file = self._require("token_file", self.token_file, "which token to show it", "--token-file FILE")
        return address, ca_file, token_file

    def require_node(self) -> Path:
        """The node's data folder. Raises SetupError."""
        return self._require("node_data_dir", self.node_data_dir, "which node is meant", "--data DIR")

    def _require(self, key: str, value: T | None, missing: str, flag: str) -> T:
        if value is not None:
            return value
        if self.file is None:
            raise SetupError(CONTEXT_MISSING, user_file=user_file(os.environ))
        raise SetupError(CONTEXT_INCOMPLETE, missing=missing, source=self.file, key=key, flag=flag)


def find_context(named: str | None, environment: Mapping[str, str], folder: Path) -> Context:
    """The context that applies in `folder`; an empty one when there is none.

    named: a name, or a file or folder that holds a context.json, as --context gave it.
    Raises: SetupError when one was named and is not there, or cannot be used.
    """
    from faos_cli.contexts import Contexts

    contexts = Contexts.of_user(environment)
    for given, by in ((named, "--context"), (environment.get(VARIABLE), VARIABLE)):
        if given:
            known = contexts.get(given) if is_name(given) else None
            if known is None and is_name(given) and not (folder / given).exists():
                return contexts.require(given)
            return known or read_context(existing(given, folder, named_by=by))
    for candidate in (each / FOLDER / FILE_NAME for each in (folder, *folder.parents)):
        if candidate.is_file():
            return read_context(candidate)
    if in_use := contexts.in_use():
        return in_use
    return read_context(user_file(environment)) if user_file(environment).is_file() else Context()


def is_name(given: str) -> bool:
    """Whether it may be a name; everything else is a path. A folder beside that has the name of a context yields to
    it: write ./NAME for the folder."""
    return NAME.fullmatch(given) is not None


def user_file(environment: Mapping[str, str]) -> Path:
    base = environment.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "faos" / FILE_NAME


def existing(named: str, folder: Path, *, named_by: str) -> Path:
    path = folder / Path(named).expanduser()
    path = path / FILE_NAME if path.is_dir() else path
    if not path.is_file():
        raise SetupError(CONTEXT_FILE_MISSING, file=path, named_by=named_by, folder=path.parent)
    return path


def read_context(file: Path) -> Context:
    """Raises SetupError for what is no context: unknown keys are refused, so that none is silently without effect."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SetupError(CONTEXT_UNUSABLE, file=file, reason=f"The system says: {error.strerror}.") from error
    except ValueError as error:
        raise SetupError(CONTEXT_UNUSABLE, file=file, reason=f"It is not JSON: {error}.") from error
    return context_of(values, file)


def context_of(values: Any, file: Path) -> Context:
    """The context that these values of a file describe. Raises SetupError."""
    known = {field.name for field in fields(Context)} - {"file", "name"}
    if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
        raise SetupError(CONTEXT_UNUSABLE, file=file, reason="It must hold one object whose values are texts.")
    if unknown := sorted(set(values) - known):
        reason = f"It has {unknown[0]!r}; known are {', '.join(sorted(known))}."
        raise SetupError(CONTEXT_UNUSABLE, file=file, reason=reason)
    base = file.absolute().parent
    facts: dict[str, Any] = {key: absolute(base, value) if key in PATHS else value for key, value in values.items()}
    return Context(**facts, file=file)


def absolute(base: Path, value: str) -> Path:
    return Path(os.path.normpath(base / value))


def write_context(file: Path, context: Context) -> None:
    """Whole or not at all, mode 0600. Raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Disk().put(file.parent, {file.name: (json.dumps(facts_of(context), indent=1) + "\n").encode()})


def facts_of(context: Context) -> dict[str, str]:
    """What a file says of it."""
    own = ("file", "name")
    return {key: str(value) for key, value in asdict(context).items() if value is not None and key not in own}
