"""[telemetry] of node.toml."""

from pathlib import Path

import pytest

from data_plane.settings import load_settings
from faos_core.errors import SetupError
from faos_core.telemetry_target import Target


def settings_of(folder: Path, text: str):  # type: ignore[no-untyped-def]  # as load_settings
    (file := folder / "node.toml").write_text(f"data_dir = 'd'\n[telemetry]\n{text}\n")
    return load_settings(file, {}).telemetry


def test_telemetry_goes_where_the_file_says(tmp_path: Path) -> None:
    """To the site's own disk, or to an endpoint that site.toml names: never to an address that stands here."""
    assert settings_of(tmp_path, "").to is Target.OFF
    assert settings_of(tmp_path, "to = 'file'").to is Target.FILE
    assert settings_of(tmp_path, "to = 'otlp'\nendpoint = 'collector'").endpoint == "collector"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("to = 'otlp'", "endpoint"),
        ("to = 'cloud'", "to"),
        ("interval_s = 0.1", "interval_s"),
        ("file_bytes = 1", "file_bytes"),
        ("url = 'http://x'", "url"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_name(tmp_path: Path, text: str, said: str) -> None:
    """Found at the start, not when somebody needs the trace."""
    with pytest.raises(SetupError) as refused:
        settings_of(tmp_path, text)

    assert said in f"{refused.value.what} {refused.value.why}"
