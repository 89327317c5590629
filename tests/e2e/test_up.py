"""`faos up` as a newcomer meets it: real processes, real model, real tool; and everything that gets in its way."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes import (
    FAOS,
    eventually_none_with,
    faos,
    finished,
    fresh_ports,
    processes_with,
    running,
    taken_port,
    up_once,
)

pytestmark = [pytest.mark.needs("model", "embedder"), pytest.mark.slow]

STAYS = "stays up until Ctrl-C"


def test_first_time_answers_come_from_the_site_and_the_second_time_goes_on_from_there(tmp_path: Path) -> None:
    """The product's first minute, and its second: same node, same revision, other numbers."""
    ports = fresh_ports()

    cold = up_once(tmp_path, *ports)
    warm = up_once(tmp_path, *ports)

    assert "5 created" in cold["said"]
    assert "5 unchanged" in warm["said"]
    assert "is a member already" in warm["said"]
    assert all(check["ok"] for facts in (cold, warm) for check in facts["checks"].values())
    assert cold["numbers"] != warm["numbers"]
    assert warm["left"]["by_class"]["CUSTOMER"] == {"messages": 0, "bytes": 0}
    assert warm["ledger"]["size"] > cold["ledger"]["size"]
    assert warm["search"]["bytes"] > 100_000
    eventually_none_with(str(tmp_path / "d" / "node"))


def test_the_folders_are_for_this_user_only(tmp_path: Path) -> None:
    """Keys, token and the site's documents lie there."""
    up_once(tmp_path, *fresh_ports())

    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in (tmp_path / "d").iterdir() if path.is_dir()}

    assert set(modes.values()) == {"0o700"}, modes


def test_staying_up_serves_the_other_commands_and_ctrl_c_stops_all_of_it(tmp_path: Path) -> None:
    """What is told to try next works, and nothing is left behind when the user has enough."""
    with running(*FAOS, "up", "--data", ".faos", *fresh_ports(), cwd=tmp_path) as up:
        up.until(STAYS)

        answer = faos("run", "assistant", "What is the number of the oxygen emergency line?", cwd=tmp_path)
        nodes = faos("get", "nodes", "-o", "json", cwd=tmp_path)
        verified = faos("ledger", "verify", cwd=tmp_path)
        code = up.end(signal.SIGINT)

    document = (tmp_path / ".faos" / "site" / "handbook" / "oxygen.md").read_text()
    assert answer.returncode == 0, answer.stderr
    assert number_in(answer.stdout) in document
    assert "HEALTHY" in nodes.stdout, nodes.stdout + nodes.stderr
    assert verified.returncode == 0, verified.stderr
    assert code == 0, up.text
    assert "Stopped: node, control plane." in up.text
    assert "Traceback" not in up.text
    assert not (tmp_path / ".faos" / "node" / "node.sock").exists()
    eventually_none_with(str(tmp_path / ".faos" / "node"))


def number_in(text: str) -> str:
    return next(word for word in text.replace(".", " ").split() if word.isdigit())


def test_ctrl_c_before_all_is_up_stops_what_was_started(tmp_path: Path) -> None:
    """The impatient user: no traceback, no orphan, and the next time goes on."""
    ports = fresh_ports()
    with running(*FAOS, "up", "--data", "d", *ports, cwd=tmp_path) as up:
        up.until("✓ control plane")
        code = up.end(signal.SIGINT)

    assert code == 2, up.text  # cancelled, as gh has it
    assert "Traceback" not in up.text
    eventually_none_with(str(tmp_path / "d" / "control-plane"))
    assert "goes on from what is there" in up_once(tmp_path, *ports)["said"]


@pytest.mark.parametrize("reached", ["✓ site", "✓ control plane", "✓ node", "✓ configuration"])
def test_kill_9_leaves_no_orphans_and_the_next_run_takes_it_up(tmp_path: Path, reached: str) -> None:
    """A machine switched off half-way is the commonest installation accident."""
    ports = fresh_ports()
    with running(*FAOS, "up", "--data", "d", *ports, cwd=tmp_path) as up:
        up.until(reached)
        up.end(signal.SIGKILL)
    eventually_none_with(str(tmp_path / "d" / "control-plane"))
    eventually_none_with(str(tmp_path / "d" / "node"))

    facts = up_once(tmp_path, *ports)

    assert facts["ok"]
    assert "goes on from what is there" in facts["said"]


def test_a_process_that_dies_while_all_is_up_is_started_again(tmp_path: Path) -> None:
    """`faos up` is the one supervisor of the embedded default."""
    with running(*FAOS, "up", "--data", ".faos", *fresh_ports(), cwd=tmp_path) as up:
        up.until(STAYS)
        (pid,) = processes_with("node", "run", str(tmp_path / ".faos" / "node"))
        up.until(r"First token")
        os.kill(pid, signal.SIGKILL)
        up.until(r"SIGKILL.*Starting it again")

        answer = faos("runs", cwd=tmp_path)
        code = up.end()

    assert code == 0, up.text
    assert "Traceback" not in answer.stderr


