"""The same on two machines: a control plane here, a node there, and one string handed over."""

import json
import secrets
import sys
from pathlib import Path

import pytest

from faos_cli.up.needles import search
from tests.e2e.machines import HOME, Machine, must, two_machines
from tests.e2e.processes import FAOS
from tests.parts import ROOT
from tests.system.quickstart import DOCUMENT_QUESTION, TOOL_QUESTION

pytestmark = [
    pytest.mark.needs("namespaces", "model", "embedder"),
    pytest.mark.slow,
]

RESOURCES = str(ROOT / "examples" / "quickstart" / "resources")


def test_a_join_string_is_all_that_a_site_needs_from_the_cloud() -> None:
    """What the README promises for real installations; shared files would hide that something else must be copied."""
    document, tool = (str(10_000 + secrets.randbelow(90_000)) for _ in range(2))
    with two_machines() as (cloud, premises):
        share_nothing(cloud, premises)
        tunnel = f"{cloud.address}:7443"
        listen = ("--tunnel-listen", tunnel, "--admin-listen", "127.0.0.1:7444", "--public-address", tunnel)
        with cloud.running(*FAOS, "control-plane", "run", "--data", "cp", *listen) as control_plane:
            control_plane.until("control_plane.ready")
            admin = (*FAOS, "--context", "cp/context.json")
            must(cloud, *admin, "tenant", "create", "mercy")
            must(cloud, *admin, "site", "create", "annex", "--tenant", "mercy")
            join_string = must(cloud, *admin, "join-token", "create", "--tenant", "mercy", "--site", "annex").strip()

            site_file = must(premises, *child("site"), f"{HOME}/site", document, tool).strip()
            joined = premises.run(*FAOS, "join", join_string, "--data", "node", "--site", "annex")
            assert joined.returncode == 0, joined.stderr
            with premises.running(
                *FAOS, "node", "run", "--data", "node", "--site-file", site_file, "--soak", "1"
            ) as node:
                node.until("node.ready")
                applied = cloud.run(*admin, "apply", "--tenant", "mercy", "-f", RESOURCES, "--wait=120s")
                assert applied.returncode == 0, applied.stdout + applied.stderr + node.text
                nodes = json.loads(must(cloud, *admin, "get", "nodes", "-o", "json"))
                answers = [ask(premises, question) for question in (DOCUMENT_QUESTION, TOOL_QUESTION)]

    assert "HEALTHY" in json.dumps(nodes), nodes
    assert document in answers[0]
    assert tool in answers[1]
    assert search([("log", control_plane.text.encode())], [document, tool]).is_clean


def child(name: str) -> tuple[str, str]:
    return sys.executable, str(Path(__file__).with_name(f"{name}_child.py"))


def ask(machine: Machine, question: str) -> str:
    return must(machine, *FAOS, "--context", "node/context.json", "run", "assistant", question)


def share_nothing(first: Machine, second: Machine) -> None:
    """The test is only worth something when this holds."""
    must(first, "touch", f"{HOME}/here")
    assert must(second, "ls", HOME) == ""
    written = first.run("touch", str(ROOT / "written"))
    assert written.returncode != 0
    assert "Read-only" in written.stderr
