"""What the settings loader accepts, and how it says no."""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faos_core import settings
from faos_core.errors import ErrorCode, SetupError
from faos_core.settings import load_toml


class Color(StrEnum):
    RED = "red"
    GREEN = "green"


@dataclass(frozen=True, slots=True)
class Program:
    name: str
    command: tuple[str, ...]
    readable: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    turns: int = 4
    seconds: float = 1.0

    def __post_init__(self) -> None:
        if self.turns < 1:
            raise ValueError("turns begin at 1.")


@dataclass(frozen=True, slots=True)
class Sample:
    data_dir: Path
    color: Color = Color.RED
    verbose: bool = False
    label: str | None = None
    port: int = 1
    tags: frozenset[str] = frozenset()
    addresses: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    programs: dict[str, Program] = field(default_factory=dict)
    colors: dict[str, Color] = field(default_factory=dict)


def write(folder: Path, text: str) -> Path:
    path = folder / "sample.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(folder: Path, text: str, **environment: str) -> SetupError:
    with pytest.raises(SetupError) as caught:
        load_toml(write(folder, text), Sample, environment=environment, prefix="T_")
    return caught.value


def test_load_gives_every_declared_type(tmp_path: Path) -> None:
    """Both planes rely on these conversions; nothing else parses their files."""
    text = """
        data_dir = "data"
        color = "green"
        verbose = true
        label = "x"
        port = 8
        tags = ["a", "b", "a"]
        addresses = ["h:1"]
        colors = {sky = "red"}
        [limits]
        turns = 2
        seconds = 3
        [programs.clock]
        command = ["clockd", "--utc"]
        readable = ["/etc/hosts", "docs"]
    """

    loaded = load_toml(write(tmp_path, text), Sample)

    assert loaded == Sample(
        data_dir=tmp_path / "data",
        color=Color.GREEN,
        verbose=True,
        label="x",
        port=8,
        tags=frozenset({"a", "b"}),
        addresses=("h:1",),
        limits=Limits(turns=2, seconds=3.0),
        programs={"clock": Program("clock", ("clockd", "--utc"), (Path("/etc/hosts"), tmp_path / "docs"))},
        colors={"sky": Color.RED},
    )


def test_load_leaves_defaults_where_the_file_is_silent(tmp_path: Path) -> None:
    """A short file must be enough."""
    assert load_toml(write(tmp_path, 'data_dir = "d"'), Sample) == Sample(data_dir=tmp_path / "d")


@pytest.mark.parametrize(
    ("text", "code", "key"),
    [
        ('data_dir = "d"\ncolour = "red"', settings.UNKNOWN_KEY, "colour"),
        ('data_dir = "d"\n[limits]\nturn = 1', settings.UNKNOWN_KEY, "limits.turn"),
        ('data_dir = "d"\n[programs.p]\nname = "q"\ncommand = []', settings.UNKNOWN_KEY, "programs.p.name"),
        ("port = 1", settings.MISSING_KEY, "data_dir"),
        ('data_dir = "d"\n[programs.p]', settings.MISSING_KEY, "programs.p.command"),
        ("data_dir = 1", settings.WRONG_TYPE, "data_dir"),
        ('data_dir = "d"\nport = true', settings.WRONG_TYPE, "port"),
        ('data_dir = "d"\nport = 1.5', settings.WRONG_TYPE, "port"),
        ('data_dir = "d"\nverbose = 1', settings.WRONG_TYPE, "verbose"),
        ('data_dir = "d"\nlimits = []', settings.WRONG_TYPE, "limits"),
        ('data_dir = "d"\nprograms = "p"', settings.WRONG_TYPE, "programs"),
        ('data_dir = "d"\naddresses = ["a", 2]', settings.WRONG_TYPE, "addresses[1]"),
        ('data_dir = ""', settings.VALUE_INVALID, "data_dir"),
        ('data_dir = "d"\ncolor = "gren"', settings.VALUE_INVALID, "color"),
        ('data_dir = "d"\n[limits]\nturns = 0', settings.VALUE_INVALID, "limits"),
    ],
)
def test_load_refuses_by_file_and_key(tmp_path: Path, text: str, code: ErrorCode, key: str) -> None:
    """A person must find the line without a search: the error names the file and the whole key."""
    error = refused(tmp_path, text)

    assert error.code is code
    assert error.fields["key"] == key
    assert str(tmp_path / "sample.toml") in error.what
    assert error.why
    assert error.next_step


def test_load_suggests_the_nearest_key_and_choice(tmp_path: Path) -> None:
    """Most wrong keys are misspelt ones."""
    assert "Did you mean 'color'?" in refused(tmp_path, 'colour = "red"').why
    assert "Did you mean 'green'?" in refused(tmp_path, 'data_dir = "d"\ncolor = "gren"').why


def test_load_says_what_is_wrong_with_the_file_itself(tmp_path: Path) -> None:
    """No file, not TOML, not text: three causes with three different cures."""
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"a = '\xff'")

    with pytest.raises(SetupError) as absent:
        load_toml(tmp_path / "absent.toml", Sample)
    with pytest.raises(SetupError) as not_text:
        load_toml(binary, Sample)

    assert absent.value.code is settings.FILE_UNREADABLE
    assert not_text.value.code is settings.NOT_TOML
    error = refused(tmp_path, 'data_dir = "d" x\n')
    assert error.code is settings.NOT_TOML
    assert "line 1" in error.why


def test_environment_wins_over_the_file(tmp_path: Path) -> None:
    """Containers configure by variables, over a file that the image carries."""
    path = write(tmp_path, 'data_dir = "d"\nport = 1')
    environment = {"T_PORT": "9", "T_ADDRESSES": "a:1, b:2", "T_COLOR": "green", "T_VERBOSE": "true", "OTHER": "x"}

    loaded = load_toml(path, Sample, environment=environment, prefix="T_")

    assert loaded.port == 9
    assert loaded.addresses == ("a:1", "b:2")
    assert loaded.color is Color.GREEN
    assert loaded.verbose is True


def test_environment_supplies_what_the_file_lacks(tmp_path: Path) -> None:
    """A required setting may come from either place."""
    loaded = load_toml(write(tmp_path, ""), Sample, environment={"T_DATA_DIR": "/d"}, prefix="T_")

    assert loaded.data_dir == Path("/d")


@pytest.mark.parametrize(
    ("variable", "text", "code"),
    [
        ("T_PROT", "9", settings.UNKNOWN_KEY),
        ("T_PORT", "nine", settings.WRONG_TYPE),
        ("T_PORT", "1\nx = 2", settings.WRONG_TYPE),
        ("T_COLOR", "blue", settings.VALUE_INVALID),
        ("T_LIMITS", "x", settings.WRONG_TYPE),
    ],
)
def test_environment_is_refused_under_its_own_name(tmp_path: Path, variable: str, text: str, code: ErrorCode) -> None:
    """The cure is in the environment then, not in the file."""
    error = refused(tmp_path, 'data_dir = "d"', **{variable: text})

    assert error.code is code
    assert error.fields["key"] == variable
    assert error.what.startswith("environment:")


@given(st.dictionaries(st.text(min_size=1, max_size=8), st.integers(), max_size=4))
def test_no_undeclared_key_ever_passes(tmp_path_factory: pytest.TempPathFactory, table: dict[str, int]) -> None:
    """Whatever the key looks like, it is refused or declared."""
    reader = settings._Reader("f", Path("/"))
    declared = {"port": int}

    if set(table) <= set(declared):
        assert reader.fields(declared, table, key="") == table
    else:
        with pytest.raises(SetupError):
            reader.fields(declared, table, key="")
