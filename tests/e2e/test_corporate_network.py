"""A site whose only way out is the company's proxy: three machines, real commands, and no route around it."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.machines import HOME, Machine, must, two_machines
from tests.e2e.processes import FAOS
from tests.parts import ROOT
from tests.servers.proxies import INSPECTOR

pytestmark = [
    pytest.mark.needs("namespaces", "model", "embedder"),
    pytest.mark.slow,
]

CLOUD = "10.99.0.1"  # behind the proxy's machine; the site has no route there
TUNNEL = f"{CLOUD}:7443"
ADMIN = (*FAOS, "--context", "cp/context.json")
PROXY = (sys.executable, str(ROOT / "tests" / "servers" / "proxies.py"))
RESOURCES = str(ROOT / "examples" / "quickstart" / "resources")


@contextmanager
def cloud_behind_proxy() -> Iterator[tuple[Machine, Machine, str]]:
    """The proxy's machine, on which the control plane listens where only it can reach; the site; a join string."""
    with two_machines() as (edge, premises):
        must(edge, "ip", "address", "add", f"{CLOUD}/32", "dev", "lo")
        listen = ("--tunnel-listen", TUNNEL, "--admin-listen", "127.0.0.1:7444", "--public-address", TUNNEL)
        with edge.running(*FAOS, "control-plane", "run", "--data", "cp", *listen) as control_plane:
            control_plane.until("control_plane.ready")
            must(edge, *ADMIN, "tenant", "create", "mercy")
            must(edge, *ADMIN, "site", "create", "annex", "--tenant", "mercy")
            string = must(edge, *ADMIN, "join-token", "create", "--tenant", "mercy", "--site", "annex").strip()
            yield edge, premises, string


@contextmanager
def proxy(edge: Machine, port: int, *words: str) -> Iterator[str]:
    with edge.running(*PROXY, f"{edge.address}:{port}", *words) as running:
        running.until("proxy is ready")
        yield f"http://{edge.address}:{port}"


def findings(machine: Machine, *arguments: str) -> dict[str, dict[str, str]]:
    """What `faos doctor` says, by check."""
    done = machine.run(*FAOS, "doctor", *arguments, "-o", "json")
    found = {each["check"]: each for each in json.loads(done.stdout)}
    failed = [name for name, each in found.items() if each["verdict"] == "fail"]
    assert done.returncode == int(bool(failed)), done.stdout + done.stderr
    return found


def run_node(premises: Machine, site_file: str) -> tuple[str, ...]:
    return (*FAOS, "node", "run", "--data", "node", "--site-file", site_file, "--soak", "1")


def test_node_behind_a_proxy_becomes_healthy_and_an_inspector_is_named() -> None:
    """The whole story of such a site: why it cannot join, how it can, that it works, and what breaks it later."""
    with cloud_behind_proxy() as (edge, premises, string):
        site_file = must(premises, sys.executable, site_child(), f"{HOME}/site", "10001", "10002").strip()
        direct = findings(premises, string)
        assert direct["port"]["verdict"] == "fail", direct
        assert "proxy" in direct["port"]["next"]
        assert premises.run(*FAOS, "join", string, "--data", "node").returncode == 1

        with proxy(edge, 3129, "inspect") as inspecting:
            refused = premises.run(*FAOS, "join", string, "--data", "node", "--proxy", inspecting)
            seen = findings(premises, string, "--proxy", inspecting)
        assert refused.returncode == 1
        assert INSPECTOR in refused.stderr
        assert "exempt" in refused.stderr
        assert INSPECTOR in seen["tls"]["what"]

        with proxy(edge, 3128) as url:
            assert findings(premises, string, "--proxy", url)["tls"]["verdict"] == "pass"
            joined = premises.run(*FAOS, "join", string, "--data", "node", "--proxy", url)
            assert joined.returncode == 0, joined.stderr
            with premises.running(*run_node(premises, site_file)) as node:
                node.until("session.open")
                applied = must(edge, *ADMIN, "apply", "--tenant", "mercy", "-f", RESOURCES, "--wait=120s")
                well = findings(premises, "--data", "node", "--site-file", site_file)
        assert "healthy on 1 node" in applied
        assert {each["verdict"] for each in well.values()} <= {"pass", "warn", "skipped"}, well
        assert "connected" in well["node"]["what"]
        assert "HOLDS" in must(premises, *FAOS, "ledger", "verify", "--data", "node").upper()
        assert f"CONNECT {TUNNEL}" in must(premises, *FAOS, "ledger", "show", "--data", "node")

        with proxy(edge, 3128, "inspect"), premises.running(*run_node(premises, site_file)) as node:
            node.until(f"session.failed.*tls.intercepted.*{INSPECTOR}")
            told = premises.run(*FAOS, "--context", "node/context.json", "status")
        assert told.returncode == 1
        assert "tls.intercepted" in told.stdout
        assert INSPECTOR in told.stdout


def site_child() -> str:
    return str(Path(__file__).with_name("site_child.py"))
