"""A misspelt setting must not be silently without effect."""

from pathlib import Path

import pytest

from data_plane.network import Network, keep
from data_plane.settings import NodeSettings, load_settings, settings_without_file
from faos_core.errors import SetupError
from faos_core.logs import LogFormat


def write(folder: Path, text: str) -> Path:
    path = folder / "node.toml"
    path.write_text(text)
    return path


def test_defaults_hang_on_the_data_folder(tmp_path: Path) -> None:
    """A node needs to be told one thing: where its data is."""
    settings = load_settings(write(tmp_path, 'data_dir = "data"'), {})

    assert settings == NodeSettings(data_dir=tmp_path / "data")
    assert settings.ceiling_path == tmp_path / "data" / "site.toml"


def test_environment_wins_over_the_file(tmp_path: Path) -> None:
    """Containers and units set variables."""
    path = write(tmp_path, 'data_dir = "data"\nlog_format = "json"\n[apply]\nsoak_s = 0.5')

    settings = load_settings(path, {"FAOS_NODE_LOG_FORMAT": "text", "OTHER": "x"})

    assert (settings.log_format, settings.apply.soak_s) == (LogFormat.TEXT, 0.5)


@pytest.mark.parametrize(
    ("text", "environment", "named"),
    [
        ("data_dir = 'd'\nsoak = 3", {}, "soak"),
        ("data_dir = 'd'\n[apply]\nsoak_seconds = 3", {}, "apply.soak_seconds"),
        ("data_dir = 'd'\n[apply]\nstuck_s = 0", {}, "apply"),
        ("", {}, "data_dir"),
        ("data_dir = 'd'", {"FAOS_NODE_DATADIR": "d"}, "FAOS_NODE_DATADIR"),
    ],
)
def test_error_names_the_key(tmp_path: Path, text: str, environment: dict[str, str], named: str) -> None:
    """A person must find it."""
    with pytest.raises(SetupError) as caught:
        load_settings(write(tmp_path, text), environment)

    assert named in caught.value.what


def test_the_sample_is_read_and_says_the_defaults() -> None:
    """People copy it; a setting that it misspells would be refused on their machine."""
    sample = Path(__file__).parents[3] / "deploy" / "node.toml"

    assert load_settings(sample, {}) == NodeSettings(data_dir=sample.parent / "data")


def test_a_password_in_the_database_url_is_in_no_text(tmp_path: Path) -> None:
    """Settings end up in logs and error reports."""
    settings = load_settings(write(tmp_path, 'data_dir = "d"'), {"FAOS_NODE_DATABASE_URL": "postgresql://u:canary@h/d"})

    assert settings.database_url
    assert "canary" not in repr(settings)


def test_environment_alone_is_enough(tmp_path: Path) -> None:
    """A container that is told where its data is can be told of its network in the same way."""
    environment = {"FAOS_NODE_PROXY": "http://proxy:3128", "FAOS_NODE_DATA_DIR": "elsewhere", "FAOS_CP_X": "y"}

    settings = settings_without_file(tmp_path, environment)

    assert settings == NodeSettings(data_dir=tmp_path, proxy="http://proxy:3128")
    with pytest.raises(SetupError, match="unknown_key"):
        settings_without_file(tmp_path, {"FAOS_NODE_PROXI": "x"})


def test_network_is_what_the_settings_say_and_else_what_join_was_told(tmp_path: Path) -> None:
    """`faos join --proxy` must be enough for `faos node run`; node.toml must be able to change it, or to end it."""
    told = Network("http://old:3128", tmp_path / "credentials", tmp_path / "ca")
    assert NodeSettings(tmp_path).network() == Network()
    keep(tmp_path, told)

    assert (tmp_path / "network.toml").stat().st_mode & 0o777 == 0o600
    assert NodeSettings(tmp_path).network() == told
    assert NodeSettings(tmp_path, proxy="").network() == Network("", None, told.ca_dir)
    assert NodeSettings(tmp_path, proxy="http://new:1").network() == Network("http://new:1", None, told.ca_dir)
    assert NodeSettings(tmp_path, ca_dir=tmp_path).network().ca_dir == tmp_path


def test_a_password_in_the_proxys_url_is_in_no_text(tmp_path: Path) -> None:
    """Settings are printed in tracebacks."""
    settings = NodeSettings(tmp_path, proxy="http://u:pa55@proxy")

    assert "pa55" not in repr(settings) + repr(settings.network())
