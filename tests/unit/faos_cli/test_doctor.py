"""`faos doctor` as a person and a script see it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.system.harness import RunningControlPlane

if TYPE_CHECKING:
    from tests.unit.faos_cli.conftest import RunFaos


async def test_findings_are_told_with_cause_and_next_step(run_faos: "RunFaos", tmp_path: Path) -> None:
    """A person reads three lines and types the third; a script reads the exit code."""
    done = await run_faos("doctor", "--data", "nowhere", "--ca-dir", "none")

    assert done.code == 1
    assert "fail     authorities: The folder of authorities" in done.out
    assert f"next:  Look at it: ls -l {tmp_path / 'none'}" in done.out
    assert "failed" in done.out.splitlines()[-1]
    assert done.err == ""
    assert not (tmp_path / "nowhere").exists()


async def test_site_file_of_the_context_is_looked_at(
    run_faos: "RunFaos", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside `faos up`, whose ceiling is not in the node's folder, the bare command finds it; a flag wins over it, and
    a variable, as in the node itself."""
    (tmp_path / ".faos").mkdir()
    (tmp_path / "elsewhere.toml").write_text("nonsense = 1\n")
    context = {"node_data_dir": "../node", "site_file": "../elsewhere.toml"}
    (tmp_path / ".faos" / "context.json").write_text(json.dumps(context))

    done = await run_faos("doctor")
    flagged = await run_faos("doctor", "--site-file", "third.toml")
    named = await run_faos("doctor", "--data", "node")
    monkeypatch.setenv("FAOS_NODE_SITE_FILE", str(tmp_path / "fourth.toml"))
    told = await run_faos("doctor")

    assert "elsewhere.toml: " in done.out
    assert "nonsense" in done.out
    assert "third.toml" in flagged.out
    assert "elsewhere.toml" not in flagged.out
    assert "fourth.toml" in told.out
    assert "elsewhere.toml" not in told.out
    assert str(tmp_path / "node" / "site.toml") in named.out, "another node may have another ceiling"


async def test_json_is_in_order_and_complete(run_faos: "RunFaos", plane: RunningControlPlane, tmp_path: Path) -> None:
    """Monitoring compares one run with the next; the string comes by standard input and is not repeated."""
    await plane.create_tenant()
    string = await plane.join_string()

    done = await run_faos("doctor", "-", "-o", "json", stdin=string)

    assert done.code == 0, done.out
    names = [each["check"] for each in done.json]
    assert names[:5] == ["authorities", "proxy", "dns", "port", "tls"]
    assert {each["verdict"] for each in done.json} <= {"pass", "warn", "skipped"}
    assert set(done.json[0]) == {"check", "subject", "verdict", "what", "cause", "next", "tookMs"}
    assert string[20:60] not in done.out


async def test_control_plane_of_the_context_is_looked_at(
    run_faos: "RunFaos", plane: RunningControlPlane, tmp_path: Path
) -> None:
    """The same command on the other side."""
    done = await run_faos("doctor", "--control-plane", "--data", str(plane.data_dir))

    assert done.code == 0, done.out
    assert "pass     database" in done.out


async def test_string_that_was_cut_is_an_error_and_no_finding(run_faos: "RunFaos") -> None:
    """Nothing can be looked at without an address."""
    done = await run_faos("doctor", "faos-join-v1.CgN")

    assert done.code == 1
    assert "not a whole join string" in done.err
    assert done.out == ""


async def test_without_any_node_it_says_how_to_name_one(run_faos: "RunFaos") -> None:
    """The first thing that somebody types is the bare command."""
    done = await run_faos("doctor")

    assert done.code == 1
    assert "--data" in done.err or "context" in done.err
