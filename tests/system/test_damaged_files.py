"""Files of a node that were damaged while it was off: found at the start, said plainly, and never silently repaired."""

import shutil
from pathlib import Path

import pytest

from data_plane.egress.service import ledger_folder
from faos_core.errors import FaosError, IntegrityError
from tests.system.sites import Site, SiteNode
from tests.system.small_site import allow_all, until

pytestmark = [pytest.mark.needs("embedder", "model")]


def flip(file: Path, place: int) -> None:
    """One bit of the byte at that part of the file: 0 to 99 hundredths."""
    data = bytearray(file.read_bytes())
    data[len(data) * place // 100] ^= 1
    file.write_bytes(data)


def damage(file: Path, how: str) -> None:
    if how == "flipped":
        flip(file, 50)
    elif how == "emptied":
        file.write_bytes(b"")
    else:
        file.unlink()


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def refused(node: SiteNode) -> FaosError:
    """What its operator is told at the start."""
    with pytest.raises(FaosError) as caught:
        await node.start()
    return caught.value


@pytest.mark.parametrize(("pattern", "place"), [("*.seg", 5), ("*.seg", 50), ("*.seg", 99), ("head", 20)])
async def test_a_damaged_ledger_is_named_left_as_it_is_and_starts_once_restored(
    tmp_path: Path, pattern: str, place: int
) -> None:
    """The ledger is the site's evidence: a node that mended it by itself would destroy what it proves."""
    async with Site(tmp_path) as site:
        await site.apply(allow_all())
        await site.converged()
        await site.node.stop()
        folder = ledger_folder(site.node.data_dir)
        shutil.copytree(folder, tmp_path / "copy")
        flip(next(folder.glob(pattern)), place)
        before = contents(folder)

        error = await refused(site.node)

        assert isinstance(error, IntegrityError)
        assert error.code.code == "ledger.damaged"
        assert next(folder.glob(pattern)).name in error.what
        assert contents(folder) == before
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "copy", folder)
        await site.node.start()
        await site.apply(allow_all("after"))
        await site.converged()
        assert site.node.ledger().ok


@pytest.mark.parametrize("how", ["flipped", "emptied", "removed"])
async def test_a_damaged_configuration_state_is_named_with_what_to_type(tmp_path: Path, how: str) -> None:
    """Nobody guesses what is trusted; what the message says to type brings the site back, with its cloud in reach."""
    async with Site(tmp_path) as site:
        await site.apply(allow_all())
        await site.converged()
        await site.node.stop()
        folder = site.node.data_dir / "config"
        damage(folder / "state.json", how)

        error = await refused(site.node)

        assert isinstance(error, IntegrityError)
        assert str(folder / "state.json") in error.what
        assert f"mv {folder} {folder}.damaged" in error.next_step
        folder.rename(f"{folder}.damaged")
        await site.node.start()
        await site.converged()


@pytest.mark.parametrize("how", ["flipped", "emptied", "removed"])
@pytest.mark.parametrize("part", ["manifests", "blobs"])
async def test_damaged_content_is_said_and_comes_again(
    tmp_path: Path, part: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is a cache under digests that are signed for: the node starts, says what is amiss, and the cloud sends it."""
    async with Site(tmp_path) as site:
        await site.apply(allow_all())
        await site.converged()
        await site.node.stop()
        file = next((site.node.data_dir / "config" / part).iterdir())
        damage(file, how)
        site.cut()

        running = await site.node.start()

        assert running.applier.alarms() == ("config.nothing_runs",)
        said = [record for record in caplog.records if record.getMessage() == "config.content_damaged"]
        assert len(said) == (how != "removed")
        site.heal()
        await until(lambda: running.activation.running().revision == 1)
        await site.converged()
        assert running.applier.alarms() == ()
