"""Which control plane and which node the commands speak to: a small JSON file, and flags over it.

    {"admin_address": "127.0.0.1:7444", "ca_file": "control-plane/ca/ca.pem", "token_file": "…/admin.token",
     "tenant": "mercy", "site": "main", "node_data_dir": "node", "control_plane_data_dir": "control-plane"}

Every key may be absent; relative paths are relative to the file's own folder. Looked for in this order: --context,
FAOS_CONTEXT, .faos/context.json in the working folder and above, then ${XDG_CONFIG_HOME:-~/.config}/faos/context.json.
"""

import json
import os
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
PATHS = ("ca_file", "token_file", "node_data_dir", "control_plane_data_dir")


@dataclass(frozen=True, slots=True)
class Context:
    """Whom to speak to. Paths are absolute; None means that nobody said."""

    admin_address: str | None = None  # host:port
    ca_file: Path | None = None
    token_file: Path | None = None
    tenant: str | None = None
    site: str | None = None
    node_data_dir: Path | None = None
    control_plane_data_dir: Path | None = None
    file: Path | None = None  # that it was read from

    def overridden(self, **flags: Any) -> "Context":
        """With every flag that was given in place of what the file says."""
        return replace(self, **{key: value for key, value in flags.items() if value is not None})

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
            raise SetupError(CONTEXT_MISSING, user_file=user_file({}))
        raise SetupError(CONTEXT_INCOMPLETE, missing=missing, source=self.file, key=key, flag=flag)


def find_context(named: str | None, environment: Mapping[str, str], folder: Path) -> Context:
    """The context that applies in `folder`; an empty one when there is no file.

    named: file, or folder that holds a context.json, as --context gave it.
    Raises: SetupError when a file was named and is not there, or cannot be used.
    """
    if named:
        return read_context(existing(named, folder, named_by="--context"))
    if variable := environment.get(VARIABLE):
        return read_context(existing(variable, folder, named_by=VARIABLE))
    for candidate in (*(each / FOLDER / FILE_NAME for each in (folder, *folder.parents)), user_file(environment)):
        if candidate.is_file():
            return read_context(candidate)
    return Context()


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
    known = {field.name for field in fields(Context)} - {"file"}
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
    facts = {key: str(value) for key, value in asdict(context).items() if value is not None and key != "file"}
    file.parent.mkdir(parents=True, exist_ok=True)
    Disk().put(file.parent, {file.name: (json.dumps(facts, indent=1) + "\n").encode()})