def test_a_second_up_in_the_same_folder_is_refused_by_pid(tmp_path: Path) -> None:
    """Two supervisors over one database would fight; the user is told which one there is."""
    with running(*FAOS, "up", "--data", "d", *fresh_ports(), cwd=tmp_path) as up:
        up.until("✓ control plane")

        second = faos("up", "--once", "--data", "d", cwd=tmp_path)

    assert second.returncode == 1
    assert f"process {up.process.pid}" in second.stderr
    assert three_sentences(second.stderr)


def test_usual_ports_taken_others_are_chosen_and_remembered(tmp_path: Path) -> None:
    """A second installation on a machine must not fail for a number; its node must find it again."""
    with taken_port(7443), taken_port(7444):
        first = up_once(tmp_path)
    second = up_once(tmp_path)

    assert 7443 not in first["ports"].values()
    assert 7444 not in first["ports"].values()
    assert second["ports"] == first["ports"]
    assert second["ok"]


def test_a_port_that_was_asked_for_and_is_taken_is_an_error(tmp_path: Path) -> None:
    """Somebody who names a port has a reason, a firewall for instance: no silent other one."""
    with taken_port() as port:
        done = faos("up", "--once", "--data", "d", "--tunnel-port", str(port), cwd=tmp_path)

    assert done.returncode == 1
    assert f"Port {port}" in done.stderr
    assert three_sentences(done.stderr)


def test_an_edited_ceiling_stays(tmp_path: Path) -> None:
    """site.toml is the site's veto: nothing that the vendor ships overwrites what the operator wrote."""
    ports = fresh_ports()
    up_once(tmp_path, *ports)
    ceiling = tmp_path / "d" / "site" / "site.toml"
    edited = ceiling.read_text().replace("max_seconds = 300", "max_seconds = 200")
    ceiling.write_text(edited)

    said = up_once(tmp_path, *ports)["said"]

    assert ceiling.read_text() == edited
    assert "edited at this site" in said


def test_a_damaged_identity_is_named_with_what_to_do(tmp_path: Path) -> None:
    """Half a file after a full disk must not end in a stack trace."""
    ports = fresh_ports()
    up_once(tmp_path, *ports)
    (tmp_path / "d" / "node" / "identity" / "node.pem").write_text("-----BEGIN")

    done = faos("up", "--once", "--data", "d", *ports, cwd=tmp_path)

    assert done.returncode == 1
    assert "identity" in done.stderr
    assert three_sentences(done.stderr)
    eventually_none_with(str(tmp_path / "d" / "control-plane"))


def test_a_removed_control_plane_is_told_from_a_fresh_start(tmp_path: Path) -> None:
    """The node's data is the customer's: it is neither thrown away nor left waiting for ever."""
    ports = fresh_ports()
    up_once(tmp_path, *ports)
    (tmp_path / "d" / "control-plane").rename(tmp_path / "gone")

    done = faos("up", "--once", "--data", "d", *ports, cwd=tmp_path)

    assert done.returncode == 1
    assert "another control plane" in done.stderr
    assert (tmp_path / "d" / "node" / "identity" / "identity.json").exists()


def test_no_network_says_what_to_check(tmp_path: Path) -> None:
    """The first run fetches the model; behind a closed firewall the message is all that the user has."""
    environment = {"FAOS_ASSETS": str(tmp_path / "models"), "PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "0"}

    done = faos("up", "--once", "--data", "d", *fresh_ports(), cwd=tmp_path, environment=environment)

    assert done.returncode == 1
    assert "could not be fetched" in done.stderr
    assert three_sentences(done.stderr)
    eventually_none_with(str(tmp_path / "d" / "control-plane"))


@pytest.mark.needs("namespaces")
def test_a_full_disk_is_named_with_how_much_is_needed(tmp_path: Path) -> None:
    """Of all failures of a first run the one with the strangest symptoms, unless it is looked for."""
    (tmp_path / "small").mkdir()
    script = f"mount -t tmpfs -o size=32m none small && exec {' '.join(FAOS)} up --once --data small/d"

    done = finished("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, cwd=tmp_path)

    assert done.returncode == 1
    assert "no room" in done.stderr
    assert three_sentences(done.stderr)


@pytest.mark.needs("installed")
def test_make_up_runs_the_command_of_the_environment(tmp_path: Path) -> None:
    """`make up ONCE=1` is what the README says; it must pass arguments and the exit code on."""
    root = Path(__file__).resolve().parents[2]
    data, file = tmp_path / "d", tmp_path / "up.json"
    arguments = f"ARGS=--data {data} --json {file} {' '.join(fresh_ports())}"

    done = finished("make", "--silent", "-o", ".venv/embedded.stamp", "up", "ONCE=1", arguments, cwd=root)

    assert done.returncode == 0, done.stdout + done.stderr
    facts: dict[str, Any] = json.loads(file.read_text())
    assert facts["ok"]


def three_sentences(text: str) -> bool:
    """What, why and what to type next; never a traceback."""
    return all(part in text for part in ("error: ", "why: ", "next: ")) and "Traceback" not in text
