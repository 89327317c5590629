"""Settings files: TOML and environment into frozen dataclasses. What nobody declared is refused, by file and key.

A field's type says what the file may hold: str, int, float, bool, Path, a StrEnum, `X | None`, tuple[X, ...],
frozenset[X], dict[str, X] and other dataclasses. Relative paths are relative to the file's own folder.
Where a dict holds dataclasses with a field `name`, the key of each table is its name:

    [programs.clock]        →   {"clock": Program(name="clock", command=("clockd",))}
    command = ["clockd"]
"""

import dataclasses
import difflib
import tomllib
import types
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from faos_core.errors import SetupError, define

T = TypeVar("T")

FILE_UNREADABLE = define(
    "settings.file_unreadable",
    what="The settings file {file} cannot be read.",
    why="{reason}",
    next_step="Look at it: ls -l {file}",
)
NOT_TOML = define(
    "settings.not_toml",
    what="The settings file {file} is not TOML.",
    why="{reason}",
    next_step="Correct that line of {file}.",
)
UNKNOWN_KEY = define(
    "settings.unknown_key",
    what="{file}: there is no setting {key!r}.",
    why="Unknown settings are refused, so that a misspelt one is not silently without effect.{hint}",
    next_step="Correct or remove {key!r} in {file}.",
)
MISSING_KEY = define(
    "settings.missing_key",
    what="{file}: the setting {key!r} is missing.",
    why="It has no default.",
    next_step="Add {key!r} to {file}.",
)
WRONG_TYPE = define(
    "settings.wrong_type",
    what="{file}: {key!r} is not {expected}.",
    why="It is {actual}.",
    next_step="Correct {key!r} in {file}.",
)
VALUE_INVALID = define(
    "settings.value_invalid",
    what="{file}: the value of {key!r} cannot be used.",
    why="{reason}",
    next_step="Correct {key!r} in {file}.",
)


def load_toml(path: Path, cls: type[T], *, environment: Mapping[str, str] | None = None, prefix: str = "") -> T:
    """An instance of the dataclass `cls` from a TOML file; variables of the environment win over the file.

    environment, prefix: every variable that starts with a non-empty `prefix` must name a field of `cls`
    (FAOS_CP_DATA_DIR is data_dir); lists are separated by commas. Fields that are tables have no variable.
    Raises: SetupError naming the file (or "environment"), the key, and the nearest known key.
    """
    settings = parse_toml(path)
    declared = get_type_hints(cls)
    overrides = _from_environment(declared, environment or {}, prefix) if prefix else {}
    base = path.absolute().parent
    values = _Reader(str(path), base).fields(declared, settings, key="")
    values |= _Reader("environment", base, spell=lambda key: prefix + key.upper()).fields(declared, overrides, key="")
    return _Reader(str(path), base).build(cls, values, key="")


def from_environment(cls: type[T], environment: Mapping[str, str], prefix: str, **given: Any) -> T:
    """As `load_toml` without a file. given: fields that win over the environment. Raises SetupError."""
    declared = get_type_hints(cls)
    reader = _Reader("environment", Path.cwd(), spell=lambda key: prefix + key.upper())
    return reader.build(
        cls, reader.fields(declared, _from_environment(declared, environment, prefix), key="") | given, key=""
    )


