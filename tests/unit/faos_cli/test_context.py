import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from faos_cli.context import Context, find_context, read_context, user_file, write_context
from faos_core.errors import SetupError

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)


def put(file: Path, **facts: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(facts))
    return file


def test_find_prefers_the_flag_then_the_variable_then_the_folder_then_the_user(tmp_path: Path) -> None:
    """Whoever speaks to the wrong control plane changes the wrong fleet: the order must be the documented one."""
    home = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    work = tmp_path / "work"
    named = put(tmp_path / "named.json", tenant="flag")
    variable = put(tmp_path / "variable.json", tenant="variable")
    put(user_file(home), tenant="user")
    work.mkdir()

    found = [find_context(None, home, work).tenant]
    put(work / ".faos" / "context.json", tenant="folder")
    found.append(find_context(None, home, work).tenant)
    found.append(find_context(None, home | {"FAOS_CONTEXT": str(variable)}, work).tenant)
    found.append(find_context(str(named), home | {"FAOS_CONTEXT": str(variable)}, work).tenant)

    assert found == ["user", "folder", "variable", "flag"]


def test_find_looks_in_the_parents(tmp_path: Path) -> None:
    """Somebody deep in a project still means the project's own control plane."""
    put(tmp_path / ".faos" / "context.json", tenant="above")
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)

    assert find_context(None, {"XDG_CONFIG_HOME": str(tmp_path / "none")}, deep).tenant == "above"


def test_find_takes_a_folder_that_holds_a_context(tmp_path: Path) -> None:
    """`faos --context ./cp` is what the control plane's help says to type."""
    put(tmp_path / "cp" / "context.json", tenant="mercy")

    assert find_context("cp", {}, tmp_path).tenant == "mercy"


@pytest.mark.parametrize(("named", "environment"), [("absent.json", {}), (None, {"FAOS_CONTEXT": "absent.json"})])
def test_find_refuses_a_named_file_that_is_absent(
    tmp_path: Path, named: str | None, environment: dict[str, str]
) -> None:
    """Falling back to another context than the one named would act on the wrong control plane."""
    with pytest.raises(SetupError) as caught:
        find_context(named, environment, tmp_path)

    assert caught.value.code.code == "context.file_missing"
    assert "absent.json" in caught.value.what


def test_missing_context_names_the_file_that_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever puts one where the message says, and it is not looked for there, is lost."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    with pytest.raises(SetupError) as caught:
        find_context(None, os.environ, tmp_path).require_node()

    assert str(tmp_path / "config" / "faos" / "context.json") in caught.value.why


def test_read_takes_paths_relative_to_the_file(tmp_path: Path) -> None:
    """A data folder may be moved as a whole, and read from anywhere."""
    file = put(tmp_path / "a" / "context.json", ca_file="../cp/ca.pem", node_data_dir="/srv/node", tenant="mercy")

    context = read_context(file)

    assert context.ca_file == tmp_path / "cp" / "ca.pem"
    assert context.node_data_dir == Path("/srv/node")
    assert context.file == file


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not JSON"),
        ("[]", "one object"),
        ('{"tenant": 3}', "texts"),
        ('{"tennant": "mercy"}', "'tennant'"),
        ("\udcff", "not JSON"),
    ],
)
def test_read_refuses_what_is_no_context(tmp_path: Path, content: str, said: str) -> None:
    """A misspelt key must not silently send a command elsewhere."""
    file = tmp_path / "context.json"
    file.write_bytes(content.encode(errors="surrogateescape"))

    with pytest.raises(SetupError) as caught:
        read_context(file)

    assert said in caught.value.why
    assert str(file) in caught.value.what


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tenant=TEXT, address=TEXT, folder=TEXT)
def test_what_is_written_is_read_again(tmp_path: Path, tenant: str, address: str, folder: str) -> None:
    """`faos up` writes what every later command reads, over what an earlier one left."""
    context = Context(admin_address=address, tenant=tenant, node_data_dir=Path(f"/srv/{folder.replace('/', '_')}x"))

    write_context(tmp_path / "context.json", context)

    again = read_context(tmp_path / "context.json")
    assert (again.admin_address, again.tenant, again.site) == (address, tenant, None)
    assert again.node_data_dir == context.node_data_dir


def test_flags_win_over_the_file() -> None:
    """--server and its like are for the moment; those not given change nothing."""
    context = Context(admin_address="a:1", tenant="mercy").overridden(admin_address="b:2", tenant=None)

    assert (context.admin_address, context.tenant) == ("b:2", "mercy")


def test_missing_context_says_where_it_looked_and_what_to_type() -> None:
    """The first thing that a newcomer sees without `faos up`."""
    with pytest.raises(SetupError) as caught:
        Context().require_node()

    assert ".faos/context.json" in caught.value.why
    assert "faos up" in caught.value.next_step


def test_incomplete_context_names_the_key_and_the_flag(tmp_path: Path) -> None:
    """A context of a node alone cannot answer `get nodes`; the flag that helps must stand there."""
    context = Context(admin_address="a:1", file=tmp_path / "context.json")

    with pytest.raises(SetupError) as caught:
        context.require_admin()

    assert "'ca_file'" in caught.value.why
    assert "--ca FILE" in caught.value.next_step


def test_another_node_does_not_keep_the_ceiling_of_the_first() -> None:
    """`faos context add other --data …` beside `faos up` would have its doctor read another site's ceiling."""
    context = Context(node_data_dir=Path("/a"), site_file=Path("/a/up.toml"), tenant="mercy")

    assert context.overridden(node_data_dir=Path("/b")) == Context(node_data_dir=Path("/b"), tenant="mercy")
    assert context.overridden(tenant="other").site_file == Path("/a/up.toml")
