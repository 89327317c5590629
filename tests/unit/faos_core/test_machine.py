"""What the machine itself can do wrong to a node or a control plane."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from faos_core.checkup import Verdict, examine
from faos_core.machine import clock, disk_checks, existing, file_system, mount_of, space, writes

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
MOUNTS = """\
22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
30 22 0:25 / /srv rw shared:1 - xfs /dev/sdb rw
31 30 0:26 / /srv/share rw - nfs4 server:/x rw
32 22 0:27 / /mnt/with\\040blank rw - tmpfs none rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/a", "ext4"),
        ("/srv/a", "xfs"),
        ("/srv/share/a", "nfs4"),
        ("/srv/shared", "xfs"),
        ("/mnt/with blank", "tmpfs"),
    ],
)
def test_mount_is_the_innermost_one(path: str, kind: str) -> None:
    """A folder is on the disk that is mounted nearest above it."""
    assert mount_of(Path(path), MOUNTS).kind == kind


async def test_a_folder_that_is_not_there_yet_is_looked_at_above_and_not_made(tmp_path: Path) -> None:
    """Before a machine joins, its data folder does not exist, and the doctor makes nothing."""
    folder = tmp_path / "not" / "yet"

    results = await examine(disk_checks(folder))

    assert existing(folder) == tmp_path
    assert {result.check.name for result in results} == {
        "disk space",
        "disk write",
        "file system",
        "temporary folder",
    }
    assert all(result.finding.verdict is not Verdict.FAIL for result in results), results
    assert list(tmp_path.iterdir()) == []


def test_trying_to_write_leaves_nothing(tmp_path: Path) -> None:
    """It runs beside a node, in the node's own folder."""
    assert writes(tmp_path).verdict in (Verdict.PASS, Verdict.WARN)
    assert list(tmp_path.iterdir()) == []


def test_places_where_nothing_can_be_kept_are_said() -> None:
    """The system's own words are for whoever runs it."""
    refused = writes(Path("/proc"))
    assert refused.verdict in (Verdict.FAIL, Verdict.SKIPPED)
    shared = Path("/dev/shm")
    if shared.is_dir():
        assert file_system(shared).verdict is Verdict.WARN


def test_space_says_how_much() -> None:
    """The number is what a person compares."""
    assert "GiB free" in space(Path("/")).what


@pytest.mark.parametrize(
    ("earliest", "latest", "fails"),
    [
        (None, None, False),
        (NOW - timedelta(days=1), NOW + timedelta(days=1), False),
        (NOW + timedelta(minutes=1), None, True),
        (None, NOW - timedelta(minutes=1), True),
    ],
)
def test_clock_is_held_against_what_others_signed(
    earliest: datetime | None, latest: datetime | None, fails: bool
) -> None:
    """A clock that is years off makes every certificate look wrong."""
    assert (clock(NOW, earliest, latest).verdict is Verdict.FAIL) == fails


@pytest.mark.parametrize("name", ["données", "a b", "back\\slash"])
def test_mount_point_of_any_name_is_found(name: str) -> None:
    """A network disk under a name with an accent would pass as the local disk that it hangs below."""
    written = name.replace("\\", "\\134").replace(" ", "\\040")
    mounts = f"1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:5 / /srv/{written} rw - nfs4 server:/ rw\n"

    assert mount_of(Path("/srv") / name / "faos", mounts).kind == "nfs4"
