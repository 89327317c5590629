"""Contexts by name: what applies, what is kept and how, and that no token is shown."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import TYPE_CHECKING

import pytest

from faos_cli.context import Context, find_context
from faos_cli.contexts import Contexts
from faos_core.errors import ConflictError, InvalidError, NotFoundError, SetupError
from tests.patience import PATIENCE_S

if TYPE_CHECKING:
    from tests.unit.faos_cli.conftest import RunFaos

PROD = Context(admin_address="cloud.example:7444", ca_file=Path("/ca.pem"), token_file=Path("/token"), tenant="mercy")
LAB = Context(admin_address="127.0.0.1:1")


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    return {"XDG_CONFIG_HOME": str(tmp_path / "config")}


@pytest.fixture
def contexts(home: dict[str, str]) -> Contexts:
    """prod, in use, and lab."""
    made = Contexts.of_user(home)
    assert made.add("prod", PROD)
    assert not made.add("lab", LAB)
    return made


def test_named_one_in_use_applies_where_nothing_nearer_says_otherwise(
    contexts: Contexts, home: dict[str, str], tmp_path: Path
) -> None:
    """Flag, variable, folder, the one in use: the documented order, by name as by path."""
    found = [find_context(None, home, tmp_path).name]
    contexts.use("lab")
    found.append(find_context(None, home, tmp_path).name)
    (tmp_path / ".faos").mkdir()
    (tmp_path / ".faos" / "context.json").write_text('{"tenant": "here"}')
    found.append(find_context(None, home, tmp_path).tenant or "")
    found.append(find_context(None, home | {"FAOS_CONTEXT": "prod"}, tmp_path).name)
    found.append(find_context("lab", home | {"FAOS_CONTEXT": "prod"}, tmp_path).name)

    assert found == ["prod", "lab", "here", "prod", "lab"]


def test_folder_that_holds_one_is_still_found_by_its_path(
    contexts: Contexts, home: dict[str, str], tmp_path: Path
) -> None:
    """`faos --context cp` meant a folder before there were names."""
    (tmp_path / "cp").mkdir()
    (tmp_path / "cp" / "context.json").write_text('{"tenant": "folder"}')

    assert find_context("cp", home, tmp_path).tenant == "folder"
    with pytest.raises(NotFoundError):
        find_context("nope", home, tmp_path)


def test_what_was_added_is_what_is_found(contexts: Contexts) -> None:
    """Whole, in a file that only its owner reads."""
    kept = contexts.require("prod")

    assert (kept.admin_address, kept.ca_file, kept.token_file, kept.tenant) == (
        PROD.admin_address,
        PROD.ca_file,
        PROD.token_file,
        PROD.tenant,
    )
    assert contexts.file.stat().st_mode & 0o077 == 0


def test_removed_is_gone_with_its_token_and_out_of_use(
    contexts: Contexts, home: dict[str, str], tmp_path: Path
) -> None:
    """What a laptop no longer needs must not lie about on it."""
    token = contexts.keep_token("prod", "secret")
    assert token.stat().st_mode & 0o077 == 0

    contexts.remove("prod")

    assert not token.exists()
    assert (contexts.current, list(contexts.all())) == ("", ["lab"])
    assert find_context(None, home, tmp_path) == Context()


def test_names_are_not_overwritten_and_not_anything(contexts: Contexts) -> None:
    """A name stands in scripts, and for a file."""
    with pytest.raises(ConflictError):
        contexts.add("prod", LAB)
    for name in ("", "../x", "A", "-a", "a" * 64):
        with pytest.raises(InvalidError):
            contexts.add(name, LAB)
    for attempt in (contexts.use, contexts.remove, contexts.require):
        with pytest.raises(NotFoundError):
            attempt("nope")


def test_commands_at_once_lose_nothing_of_each_other(home: dict[str, str]) -> None:
    """A script that sets up a laptop adds several at a time: each must be there, and none that was removed."""
    contexts = Contexts.of_user(home)
    for number in range(8):
        contexts.add(f"old-{number}", LAB)
    together = Barrier(8, timeout=PATIENCE_S)

    def work(number: int) -> None:
        together.wait()
        contexts.add(f"new-{number}", LAB)
        contexts.remove(f"old-{number}")

    with ThreadPoolExecutor(8) as commands:
        list(commands.map(work, range(8)))

    assert list(contexts.all()) == [f"new-{number}" for number in range(8)]


@pytest.mark.parametrize("content", ["{", "[]", '{"contexts": []}', '{"contexts": {"a": {"colour": "red"}}}'])
def test_damaged_file_is_said_and_kept(contexts: Contexts, content: str) -> None:
    """Beginning anew in silence would send commands elsewhere."""
    contexts.file.write_text(content)

    with pytest.raises(SetupError):
        contexts.all()
    assert contexts.file.read_text() == content


async def test_commands_over_a_life(run_faos: "RunFaos", tmp_path: Path) -> None:
    """Add, list, choose, show, remove: as typed, and the token in none of it."""
    added = await run_faos(
        *("context", "add", "prod", "--server", "cloud.example:7444", "--ca", "ca.pem", "--with-token"),
        stdin="hush-hush\n",
    )
    (tmp_path / "cp").mkdir()
    (tmp_path / "cp" / "context.json").write_text('{"admin_address": "127.0.0.1:9", "tenant": "mercy"}')
    second = await run_faos("--context", "./cp", "context", "add", "lab")
    listed = await run_faos("context", "list")
    used = await run_faos("context", "use", "lab")
    shown = await run_faos("context", "show", "-o", "json")
    other = await run_faos("context", "show", "prod")
    unreachable = await run_faos("get", "nodes")
    removed = await run_faos("context", "remove", "prod")
    again = await run_faos("context", "use", "prod")

    assert added.out == "context/prod added, and in use\n"
    assert (second.code, "faos context use lab" in second.err) == (0, True)
    assert [line.split()[:2] for line in listed.out.splitlines()[1:]] == [["lab", "127.0.0.1:9"], ["*", "prod"]]
    assert used.out == "context/lab is in use\n"
    assert (shown.json["name"], shown.json["tenant"]) == ("lab", "mercy")
    assert str(tmp_path / "ca.pem") in other.out
    assert unreachable.code == 1
    assert (removed.code, again.code) == (0, 1)
    assert "faos context list" in again.err
    everything = (added, second, listed, used, shown, other, unreachable, removed, again)
    assert not any("hush-hush" in each.out + each.err for each in everything)
    assert "hush" not in (tmp_path / "config" / "faos" / "contexts.json").read_text()


async def test_no_token_is_no_token(run_faos: "RunFaos", tmp_path: Path) -> None:
    """A pipe that broke must not leave a context whose every call is refused for reasons nobody sees."""
    added = await run_faos("context", "add", "prod", "--server", "x:1", "--ca", "ca.pem", "--with-token", stdin="\n")

    assert (added.code, "--with-token <" in added.err) == (1, True)
    assert (await run_faos("context", "list", "-o", "name")).out == ""
    assert not list((tmp_path / "config").rglob("tokens/*"))


async def test_folder_that_goes_first_is_said(run_faos: "RunFaos", tmp_path: Path) -> None:
    """Whoever chose a context and still speaks to another must learn why at once."""
    (tmp_path / ".faos").mkdir()
    (tmp_path / ".faos" / "context.json").write_text(json.dumps({"admin_address": "127.0.0.1:9"}))
    await run_faos("context", "add", "lab", "--server", "x:1")

    used = await run_faos("context", "use", "lab")
    listed = await run_faos("context", "list")

    assert "goes before it" in used.err
    assert [line.split()[0] for line in listed.out.splitlines()[1:]] == ["lab", "*"]


async def test_nothing_yet_says_what_to_type(run_faos: "RunFaos") -> None:
    """The first thing that somebody sees."""
    listed = await run_faos("context", "list")
    shown = await run_faos("context", "show")

    assert (listed.code, "faos context add NAME" in listed.err) == (0, True)
    assert (shown.code, "faos up" in shown.err) == (1, True)
