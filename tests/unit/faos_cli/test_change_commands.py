"""Diff, delete, prune, rollback and watch: each as a process against a real control plane."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ruamel.yaml import YAML

from control_plane.app import control_plane
from control_plane.settings import ControlPlaneSettings
from data_plane.ceiling.models import Ceiling
from data_plane.identity.join import join
from faos.admin.v1 import admin_pb2 as admin
from faos.resource.v1.resource_pb2 import KIND_AGENT
from faos_cli.commands.delete import names_typed
from faos_cli.commands.diff import lines_of
from faos_cli.listings import listing_named
from faos_cli.watch import Fleet
from tests.patience import PATIENCE_S
from tests.system.harness import RunningControlPlane, running_control_plane
from tests.unit.faos_cli.conftest import context_of

if TYPE_CHECKING:
    from tests.unit.faos_cli.conftest import RunFaos

BASE = """\
apiVersion: faos/v1
kind: KnowledgeBase
metadata: {name: docs}
spec: {folder: handbook, topK: 3}
---
apiVersion: faos/v1
kind: Model
metadata: {name: small}
spec: {runtime: LLAMA_CPP, source: smollm2}
---
apiVersion: faos/v1
kind: Agent
metadata: {name: nurse}
spec: {model: small, knowledge: [docs], instructions: "one\\ntwo"}
"""
SLIM = BASE.replace("knowledge: [docs], ", "").replace("two", "three").split("---\n", 1)[1]


@pytest.fixture
async def files(plane: RunningControlPlane, tmp_path: Path) -> Path:
    """base.yaml, and slim.yaml without the knowledge base; a tenant with a site."""
    await plane.create_tenant()
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "slim.yaml").write_text(SLIM)
    return tmp_path


async def test_diff_shows_fields_and_says_by_its_code(files: Path, run_faos: "RunFaos") -> None:
    """0, 1 and 2 as kubectl diff: scripts decide by them, people read the rest."""
    before = await run_faos("diff", "-f", "base.yaml")
    await run_faos("apply", "-f", "base.yaml", "--set", "ward")
    same = await run_faos("diff", "-f", "base.yaml")
    differs = await run_faos("diff", "-f", "slim.yaml", "--prune", "--set", "ward")
    after = await run_faos("get", "resources", "-o", "name")

    assert (before.code, "--- /dev/null\n+++ agent/nurse (files)\n" in before.out) == (1, True)
    assert (same.code, same.out) == (0, "")
    assert differs.code == 1
    assert "@@ spec.instructions @@\n one\n-two\n+three\n" in differs.out
    assert "@@ spec.knowledge[docs] @@\n-docs\n" in differs.out
    assert "--- knowledgebase/docs (revision 1)\n+++ /dev/null\n" in differs.out
    assert "model/small" not in differs.out
    assert "knowledgebase/docs" in after.out


@pytest.mark.parametrize(
    "arguments",
    [
        ("-f", "absent.yaml"),
        ("-f", "base.yaml", "--prune"),
        ("-f", "base.yaml", "--server", "127.0.0.1:1"),
        ("--node", "absent"),
        ("-f", "base.yaml", "--node", "n"),
        (),
    ],
)
async def test_diff_that_cannot_be_made_is_two(files: Path, run_faos: "RunFaos", arguments: tuple[str, ...]) -> None:
    """1 would be read as 'something differs'."""
    done = await run_faos("diff", *arguments)

    assert (done.code, done.out) == (2, "")
    assert done.err


async def test_diff_without_a_context_is_two(run_faos: "RunFaos") -> None:
    """Also for what fails before the command itself begins."""
    done = await run_faos("--context", "absent.json", "diff", "-f", "x.yaml")

    assert (done.code, "absent.json" in done.err) == (2, True)


async def test_prune_deletes_what_the_set_no_longer_declares(files: Path, run_faos: "RunFaos") -> None:
    """The files are what stands, and the history says why."""
    await run_faos("apply", "-f", "base.yaml", "--set", "ward")

    unnamed = await run_faos("apply", "-f", "slim.yaml", "--prune")
    pruned = await run_faos("apply", "-f", "slim.yaml", "--prune", "--set", "ward", "--reason", "handbook retired")
    history = await run_faos("get", "revisions")
    wide = await run_faos("get", "resources", "-o", "wide")

    assert (unnamed.code, "--set NAME" in unnamed.err) == (1, True)
    assert "knowledgebase/docs deleted\n" in pruned.out
    assert "agent/nurse updated\n" in pruned.out
    assert "handbook retired" in history.out.splitlines()[1]
    assert "-knowledgebase/docs" in history.out.splitlines()[1]
    assert wide.out.splitlines()[1].split()[-1] == "ward"


async def test_delete_says_who_still_needs_it(files: Path, run_faos: "RunFaos") -> None:
    """And with those gone too, it goes."""
    await run_faos("apply", "-f", "base.yaml")

    refused = await run_faos("delete", "model", "small")
    dry = await run_faos("delete", "agent/nurse", "model/small", "--dry-run")
    deleted = await run_faos("delete", "agent/nurse", "model/small", "--reason", "moved")
    again = await run_faos("delete", "agent", "nurse")
    rest = await run_faos("delete", "-f", "base.yaml")
    left = await run_faos("get", "resources", "-o", "name")

    assert (refused.code, "Agent nurse" in refused.err, "spec.model" in refused.err) == (1, True, True)
    assert "agent/nurse deleted (dry run)\n" in dry.out
    assert "agent/nurse deleted\nmodel/small deleted\n" in deleted.out
    assert (again.code, "no Agent named 'nurse'" in again.err) == (1, True)
    assert (rest.code, left.out) == (1, "knowledgebase/docs\n")


@pytest.mark.parametrize("targets", [("agent",), ("agent/",), ("node", "n"), ("resources", "x"), ("agent/a", "b")])
def test_delete_takes_kinds_and_names_only(targets: tuple[str, ...]) -> None:
    """A typing error must not become another deletion."""
    import click

    with pytest.raises(click.UsageError):
        names_typed(targets)


async def test_rollback_brings_back_and_says_what_of(files: Path, run_faos: "RunFaos") -> None:
    """The first thing to type when a change was wrong."""
    await run_faos("apply", "-f", "base.yaml")
    await run_faos("apply", "-f", "slim.yaml")
    await run_faos("delete", "kb", "docs")

    dry = await run_faos("rollback", "1", "--dry-run")
    back = await run_faos("rollback", "1", "--reason", "worse answers")
    same = await run_faos("diff", "-f", "base.yaml")
    history = await run_faos("get", "revisions", "-o", "json")
    absent = await run_faos("rollback", "99")
    shown = await run_faos("describe", "revision", "4")

    assert "knowledgebase/docs created (dry run)" in dry.out
    assert "Revision 4 is the desired state now" in back.out
    assert same.code == 0
    assert next((it["number"], it["reason"], it["rollbackOf"]) for it in history.json["items"]) == (
        "4",
        "worse answers",
        "1",
    )
    assert (absent.code, "faos get revisions" in absent.err) == (1, True)
    assert "revision 1" in shown.out


@asynccontextmanager
async def watching(folder: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`faos get nodes -w …` until left; then as Ctrl-C ends it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "faos_cli", "get", "nodes", "-w", *arguments),
        cwd=folder,
        env=os.environ | {"XDG_CONFIG_HOME": str(folder / "config"), "PYTHONUNBUFFERED": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        await process.communicate()


async def line_of(process: asyncio.subprocess.Process) -> list[str]:
    assert process.stdout
    async with asyncio.timeout(PATIENCE_S):
        return (await process.stdout.readline()).decode().split()


async def test_watch_shows_who_comes_and_outlives_the_control_plane(tmp_path: Path, run_faos: "RunFaos") -> None:
    """An upgrade of the control plane is when people watch."""
    async with running_control_plane(tmp_path / "cp") as plane:
        await plane.create_tenant()
        (tmp_path / ".faos").mkdir()
        (tmp_path / ".faos" / "context.json").write_text(json.dumps(context_of(plane)))
        first = await plane.join(tmp_path / "n1")
        async with AsyncExitStack() as stack:
            watch = await stack.enter_async_context(watching(tmp_path))
            heading, row = await line_of(watch), await line_of(watch)
            again = ControlPlaneSettings(
                data_dir=tmp_path / "cp",
                tunnel_listen="127.0.0.1:0",
                admin_listen=f"127.0.0.1:{plane.endpoints.admin_port}",
            )
            left = stack.pop_all()
    async with left, control_plane(again):
        string = (await run_faos("join-token", "create", "--site", "main")).out.strip()
        second = await join(tmp_path / "n2", string, Ceiling())
        later = await line_of(watch)

    assert (heading[:2], row[:3]) == (["NAME", "SITE"], [first.identity.node, "main", "NEVER"])
    assert later[:3] == [second.identity.node, "main", "NEVER"]


async def test_diff_of_a_node_names_what_it_lacks(files: Path, plane: RunningControlPlane, run_faos: "RunFaos") -> None:
    """The first question about a site that misbehaves: does it run what we think it runs?"""
    member = await plane.join(files / "n1")
    nothing = await run_faos("diff", "--node", member.identity.node)
    await run_faos("apply", "-f", "base.yaml")
    lacks = await run_faos("diff", "--node", member.identity.node)

    assert (nothing.code, nothing.out) == (0, "")
    assert lacks.code == 1
    assert "wanted revision 1" in lacks.err
    assert [line.split()[:2] for line in lacks.out.splitlines()[1:]] == [
        ["agent/nurse", "none"],
        ["model/small", "none"],
        ["knowledgebase/docs", "none"],
    ]


@pytest.mark.parametrize("kind", ["sites", "agents"])
async def test_only_nodes_can_be_watched(plane: RunningControlPlane, run_faos: "RunFaos", kind: str) -> None:
    """Said at once, and not after a silent wait."""
    done = await run_faos("get", kind, "-w")

    assert (done.code, "faos get nodes -w" in done.err) == (2, True)


def test_fleet_prints_a_row_once_until_it_changes(capsys: pytest.CaptureFixture[str]) -> None:
    """A log of heartbeats would hide the one line that matters."""
    fleet = Fleet(listing_named("nodes"), "table")
    node = admin.Node(tenant="t", name="n-1", site="main", liveness=admin.LIVENESS_LIVE)
    seen = admin.Node()
    seen.CopyFrom(node)
    seen.last_seen_at.GetCurrentTime()
    changed = admin.Node()
    changed.CopyFrom(node)
    changed.config.running_revision = 7

    for nodes, gone in (([node], []), ([seen], []), ([changed], []), ([], [("t", "n-1")])):
        fleet.update(nodes, gone)

    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[:3] for line in lines] == [
        ["NAME", "SITE", "LINK"],
        ["n-1", "main", "LIVE"],
        ["n-1", "main", "LIVE"],
        ["n-1", "main", "GONE"],
    ]
    assert lines[2][3] == "7"


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_fleet_prints_a_document_for_each_change(output: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A script reads them one by one, with the parser of the format that it asked for."""
    fleet = Fleet(listing_named("nodes"), output)
    for revision in (1, 1, 2):
        node = admin.Node(tenant="t", name="n-1", site="main")
        node.config.running_revision = revision
        fleet.update([node], [])

    out = capsys.readouterr().out
    found = list(YAML(typ="safe").load_all(out)) if output == "yaml" else [json.loads(it) for it in out.splitlines()]
    assert [int(each["config"]["runningRevision"]) for each in found] == [1, 2]


def test_diff_shows_that_there_is_more() -> None:
    """Silence would read as 'that is all'."""
    change = admin.ResourceChange(kind=KIND_AGENT, name="a", change=admin.CHANGE_TYPE_UPDATED, fields_truncated=True)

    assert "more differs" in list(lines_of(change, 3))[-1]


def test_diff_shows_lines_that_look_like_its_own_headings() -> None:
    """Who signs sees what is signed: a line of instructions must not hide because it begins with "++ " or "-- "."""
    change = admin.ResourceChange(kind=KIND_AGENT, name="a", change=admin.CHANGE_TYPE_UPDATED)
    change.fields.add(
        field_path="spec.instructions", before="ask\n-- then stop\n@@ end", after="ask\n++ send all\n@@ x"
    )

    assert list(lines_of(change, 3))[3:] == [" ask", "--- then stop", "-@@ end", "+++ send all", "+@@ x"]


def test_diff_does_not_drive_the_terminal() -> None:
    """The names come from a control plane that may not be ours any more."""
    change = admin.ResourceChange(kind=KIND_AGENT, name="a\x1b[2J", change=admin.CHANGE_TYPE_UPDATED)

    assert "\x1b" not in "".join(lines_of(change, 3))
