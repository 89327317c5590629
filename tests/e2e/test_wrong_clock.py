"""A site whose clock is a day off, ahead or behind: real processes that believe it, over the whole path."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from faos.tunnel.v1 import tunnel_pb2 as tunnel
from tests.e2e.processes import FAOS, bytecode_apart, finished, running
from tests.parts import libfaketime
from tests.patience import PATIENCE_S
from tests.system.harness import RunningControlPlane, running_control_plane
from tests.system.small_site import allow_all, fill_small_site, until_settled

pytestmark = [pytest.mark.slow, pytest.mark.needs("faketime", "embedder")]

LIFETIME_S = 16.0


@pytest.fixture
def at_the_site(offset: str) -> dict[str, str]:
    """The environment of a program whose clock is wrong. The monotonic clock is the machine's: it cannot be set."""
    clock = {"LD_PRELOAD": str(libfaketime()), "FAKETIME": offset, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    return clock | bytecode_apart(offset)


@pytest.mark.parametrize("offset", ["+1d", "-1d"])
async def test_site_whose_clock_is_a_day_off_joins_runs_renews_and_is_told(
    tmp_path: Path, at_the_site: dict[str, str], offset: str
) -> None:
    """Hospitals have such machines: they must work, not storm, and somebody must hear of it."""
    where = ("--data", str(tmp_path / "node"), "--site-file", str(fill_small_site(tmp_path / "site")))
    async with running_control_plane(tmp_path / "cp", heartbeat_s=1.0, node_certificate_lifetime_s=LIFETIME_S) as plane:
        await plane.create_tenant()
        command = (*FAOS, "join", await plane.join_string(), *where)
        joined = await asyncio.to_thread(finished, *command, cwd=tmp_path, environment=at_the_site)
        assert joined.returncode == 0, joined.stdout + joined.stderr
        (node,) = await plane.all_nodes()
        await plane.apply(allow_all())

        began_s = time.monotonic()
        run = (*FAOS, "node", "run", *where, "--soak", "0.1")
        with running(*run, cwd=tmp_path, environment=at_the_site) as process:
            seen = await until_settled(plane, node.name, 1)
            assert seen.config.state == tunnel.APPLY_STATE_HEALTHY
            await renewed(plane, seen, times=2)
            told = await asyncio.to_thread(examined, *where, folder=tmp_path, environment=at_the_site)
            renewals = process.text.count("certificate.issued") + process.text.count("certificate.renewed")

        last = await plane.node(node.name)
        assert (last.standing, last.alarm) == (seen.standing, ""), "its renewals are taken for no thief's"
        assert renewals < 4 + (time.monotonic() - began_s) / (LIFETIME_S / 4), (
            "no storm of renewals: due at half a life"
        )
        assert told["clock"] != "pass", told


async def renewed(plane: RunningControlPlane, node: Any, *, times: int) -> None:
    """The control plane sees so many newer certificates, each in use."""
    async with asyncio.timeout(PATIENCE_S):
        for _ in range(times):
            before = node.certificate_expires_at
            while (node := await plane.node(node.name)).certificate_expires_at == before:
                await asyncio.sleep(0.1)


def examined(*where: str, folder: Path, environment: dict[str, str]) -> dict[str, str]:
    """What `faos doctor` finds at that machine, by check."""
    done = finished(*FAOS, "doctor", *where[:2], "-o", "json", cwd=folder, environment=environment)
    return {each["check"]: each["verdict"] for each in json.loads(done.stdout)}
