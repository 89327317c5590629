"""What a tool server can reach, as seen from inside one."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data_plane.ceiling.models import Program
from data_plane.tools.sandbox import ENVIRONMENT, SEARCH_PATH, Isolation, available, launch, needed_by
from faos_core.errors import SetupError
from tests.parts import ROOT
from tests.patience import PATIENCE_S

FIXTURES = ROOT / "tests" / "fixtures" / "mcp"
NOBODY = 65534
BUBBLEWRAP = pytest.param(Isolation.BUBBLEWRAP, marks=pytest.mark.needs("bwrap"))
NAMESPACE = pytest.param(Isolation.NETWORK_NAMESPACE, marks=pytest.mark.needs("namespaces"))
EITHER = pytest.mark.parametrize("isolation", [BUBBLEWRAP, NAMESPACE])


@pytest.fixture
def site() -> Iterator[Path]:
    """A folder that every user of this machine can read: what then keeps a program out is the sandbox alone."""
    with tempfile.TemporaryDirectory() as name:
        site = Path(name)
        shutil.copytree(FIXTURES, site / "mcp", ignore=shutil.ignore_patterns("__pycache__"))
        (site / "records.txt").write_text("a patient's record")
        (site / "own.txt").write_text("the program's own data")
        for path in (site, *site.rglob("*")):
            path.chmod(0o777 if path.is_dir() else 0o666)
        yield site


@pytest.fixture(params=["this user", "ordinary user"])
def user(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Arguments of subprocess.run: whoever runs the tests, and somebody without any privilege."""
    if request.param == "this user":
        return {}
    if os.geteuid() != 0:
        pytest.skip("the tests already run as an ordinary user")
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []}


def python(user: dict[str, Any]) -> str:
    """The tests' own interpreter; the system's where the user may not be able to reach that one."""
    found = shutil.which("python3", path=SEARCH_PATH) if user else sys.executable
    if not found:
        pytest.skip("needs a python3 of the system, which this machine does not have")
    return found


def look(site: Path, isolation: Isolation, user: dict[str, Any], **asked: Any) -> dict[str, Any]:
    """What `inspect_sandbox.py` sees from inside; `asked` tells it what to try."""
    command = (python(user), str(site / "mcp" / "inspect_sandbox.py"))
    readable, writable = (site / "mcp", site / "own.txt"), (site / "out",)
    (site / "out").mkdir(mode=0o777, exist_ok=True)
    (site / "out").chmod(0o777)
    program = Program("look", command, {"WARDS": "3"}, readable=readable, writable=writable)
    start = launch(program, isolation)
    arguments = {"port": 9, "paths": [], "writes": []} | asked
    request = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "look", "arguments": arguments}}
    done = subprocess.run(
        start.argv,
        env=start.environment,
        input=json.dumps(request) + "\n",
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        **user,
    )
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(json.loads(done.stdout)["result"]["content"][0]["text"])
    return seen


@EITHER
def test_program_reaches_no_network(site: Path, isolation: Isolation, user: dict[str, Any]) -> None:
    """A tool server that could connect anywhere, the node's own loopback included, would be a door without a gate."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        socket.create_connection(("127.0.0.1", port), timeout=2).close()

        seen = look(site, isolation, user, port=port)

    assert seen["connect"] != "ok"
    assert seen["outside"] != "ok"
    assert seen["interfaces"] == ["lo"]


@EITHER
def test_program_inherits_no_environment(
    site: Path, isolation: Isolation, user: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node's environment holds tokens; a tool server gets what the site wrote for it and the bare minimum."""
    monkeypatch.setenv("FAOS_TOKEN", "secret")

    seen = look(site, isolation, user)

    added_by_shells = {"PWD", "SHLVL", "_", "LC_CTYPE"}
    assert {name: value for name, value in seen["environment"].items() if name not in added_by_shells} == (
        ENVIRONMENT | {"WARDS": "3"}
    )


@pytest.mark.needs("bwrap")
def test_program_reads_and_writes_only_what_the_site_named(site: Path, user: dict[str, Any]) -> None:
    """The site's records are a folder away from the tool server's own data, and must stay out of its reach."""
    own, records, out = str(site / "own.txt"), str(site / "records.txt"), str(site / "out" / "x")
    paths = [own, records, "/etc/shadow", "/etc/passwd", str(Path.home()), str(ROOT / "README.md")]

    seen = look(site, Isolation.BUBBLEWRAP, user, paths=paths, writes=[own, records, out, "/usr/x", "/etc/x"])

    assert {path for path, outcome in seen["read"].items() if outcome == "ok"} == {own}
    assert seen["write"][out] == "ok"
    assert (site / "out" / "x").read_text() == "x"
    assert (site / "own.txt").read_text() == "the program's own data"
    assert (site / "records.txt").read_text() == "a patient's record"
    assert not Path("/usr/x").exists()
    assert not Path("/etc/x").exists()


