"""Contexts by name: which control planes and nodes this user works with, and which one is in use.

One file, ${XDG_CONFIG_HOME:-~/.config}/faos/contexts.json, written whole and readable by its owner alone. It holds no
token, only where each lies; one that was typed in lies beside it, in a file of mode 0600.

    {"current": "prod", "contexts": {"prod": {"admin_address": "cloud.example:7444", "ca_file": "…", …}}}
"""

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from faos_cli.context import Context, context_of, facts_of, is_name, user_file
from faos_cli.errors import CONTEXT_EXISTS, CONTEXT_NAME, CONTEXT_UNKNOWN, CONTEXT_UNUSABLE
from faos_core.disk import Disk
from faos_core.errors import ConflictError, InvalidError, NotFoundError, SetupError

FILE_NAME = "contexts.json"
TOKENS = "tokens"


@dataclass(frozen=True, slots=True)
class Contexts:
    """Of one user. Reads the file each time; holds nothing. Any number of commands may change it at once."""

    file: Path

    @classmethod
    def of_user(cls, environment: Mapping[str, str]) -> "Contexts":
        return cls(user_file(environment).parent / FILE_NAME)

    @property
    def current(self) -> str:
        """The name in use; "" for none."""
        return str(self._read()["current"])

    def all(self) -> dict[str, Context]:
        """By name, in order. Raises SetupError."""
        said = self._read()["contexts"]
        return {name: replace(context_of(said[name], self.file), name=name) for name in sorted(said)}

    def get(self, name: str) -> Context | None:
        """Raises SetupError for a file that cannot be used."""
        return self.all().get(name)

    def in_use(self) -> Context | None:
        """Raises SetupError for a file that cannot be used."""
        name = self.current
        return self.get(name) if name else None

    def require(self, name: str) -> Context:
        """Raises NotFoundError."""
        context = self.get(name)
        if context is None:
            raise NotFoundError(CONTEXT_UNKNOWN, name=name, file=self.file)
        return context

    def add(self, name: str, context: Context) -> bool:
        """Whether it is in use now: the first one is. Raises as `refuse_unusable`."""
        self.refuse_unusable(name)
        with self._alone():
            self.refuse_unusable(name)
            said = self._read()
            said["contexts"][name] = facts_of(context)
            said["current"] = said["current"] or name
            self._write(said)
        return bool(said["current"] == name)

    def refuse_unusable(self, name: str) -> None:
        """Raises: InvalidError (no name), ConflictError (there is one of that name)."""
        if not is_name(name):
            raise InvalidError(CONTEXT_NAME, name=name)
        if name in self._read()["contexts"]:
            raise ConflictError(CONTEXT_EXISTS, name=name)

    def use(self, name: str) -> None:
        """Raises NotFoundError."""
        self.require(name)
        with self._alone():
            self.require(name)
            self._write(self._read() | {"current": name})

    def remove(self, name: str) -> None:
        """With the token that was typed in for it. Raises NotFoundError."""
        self.require(name)
        with self._alone():
            self.require(name)
            said = self._read()
            del said["contexts"][name]
            self._write(said | {"current": "" if said["current"] == name else said["current"]})
            self._token_file(name).unlink(missing_ok=True)

    def keep_token(self, name: str, token: str) -> Path:
        """A file of mode 0600 with this token. Raises OSError."""
        file = self._token_file(name)
        Disk().make_folder(file.parent)
        Disk().put(file.parent, {file.name: f"{token}\n".encode()})
        return file

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Of all commands of this user that change the file: each reads what the one before wrote. The lock goes with
        the process, however that ends. Not to be entered twice. Raises OSError."""
        Disk().make_folder(self.file.parent)
        with self.file.with_name(f"{self.file.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _token_file(self, name: str) -> Path:
        return self.file.parent / TOKENS / name

    def _read(self) -> dict[str, Any]:
        try:
            said = json.loads(self.file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {"current": "", "contexts": {}}
        except OSError as error:
            raise SetupError(CONTEXT_UNUSABLE, file=self.file, reason=f"The system says: {error.strerror}.") from error
        except ValueError as error:
            raise SetupError(CONTEXT_UNUSABLE, file=self.file, reason=f"It is not JSON: {error}.") from error
        if not (isinstance(said, dict) and isinstance(said.get("contexts"), dict)):
            raise SetupError(CONTEXT_UNUSABLE, file=self.file, reason="It must hold an object with 'contexts'.")
        return {"current": str(said.get("current") or ""), "contexts": said["contexts"]}

    def _write(self, said: Mapping[str, Any]) -> None:
        Disk().put(self.file.parent, {self.file.name: (json.dumps(said, indent=1) + "\n").encode()})
