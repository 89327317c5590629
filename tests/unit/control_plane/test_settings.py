"""The settings file, and the sample that people copy."""

import dataclasses
import re
from pathlib import Path

import pytest

from control_plane.settings import ControlPlaneSettings, load_settings
from faos_core.errors import SetupError
from faos_core.logs import LogFormat, LogLevel
from tests.parts import ROOT

SAMPLE = ROOT / "deploy" / "control-plane.toml"


def write(folder: Path, text: str) -> Path:
    path = folder / "control-plane.toml"
    path.write_text(text)
    return path


def test_sample_loads() -> None:
    """It is what operators copy; a setting that was renamed must be renamed there."""
    settings = load_settings(SAMPLE, environment={})

    assert settings.data_dir == ROOT / "deploy" / "data"
    assert settings.public_addresses == ("control-plane.example:7443",)


def test_sample_names_every_setting_with_its_default(tmp_path: Path) -> None:
    """Fully commented means fully: nobody reads the source to find a setting."""
    sample = SAMPLE.read_text()
    default = ControlPlaneSettings(data_dir=tmp_path)
    shown = load_settings(SAMPLE, environment={})

    for field in dataclasses.fields(ControlPlaneSettings):
        assert re.search(rf"^(# )?{field.name} = |^\[{field.name}\]", sample, re.MULTILINE), field.name
        if field.name not in ("data_dir", "public_addresses"):
            assert getattr(shown, field.name) == getattr(default, field.name), field.name


def test_sample_holds_when_every_comment_is_taken_away(tmp_path: Path) -> None:
    """A line that somebody uncomments must load, too."""
    text = re.sub(r"^# (\w+ = )", r"\1", SAMPLE.read_text(), flags=re.MULTILINE)

    assert load_settings(write(tmp_path, text), environment={}).database_url is not None


def test_environment_wins(tmp_path: Path) -> None:
    """Containers set variables over the image's file."""
    variables = {"FAOS_CP_LOG_LEVEL": "DEBUG", "FAOS_CP_PUBLIC_ADDRESSES": "a:1,[::1]:2", "FAOS_NODE_X": "ignored"}

    settings = load_settings(write(tmp_path, 'data_dir = "d"\nlog_format = "text"'), environment=variables)

    assert settings.log_level is LogLevel.DEBUG
    assert settings.log_format is LogFormat.TEXT
    assert settings.public_addresses == ("a:1", "[::1]:2")


def test_database_is_a_file_in_the_data_folder_unless_set(tmp_path: Path) -> None:
    """One folder to back up."""
    settings = ControlPlaneSettings(data_dir=tmp_path)

    assert settings.database == f"sqlite:///{tmp_path}/control-plane.db"
    assert dataclasses.replace(settings, database_url="sqlite:////x").database == "sqlite:////x"


@pytest.mark.parametrize(
    "line",
    [
        'tunnel_listen = "7443"',
        'tunnel_listen = ":7443"',
        'admin_listen = "localhost"',
        'admin_listen = "localhost:"',
        'admin_listen = "localhost:65536"',
        'admin_listen = "localhost:-1"',
        'admin_listen = "::1:80"',
        'admin_listen = "a b:80"',
        'public_addresses = ["cp:0"]',
        'public_addresses = ["cp:7443", ""]',
    ],
)
def test_addresses_that_cannot_be_listened_on_are_refused(tmp_path: Path, line: str) -> None:
    """At start, by name, and not minutes later in a node's log."""
    with pytest.raises(SetupError) as caught:
        load_settings(write(tmp_path, f'data_dir = "d"\n{line}'), environment={})

    assert line.split(" ")[0] in caught.value.why


@pytest.mark.parametrize("line", ["statuses_kept_per_node = 99", "request_answers_kept_s = 60.0"])
def test_keeping_less_than_is_shown_or_promised_is_refused(tmp_path: Path, line: str) -> None:
    """An answer that is gone before its client asks again is a change that is made twice."""
    with pytest.raises(SetupError) as caught:
        load_settings(write(tmp_path, f'data_dir = "d"\n{line}'), environment={})

    assert line.split(" ")[0] in caught.value.why


@pytest.mark.parametrize("line", ['tunnel_listen = "[::]:7443"', 'admin_listen = "127.0.0.1:0"'])
def test_addresses_that_can_be_listened_on_pass(tmp_path: Path, line: str) -> None:
    """IPv6 and free ports are both in use."""
    assert load_settings(write(tmp_path, f'data_dir = "d"\n{line}'), environment={})


def test_a_misspelt_setting_is_refused(tmp_path: Path) -> None:
    """It would be silently without effect."""
    with pytest.raises(SetupError) as caught:
        load_settings(write(tmp_path, 'data_dir = "d"\nadmin_listn = "x:1"'), environment={})

    assert "'admin_listen'" in caught.value.why