@pytest.mark.needs("bwrap")
def test_program_sees_no_process_of_the_node(site: Path, user: dict[str, Any]) -> None:
    """What cannot be seen cannot be signalled, traced or read through /proc."""
    seen = look(site, Isolation.BUBBLEWRAP, user)

    assert len(seen["processes"]) <= 2


def test_environment_of_a_program_is_not_among_its_arguments() -> None:
    """Every user of the machine can list arguments; the site may write a password into `environment`."""
    start = launch(Program("p", ("true",), {"PASSWORD": "secret"}), Isolation.BUBBLEWRAP)

    assert not any("secret" in word for word in start.argv)
    assert start.environment["PASSWORD"] == "secret"


@EITHER
def test_available_finds_what_works(isolation: Isolation) -> None:
    """It is tried for real, because having the binary says nothing about what the kernel lets it do."""
    assert available([isolation]) is isolation


def test_available_fails_closed_without_any() -> None:
    """A machine that can isolate nothing runs no tool, and the operator is told what to install."""
    with pytest.raises(SetupError) as caught:
        available([])

    assert caught.value.code.code == "sandbox.unavailable"
    assert "bubblewrap" in caught.value.next_step


def test_available_fails_closed_when_the_tools_are_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither bwrap nor unshare on the machine: refused, never run bare."""
    monkeypatch.setattr("data_plane.tools.sandbox.ENVIRONMENT", {"PATH": str(tmp_path)})

    with pytest.raises(SetupError):
        available()


def python_at(prefix: Path) -> Path:
    """The outline of a Python installation."""
    (prefix / "lib" / "python3.11").mkdir(parents=True)
    (prefix / "lib" / "python3.11" / "os.py").touch()
    (prefix / "bin").mkdir()
    (prefix / "bin" / "python3.11").touch(mode=0o755)
    return prefix / "bin" / "python3.11"


def environment_at(prefix: Path, interpreter: Path) -> Path:
    """The outline of a virtual environment."""
    (prefix / "bin").mkdir(parents=True)
    (prefix / "pyvenv.cfg").write_text(f"home = {interpreter.parent}\nversion_info = 3.11.7\n")
    (prefix / "bin" / "python").symlink_to(interpreter)
    return prefix / "bin" / "python"


def test_needed_by_a_virtual_environment_is_it_and_its_python(tmp_path: Path) -> None:
    """The project's own environment stands on an interpreter under another prefix; without that it does not start."""
    executable = environment_at(tmp_path / "project" / ".venv", python_at(tmp_path / "versions" / "3.11"))

    assert needed_by([str(executable)]) == [tmp_path / "project" / ".venv", tmp_path / "versions" / "3.11"]


def test_needed_by_a_script_is_what_its_first_line_names(tmp_path: Path) -> None:
    """Console scripts outside of any environment still run, and bring nothing along but themselves."""
    python_of_env = environment_at(tmp_path / "env", python_at(tmp_path / "base"))
    (tmp_path / "home" / "bin").mkdir(parents=True)
    script = tmp_path / "home" / "bin" / "tool"
    script.write_text(f"#!{python_of_env}\n")
    (tmp_path / "link").symlink_to(script)

    needed = needed_by([str(tmp_path / "link")])

    assert needed == sorted([tmp_path / "link", script, tmp_path / "env", tmp_path / "base"])


def test_needed_by_a_program_elsewhere_is_that_file_alone(tmp_path: Path) -> None:
    """A program in somebody's ~/bin must not bring that whole home folder with it."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "tool").write_bytes(b"\x7fELF")

    assert needed_by([str(tmp_path / "bin" / "tool")]) == [tmp_path / "bin" / "tool"]


def test_needed_by_a_system_program_is_nothing() -> None:
    """The system's folders are there anyway."""
    assert needed_by(["env"]) == []


def test_needed_by_survives_links_in_a_circle(tmp_path: Path) -> None:
    """A broken installation is an error at start, never a node that spins."""
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")

    assert needed_by([str(tmp_path / "a")]) == [tmp_path / "a", tmp_path / "b"]
