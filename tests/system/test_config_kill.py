"""`kill -9` at any moment of applying leaves the old configuration or the new one, and a node that starts."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_plane.link.config_store import ConfigStore, StoredState
from faos_core.disk import Disk
from tests.fixtures.resources_of_a_site import LABELS, site
from tests.fixtures.tuf_publisher import Publisher
from tests.parts import ROOT
from tests.patience import PATIENCE_S

CHILD = Path(__file__).with_name("config_kill_child.py")
REVISIONS = 3
RANDOM_KILLS = 15


class QuickDisk(Disk):
    """Looks without waiting for the disk: nothing is killed while the test itself looks."""

    def sync_folder(self, folder: Path) -> None:
        """Not needed here."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three offers, the second of which rotates a key."""
    publisher = Publisher()
    (tmp_path / "root.json").write_bytes(publisher.tuf_root)
    (tmp_path / "offers").mkdir()
    for revision in range(1, REVISIONS + 1):
        if revision == 2:
            publisher.rotate("targets")
        offer = publisher.offer(revision, site(str(revision)))
        (tmp_path / "offers" / f"{revision}").write_bytes(offer.SerializeToString())
    return tmp_path


def start(folder: Path, *trials: str) -> "subprocess.Popen[str]":
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "proto")])}
    command = [sys.executable, str(CHILD), str(folder), *trials]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def run(folder: Path) -> list[str]:
    """Lines that a child said that nothing killed."""
    output, error = (child := start(folder)).communicate(timeout=PATIENCE_S)
    assert child.returncode == 0, error
    return output.split("\n")


def run_trials(folder: Path, crash_points: dict[str, int]) -> dict[str, list[str]]:
    """Lines that each trial said before it was killed."""
    trials = [f"{name}:{crash_at}" for name, crash_at in crash_points.items()]
    _, error = (child := start(folder, *trials)).communicate(timeout=2 * PATIENCE_S)
    assert child.returncode == 0, error
    return {name: (folder / name / "said").read_text().split("\n") for name in crash_points}


def last_healthy(lines: list[str]) -> int:
    """Highest revision that was reported healthy, or that the child started with."""
    said = [line.split() for line in lines if line.startswith(("healthy", "started"))]
    return max((int(revision) for _, revision in said), default=0)


def check(folder: Path, lines: list[str], *, at_least: int) -> StoredState:
    """Old or new, never half: what was acknowledged is there, and what is there loads and verifies."""
    if not (folder / "config").exists():
        return StoredState()
    store = ConfigStore(folder / "config", disk=QuickDisk())
    store.open()
    state = store.state
    good = store.last_known_good(LABELS)
    acknowledged = max(at_least, last_healthy(lines))
    assert good.revision in (acknowledged, acknowledged + 1)
    assert good.revision == state.healthy.revision
    assert state.healthy.revision <= state.high_water.revision <= acknowledged + 1
    if good.revision:
        assert good.agents["helper"].instructions == f"Version {good.revision}."
        assert store.configuration(state.attempted, LABELS).revision == state.high_water.revision
    if trusted := store.trusted_metadata():
        targets = json.loads((trusted / "targets.json").read_bytes())
        assert targets["signed"]["version"] == state.high_water.revision, "metadata and marks change together"
    assert (trusted is None) == (state.high_water.revision == 0)
    return state


def test_child_goes_through_every_kind_of_operation(folder: Path) -> None:
    """Without this, a crash test that never crashes would pass."""
    lines = run(folder)

    assert last_healthy(lines) == REVISIONS
    assert {"point write", "point fsync", "point rename", "point fsync folder", "point mkdir"} <= set(lines)


@pytest.mark.slow
def test_killed_before_every_disk_operation(folder: Path) -> None:
    """Each operation in turn is the one that never happens; after it, the node goes on to the end all the same."""
    total = operations(run(trial_in(folder, "whole")))
    assert total > 100
    points = {f"trial-{crash_at}": crash_at for crash_at in range(1, total + 1)}
    for name in points:
        trial_in(folder, name)

    healthy = {}
    for name, lines in run_trials(folder, points).items():
        assert operations(lines) == points[name], "it was killed there"
        healthy[name] = check(folder / name, lines, at_least=0).healthy.revision
    assert set(healthy.values()) == set(range(REVISIONS + 1))

    for name, lines in run_trials(folder, dict.fromkeys(points, 0)).items():
        assert f"started {healthy[name]}" in lines
        assert check(folder / name, lines, at_least=0).healthy.revision == REVISIONS


def operations(lines: list[str]) -> int:
    return sum(line.startswith("point") for line in lines)


def trial_in(folder: Path, name: str) -> Path:
    """The same offers for a node that has applied none."""
    trial = folder / name
    trial.mkdir()
    (trial / "root.json").symlink_to(folder / "root.json")
    (trial / "offers").symlink_to(folder / "offers")
    return trial


@pytest.mark.slow
def test_killed_at_random_moments_again_and_again(folder: Path) -> None:
    """One node, killed from outside wherever it happens to be, always comes back to at least what it acknowledged."""
    chance = random.Random(3)
    acknowledged = 0
    for _ in range(RANDOM_KILLS):
        child = start(folder)
        wait_for_start(child)
        time.sleep(chance.uniform(0.0, 0.15))
        child.kill()
        output, _ = child.communicate(timeout=PATIENCE_S)
        state = check(folder, output.split("\n"), at_least=acknowledged)
        assert state.healthy.revision >= acknowledged
        acknowledged = state.healthy.revision

    assert check(folder, run(folder), at_least=acknowledged).healthy.revision == REVISIONS


def wait_for_start(child: "subprocess.Popen[str]") -> None:
    """Until its first disk operation, so that the kill falls into the work and not into imports."""
    assert child.stdout is not None
    assert child.stdout.readline().startswith("point")