def parse_toml(path: Path) -> dict[str, Any]:
    """The file as TOML says. Raises SetupError when it cannot be read or is not TOML in UTF-8."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = f"The system says: {error.strerror or type(error).__name__}."
        raise SetupError(FILE_UNREADABLE, file=str(path), reason=reason) from error
    except UnicodeDecodeError as error:
        raise SetupError(NOT_TOML, file=str(path), reason=f"Byte {error.start} is not UTF-8.") from error
    except tomllib.TOMLDecodeError as error:
        raise SetupError(NOT_TOML, file=str(path), reason=f"The parser says: {error}.") from error


def _from_environment(declared: Mapping[str, Any], environment: Mapping[str, str], prefix: str) -> dict[str, Any]:
    """The variables that carry the prefix, as TOML would have given them."""
    given = {name.removeprefix(prefix): text for name, text in environment.items() if name.startswith(prefix)}
    return {name.lower(): _parse_text(declared.get(name.lower(), str), text) for name, text in given.items()}


def _parse_text(declared: Any, text: str) -> Any:
    """The text as the TOML value of the declared type, or the text itself where it is none: the check says so."""
    declared = _without_none(declared)
    if get_origin(declared) in (tuple, frozenset):
        item = get_args(declared)[0]
        return [_parse_text(item, part.strip()) for part in text.split(",") if part.strip()]
    if declared in (int, float, bool):
        try:
            parsed = tomllib.loads(f"value = {text}")
        except tomllib.TOMLDecodeError:
            return text
        return parsed["value"] if len(parsed) == 1 else text
    return text


def _without_none(declared: Any) -> Any:
    """X for `X | None`; anything else as it is."""
    if get_origin(declared) not in (Union, types.UnionType):
        return declared
    kept = [option for option in get_args(declared) if option is not type(None)]
    if len(kept) != 1:
        raise TypeError(f"settings cannot hold {declared!r}")
    return kept[0]


class _Reader:
    """Turns plain TOML values of one file into declared types, and knows where it is for the error."""

    def __init__(self, file: str, base: Path, *, spell: Callable[[str], str] = str) -> None:
        self._file = file
        self._base = base
        self._spell = spell

    def fields(self, declared: Mapping[str, Any], table: Mapping[str, Any], *, key: str) -> dict[str, Any]:
        """Each entry of the table by its declared type; the absent ones stay absent."""
        for name in table:
            if name not in declared:
                self._refuse_unknown(_join(key, name), name, declared)
        return {name: self.value(declared[name], value, key=_join(key, name)) for name, value in table.items()}

    def build(self, cls: type[T], values: Mapping[str, Any], *, key: str) -> T:
        """The dataclass of these values; a ValueError of its __post_init__ becomes a SetupError."""
        assert dataclasses.is_dataclass(cls), f"{cls!r} is not a dataclass"
        for field in dataclasses.fields(cls):
            required = field.default is field.default_factory is dataclasses.MISSING
            if required and field.name not in values:
                raise SetupError(MISSING_KEY, file=self._file, key=self._spell(_join(key, field.name)))
        try:
            return cls(**values)
        except ValueError as error:
            raise self._error_invalid(key or "the file", str(error)) from error

    def value(self, declared: Any, value: Any, *, key: str) -> Any:
        declared = _without_none(declared)
        origin = get_origin(declared) or declared
        if dataclasses.is_dataclass(declared):
            return self._dataclass(declared, value, key=key)
        if origin in (tuple, frozenset):
            item = get_args(declared)[0]
            items = self._expect(value, list, "a list", key)
            return origin(self.value(item, each, key=f"{key}[{index}]") for index, each in enumerate(items))
        if origin is dict:
            return self._dict(get_args(declared)[1], value, key=key)
        return self._scalar(declared, value, key=key)

    def _dataclass(self, cls: Any, value: Any, *, key: str, name: str | None = None) -> Any:
        table = self._expect(value, dict, "a table", key)
        declared = get_type_hints(cls)
        if name is None or "name" not in declared:
            return self.build(cls, self.fields(declared, table, key=key), key=key)
        declared.pop("name")
        return self.build(cls, {"name": name} | self.fields(declared, table, key=key), key=key)

    def _dict(self, item: Any, value: Any, *, key: str) -> dict[str, Any]:
        table = self._expect(value, dict, "a table", key)
        if not dataclasses.is_dataclass(item):
            return {name: self.value(item, each, key=_join(key, name)) for name, each in table.items()}
        return {name: self._dataclass(item, each, key=_join(key, name), name=name) for name, each in table.items()}

    def _scalar(self, declared: Any, value: Any, *, key: str) -> Any:
        if declared is float and type(value) is int:
            return float(value)
        if declared in NAMES_OF_TYPES:
            return self._expect(value, declared, NAMES_OF_TYPES[declared], key)
        if declared is Path:
            return self._path(value, key)
        if isinstance(declared, type) and issubclass(declared, StrEnum):
            return self._choice(declared, value, key)
        raise TypeError(f"settings cannot hold {declared!r}")

    def _path(self, value: Any, key: str) -> Path:
        text = self._expect(value, str, "a path in quotes", key)
        if not text:
            raise self._error_invalid(key, "A path cannot be empty.")
        return self._base / Path(text).expanduser()

    def _choice(self, declared: type[StrEnum], value: Any, key: str) -> StrEnum:
        text = self._expect(value, str, "text in quotes", key)
        allowed = [str(member) for member in declared]
        if text not in allowed:
            raise self._error_invalid(key, f"It must be one of: {', '.join(allowed)}.{hint(text, allowed)}")
        return declared(text)

    def _expect(self, value: Any, wanted: type, expected: str, key: str) -> Any:
        if type(value) is wanted:
            return value
        actual = NAMES_OF_TYPES.get(type(value), type(value).__name__)
        raise SetupError(WRONG_TYPE, file=self._file, key=self._spell(key), expected=expected, actual=actual)

    def _error_invalid(self, key: str, reason: str) -> SetupError:
        return SetupError(VALUE_INVALID, file=self._file, key=self._spell(key), reason=reason)

    def _refuse_unknown(self, key: str, name: str, known: Iterable[str]) -> NoReturn:
        near = hint(self._spell(name), [self._spell(each) for each in known])
        raise SetupError(UNKNOWN_KEY, file=self._file, key=self._spell(key), hint=near)


NAMES_OF_TYPES: dict[type, str] = {
    str: "text in quotes",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a table",
}


def hint(word: str, known: Iterable[str]) -> str:
    """ " Did you mean 'x'?" for the nearest known word; empty when none is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
