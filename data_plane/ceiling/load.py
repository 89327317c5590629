"""Reads `site.toml`. The node refuses to start on anything in it that it does not understand or cannot find."""

import re
import shutil
import ssl
from dataclasses import replace
from pathlib import Path
from typing import NoReturn
from urllib.parse import SplitResult, urlsplit

from data_plane.ceiling.errors import (
    CA_FILE_UNUSABLE,
    DOOR_UNKNOWN,
    KIND_UNKNOWN,
    LIMIT_NOT_POSITIVE,
    NAME_MALFORMED,
    PATH_MISSING,
    PROGRAM_MISSING,
    SHA256_MALFORMED,
    TUNNEL_DOOR_TOO_HIGH,
    URL_MALFORMED,
)
from data_plane.ceiling.models import Ceiling, DoorCeiling, EmbedderFiles, Endpoint, Limits, ModelFile, Program
from faos_core.errors import SetupError
from faos_core.ids import NAME_PATTERN
from faos_core.kinds import BY_NAME
from faos_core.settings import hint, load_toml

SHA256_PATTERN = re.compile(r"[0-9a-f]{64}")
DOORS = ("tunnel", "remote-model", "mcp-http")
URL_SCHEMES = ("http", "https")


def load_ceiling(path: Path) -> Ceiling:
    """The ceiling that `site.toml` defines; relative paths are relative to the file's folder.

    Every file, folder and program that it names must exist: a node that starts can run what its site allows.
    Raises: SetupError naming the file, the key and, where it is about one, the path.
    """
    ceiling = load_toml(path, Ceiling)
    return _Reader(path).complete(ceiling)


class _Reader:
    """Checks what the types cannot say, and knows the file for the error."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._base = file.absolute().parent

    def complete(self, ceiling: Ceiling) -> Ceiling:
        """The ceiling with commands made absolute and doors complete, once all checks have passed."""
        self._names(ceiling)
        for model in ceiling.models.values():
            self._model(model)
        if ceiling.embedder:
            self._embedder(ceiling.embedder)
        for folder in ceiling.folders.values():
            self._exists(folder.path, f"folders.{folder.name}.path", "folder")
        for endpoint in ceiling.endpoints.values():
            self._endpoint(endpoint)
        self._limits(ceiling.limits)
        self._kinds(ceiling.approval_required)
        programs = {name: self._program(program) for name, program in ceiling.programs.items()}
        return replace(ceiling, programs=programs, doors=self._doors(ceiling.doors))

    def _names(self, ceiling: Ceiling) -> None:
        tables = {
            "models": [*ceiling.models],
            "folders": [*ceiling.folders],
            "programs": [*ceiling.programs],
            "endpoints": [*ceiling.endpoints],
        }
        for table, names in tables.items():
            for name in names:
                if not NAME_PATTERN.fullmatch(name):
                    raise SetupError(NAME_MALFORMED, file=str(self._file), key=f"{table}.{name}", name=name)

    def _model(self, model: ModelFile) -> None:
        key = f"models.{model.name}"
        self._exists(model.file, f"{key}.file", "file")
        self._sha256(model.sha256, f"{key}.sha256")

    def _embedder(self, embedder: EmbedderFiles) -> None:
        self._exists(embedder.model, "embedder.model", "file")
        self._sha256(embedder.model_sha256, "embedder.model_sha256")
        self._exists(embedder.tokenizer, "embedder.tokenizer", "file")
        self._sha256(embedder.tokenizer_sha256, "embedder.tokenizer_sha256")

    def _endpoint(self, endpoint: Endpoint) -> None:
        key = f"endpoints.{endpoint.name}"
        if not is_endpoint_url(endpoint.url):
            raise SetupError(URL_MALFORMED, file=str(self._file), key=f"{key}.url")
        if endpoint.ca_file:
            self._exists(endpoint.ca_file, f"{key}.ca_file", "file")
            self._authorities(endpoint.ca_file, f"{key}.ca_file")

    def _authorities(self, path: Path, key: str) -> None:
        try:
            ssl.create_default_context(cafile=str(path))
        except (ssl.SSLError, OSError) as error:
            raise SetupError(CA_FILE_UNUSABLE, file=str(self._file), key=key, path=str(path)) from error

    def _program(self, program: Program) -> Program:
        key = f"programs.{program.name}"
        for name, paths in {"readable": program.readable, "writable": program.writable}.items():
            for index, path in enumerate(paths):
                self._exists(path, f"{key}.{name}[{index}]", "file or folder")
        if not program.command:
            self._refuse_program(f"{key}.command", "")
        executable = self._executable(program.command[0], f"{key}.command")
        return replace(program, command=(executable, *program.command[1:]))

    def _executable(self, name: str, key: str) -> str:
        """Where the program is: as a path relative to the file when it has a slash, else found on PATH."""
        found = shutil.which(str(self._base / name) if "/" in name else name)
        if not found:
            self._refuse_program(key, name)
        return str(Path(found).absolute())

    def _refuse_program(self, key: str, name: str) -> NoReturn:
        raise SetupError(PROGRAM_MISSING, file=str(self._file), key=key, program=name)

    def _exists(self, path: Path, key: str, wanted: str) -> None:
        found = {"file": path.is_file, "folder": path.is_dir}.get(wanted, path.exists)()
        if not found:
            raise SetupError(PATH_MISSING, file=str(self._file), key=key, path=str(path), wanted=wanted)

    def _sha256(self, text: str, key: str) -> None:
        if not SHA256_PATTERN.fullmatch(text):
            raise SetupError(SHA256_MALFORMED, file=str(self._file), key=key)

    def _limits(self, limits: Limits) -> None:
        for name in Limits.__dataclass_fields__:
            if getattr(limits, name) < 1:
                raise SetupError(LIMIT_NOT_POSITIVE, file=str(self._file), key=f"limits.{name}")

    def _kinds(self, kinds: frozenset[str]) -> None:
        for kind in sorted(kinds - set(BY_NAME)):
            near = hint(kind, BY_NAME)
            raise SetupError(KIND_UNKNOWN, file=str(self._file), kind=kind, known=", ".join(BY_NAME), hint=near)

    def _doors(self, doors: dict[str, DoorCeiling]) -> dict[str, DoorCeiling]:
        for door in doors:
            if door not in DOORS:
                raise SetupError(DOOR_UNKNOWN, file=str(self._file), door=door, known=", ".join(DOORS))
        if doors.get("tunnel") is DoorCeiling.CUSTOMER:
            raise SetupError(TUNNEL_DOOR_TOO_HIGH, file=str(self._file))
        return Ceiling().doors | doors


def is_endpoint_url(text: str) -> bool:
    """Scheme, host, perhaps port and path; nothing that would carry a secret or a question."""
    try:
        parts = urlsplit(text)
        return bool(parts.hostname) and parts.port != 0 and parts.scheme in URL_SCHEMES and not _extras(parts)
    except ValueError:
        return False


def _extras(parts: SplitResult) -> bool:
    dotted = any(part in (".", "..") for part in parts.path.split("/"))
    odd = any(character.isspace() or character in "?#%\\" for character in parts.geturl())
    return parts.username is not None or parts.password is not None or dotted or odd
