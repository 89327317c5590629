"""`make chaos` in small: every kind of fault on real processes, once."""

import json
import os
import sys
from pathlib import Path

import pytest

from tests.chaos.schedule import Kind, schedule
from tests.e2e.processes import finished
from tests.parts import ROOT

WHERE = {"PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("", "proto", "installer"))}
LEFT_OUT = {Kind.KILL_STARTING_NODE, Kind.PAUSE_CLOUD, Kind.CLOCK_CLOUD}  # much as others, and the suite is long


@pytest.mark.needs("namespaces", "postgres", "model", "embedder", "faketime")
@pytest.mark.slow
@pytest.mark.timeout(960)
def test_a_site_converges_and_loses_nothing_whatever_strikes_it(tmp_path: Path) -> None:
    """Promise 5 and the invariants on the real thing: kill -9, partition, full disk, wrong clock, damaged files."""
    kinds = [kind.name for kind in Kind if kind not in LEFT_OUT]
    command = (sys.executable, "-m", "tests.chaos", "--faults", str(len(kinds)), "--seed", "11", "--nodes", "1")
    command += ("--kinds", ",".join(kinds), "--json", str(tmp_path / "chaos.json"))

    done = finished(*command, cwd=tmp_path, environment=WHERE, timeout_s=900)

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"chaos: {len(kinds)} faults, 0 violations" in done.stdout
    result = json.loads((tmp_path / "chaos.json").read_text())
    assert {each["fault"]["kind"] for each in result["struck"]} == set(Kind) - LEFT_OUT
    assert result["runs acknowledged"] > len(kinds)
    assert result["revisions acknowledged"] == len(kinds) + 1


def test_a_fault_is_the_same_alone_as_in_its_schedule() -> None:
    """A violation that cannot be had again by one command would not be mended."""
    kinds = list(Kind)
    whole = schedule(7, first=0, count=60, nodes=3, kinds=kinds)

    (alone,) = schedule(7, first=41, count=1, nodes=3, kinds=kinds)

    assert alone == whole[41]
    assert alone.chance().random() == whole[41].chance().random()
    assert {fault.kind for fault in whole[:15]} == {fault.kind for fault in whole[15:30]} == set(kinds)
    assert schedule(8, first=0, count=60, nodes=3, kinds=kinds) != whole
