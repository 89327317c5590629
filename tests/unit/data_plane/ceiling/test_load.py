"""`site.toml` is the site's veto: what is misread in it is a hole, so all of it is strict."""

import re
import shutil
from pathlib import Path

import pytest

from data_plane.ceiling.load import load_ceiling
from data_plane.ceiling.models import Ceiling, DoorCeiling, Limits, Network
from faos_core.errors import SetupError
from tests.parts import ROOT

SHA = "ab" * 32


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with everything that the sample names."""
    for folder in ("models", "documents/handbook", "tools"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("small.gguf", "embedder.onnx", "tokenizer.json"):
        (tmp_path / "models" / file).touch()
    return tmp_path


def write(site: Path, text: str) -> Path:
    path = site / "site.toml"
    path.write_text(text)
    return path


def refusal(site: Path, text: str) -> SetupError:
    with pytest.raises(SetupError) as caught:
        load_ceiling(write(site, text))
    return caught.value


def test_sample_loads_and_states_the_defaults(site: Path) -> None:
    """The commented sample is what operators copy, so it must load and its 'defaults' must be the real ones."""
    path = Path(shutil.copy(ROOT / "deploy" / "site.toml", site))

    ceiling = load_ceiling(path)

    assert ceiling.models["small"].file == site / "models/small.gguf"
    assert ceiling.folders["handbook"].path == site / "documents/handbook"
    assert ceiling.programs["clock"].network is Network.NONE
    assert ceiling.programs["clock"].readable == (site / "tools",)
    assert (ceiling.limits, ceiling.doors) == (Limits(), Ceiling().doors)


def test_empty_file_allows_nothing_by_name(site: Path) -> None:
    """A site that says nothing allows nothing."""
    ceiling = load_ceiling(write(site, ""))

    assert (ceiling.models, ceiling.folders, ceiling.programs, ceiling.embedder) == ({}, {}, {}, None)
    assert ceiling.doors == {"tunnel": DoorCeiling.IDENTIFIER}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("allow_everything = true", "allow_everything"),
        ("[limits]\nmax_turn = 3", "limits.max_turn"),
        (f'[models.m]\nfile = "models/small.gguf"\nsha256 = "{SHA}"\nhost = "x"', "models.m.host"),
        ('[programs.p]\ncommand = ["sh"]\nnetwork = "host"', "programs.p.network"),
        ("[limits]\nmax_turns = 0", "limits.max_turns"),
        ('[folders.f]\npath = "nowhere"', "folders.f.path"),
        ('[folders.f]\npath = "models/small.gguf"', "folders.f.path"),
        (f'[models.m]\nfile = "nowhere"\nsha256 = "{SHA}"', "models.m.file"),
        ('[models.m]\nfile = "models/small.gguf"\nsha256 = "abc"', "models.m.sha256"),
        ('[folders."../etc"]\npath = "models"', "folders.../etc"),
        ('[programs.p]\ncommand = ["no-such-program-here"]', "programs.p.command"),
        ('[programs.p]\ncommand = ["./tools/none"]', "programs.p.command"),
        ("[programs.p]\ncommand = []", "programs.p.command"),
        ('[programs.p]\ncommand = ["sh"]\nwritable = ["nowhere"]', "programs.p.writable[0]"),
        ('[doors]\ntunel = "identifier"', "doors.tunel"),
        ('[doors]\ntunnel = "customer"', "doors.tunnel"),
        ('approval_required = ["Toolserver"]', "approval_required"),
    ],
)
def test_error_names_file_and_key(site: Path, text: str, named: str) -> None:
    """A person must find the line; a wrong one must never be skipped."""
    error = refusal(site, text)

    assert named in error.what
    assert str(site / "site.toml") in error.what
    assert error.why
    assert error.next_step


def test_missing_path_is_named(site: Path) -> None:
    """The resolved path tells an operator which folder a relative one was taken from."""
    assert str(site / "nowhere") in refusal(site, '[folders.f]\npath = "nowhere"').what


def test_program_with_a_slash_is_relative_to_the_file(site: Path) -> None:
    """Otherwise the node would run whatever lies where it happened to be started."""
    program = site / "tools" / "serve"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)

    ceiling = load_ceiling(write(site, '[programs.p]\ncommand = ["./tools/serve", "--fast"]'))

    assert [Path(part) for part in ceiling.programs["p"].command] == [program, Path("--fast")]


def test_program_on_path_becomes_absolute(site: Path) -> None:
    """A later change of PATH must not change what runs."""
    ceiling = load_ceiling(write(site, '[programs.p]\ncommand = ["sh"]'))

    assert re.fullmatch(r"/.*/sh", ceiling.programs["p"].command[0])


@pytest.mark.parametrize(
    "url",
    [
        "ftp://box",
        "box:11434",
        "http://",
        "http://user:word@box",
        "http://box?key=1",
        "http://box#x",
        "http://box:0",
        "http://box:99999",
        "http://box/a/../b",
        "http://box/%2e",
        "http://box /",
    ],
)
def test_url_of_an_endpoint_that_is_not_plain_is_refused(site: Path, url: str) -> None:
    """What the ceiling names must be readable at a glance, and must not be a place for secrets."""
    text = f'[endpoints.box]\nurl = "{url}"\ndata_class = "customer"\n'

    assert refusal(site, text).code.code == "ceiling.url_malformed"


def test_endpoint_says_what_may_be_sent_there(site: Path) -> None:
    """There is no default: whoever opens a way out decides how wide."""
    ceiling = load_ceiling(write(site, '[endpoints.box]\nurl = "https://box/v1"\ndata_class = "identifier"\n'))
    unsaid = refusal(site, '[endpoints.box]\nurl = "https://box"\n')

    assert ceiling.endpoints["box"].data_class is DoorCeiling.IDENTIFIER
    assert unsaid.code.code == "settings.missing_key"


def test_ca_file_without_certificates_is_refused(site: Path) -> None:
    """Found at the start, not at the first question."""
    (site / "ca.pem").write_text("nothing")
    text = '[endpoints.box]\nurl = "https://box"\ndata_class = "customer"\nca_file = "ca.pem"\n'

    assert refusal(site, text).code.code == "ceiling.ca_file_unusable"
