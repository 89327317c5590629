"""The bootstrap token: made once, readable by one user, compared by its digest."""

import stat
from pathlib import Path

import pytest

from control_plane.api.bootstrap_admin import TOKEN_PATTERN, BootstrapAdmin
from control_plane.api.errors import TOKEN_FILE_UNUSABLE
from faos_core.errors import SetupError, UnauthenticatedError


async def test_open_makes_a_token_that_only_its_owner_reads(tmp_path: Path) -> None:
    """Whoever reads the file is the administrator."""
    file = tmp_path / "data" / "admin.token"

    admin = BootstrapAdmin.open(file)

    token = file.read_text().strip()
    assert TOKEN_PATTERN.fullmatch(token)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert list(file.parent.iterdir()) == [file]
    assert (await admin.authenticate(token)).may("anything.at_all")


async def test_open_keeps_the_token_of_the_first_start(tmp_path: Path) -> None:
    """A restart must not lock the operator out."""
    BootstrapAdmin.open(tmp_path / "admin.token")
    token = (tmp_path / "admin.token").read_text().strip()

    assert (await BootstrapAdmin.open(tmp_path / "admin.token").authenticate(token)).subject == "bootstrap-admin"


async def test_two_control_planes_have_two_tokens(tmp_path: Path) -> None:
    """A token that were derived from anything could be guessed."""
    first, second = tmp_path / "1", tmp_path / "2"
    admin = BootstrapAdmin.open(first)
    BootstrapAdmin.open(second)

    with pytest.raises(UnauthenticatedError):
        await admin.authenticate(second.read_text().strip())


@pytest.mark.parametrize("change", [str.upper, lambda token: token[:-1], lambda token: token + " ", lambda _: ""])
async def test_a_token_that_is_nearly_right_is_wrong(tmp_path: Path, change: object) -> None:
    """No normalisation, no prefix match."""
    admin = BootstrapAdmin.open(tmp_path / "admin.token")
    token = (tmp_path / "admin.token").read_text().strip()
    assert callable(change)

    with pytest.raises(UnauthenticatedError):
        await admin.authenticate(change(token))


def test_the_token_itself_is_not_kept(tmp_path: Path) -> None:
    """A dump of the process must not hold it."""
    admin = BootstrapAdmin.open(tmp_path / "admin.token")

    assert (tmp_path / "admin.token").read_text().strip() not in repr(vars(admin))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    """Its token counts as known; repairing the mode would hide that."""
    file = tmp_path / "admin.token"
    BootstrapAdmin.open(file)
    file.chmod(mode)

    with pytest.raises(SetupError) as caught:
        BootstrapAdmin.open(file)

    assert caught.value.code is TOKEN_FILE_UNUSABLE
    assert str(file) in caught.value.next_step


@pytest.mark.parametrize("content", [b"", b"\n", b"password", b"\xff\xfe"])
def test_a_file_without_a_token_is_refused(tmp_path: Path, content: bytes) -> None:
    """An empty file must not make the empty token good."""
    file = tmp_path / "admin.token"
    file.touch(mode=0o600)
    file.write_bytes(content)

    with pytest.raises(SetupError) as caught:
        BootstrapAdmin.open(file)

    assert caught.value.why


def test_a_folder_in_its_place_is_said(tmp_path: Path) -> None:
    """What, why and what to type, not a traceback."""
    (tmp_path / "admin.token").mkdir(mode=0o700)

    with pytest.raises(SetupError) as caught:
        BootstrapAdmin.open(tmp_path / "admin.token")

    assert caught.value.why.startswith("The system says:")
