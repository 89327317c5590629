"""The example that every newcomer meets first: its parts agree with each other."""

import json
import sys
from pathlib import Path

import pytest
from google.protobuf.json_format import MessageToDict

from data_plane.ceiling.load import load_ceiling
from data_plane.ceiling.models import Ceiling, Program
from data_plane.tools.broker import ToolServers
from data_plane.tools.interfaces import ToolCall
from data_plane.tools.policy import Effect, check_policy, judge
from faos.resource.v1.resource_pb2 import TOOL_CHOICE_ROUTED, Resource
from faos_core import resource_yaml
from faos_core.errors import DeniedError, InvalidError
from tests.parts import ROOT

QUICKSTART = ROOT / "examples" / "quickstart"
QUESTION_WARD = "cardiology"


def resources() -> dict[str, Resource]:
    located = resource_yaml.load([QUICKSTART / "resources"])
    return {it.resource.metadata.name: it.resource for it in located}


def wards(folder: Path, number: str) -> Program:
    """The program as `faos up` puts it into site.toml, over a filled copy of its data."""
    data = folder / "wards.json"
    data.write_text((QUICKSTART / "tools" / "wards.json").read_text().replace("{{number}}", number))
    script = QUICKSTART / "tools" / "wards.py"
    return Program("wards", (sys.executable, str(script), str(data)), readable=(script, data))


def test_resources_refer_to_each_other() -> None:
    """The one agent uses one of everything, so that `make up` shows every kind at work."""
    named = resources()

    assert set(named) == {"smollm2", "handbook", "wards", "wards-read-only", "assistant"}
    agent = named["assistant"].agent
    assert [agent.model, *agent.knowledge, *agent.tools, *agent.policies] == [
        "smollm2", "handbook", "wards", "wards-read-only"
    ]  # fmt: skip
    assert agent.tool_choice == TOOL_CHOICE_ROUTED


@pytest.mark.parametrize(
    ("tool", "arguments", "effect"),
    [
        ("free_beds", {"ward": QUESTION_WARD}, Effect.ALLOW),
        ("free_beds", {"ward": "attic"}, Effect.DENY),
        ("free_beds", {"ward": QUESTION_WARD, "copy_to": "x@example.org"}, Effect.DENY),
        ("free_beds", {}, Effect.DENY),
        ("book_bed", {"ward": QUESTION_WARD}, Effect.DENY),
    ],
)
def test_policy_allows_exactly_the_one_tool(tool: str, arguments: dict[str, str], effect: Effect) -> None:
    """The example is what people copy, so it had better be tight."""
    policy = resources()["wards-read-only"].policy

    assert check_policy(policy) == ()
    assert judge(ToolCall("wards", tool, arguments), {"p": policy}).effect is effect


def test_ceiling_template_loads_once_its_markers_are_filled(tmp_path: Path) -> None:
    """The template and the reader of site.toml must not drift apart; every name that the resources use is there."""
    for name in ("model", "embedder", "tokenizer", "wards"):
        (tmp_path / name).touch()
    values = {name: str(tmp_path / name) for name in ("model", "embedder", "tokenizer", "wards")}
    values |= dict.fromkeys(("model_sha256", "embedder_sha256", "tokenizer_sha256"), "0" * 64)
    values |= {"handbook": str(tmp_path), "quickstart": str(QUICKSTART), "python": sys.executable}
    text = (QUICKSTART / "site.toml.template").read_text()
    for name, value in values.items():
        text = text.replace("{{" + name + "}}", value)
    (tmp_path / "site.toml").write_text(text.replace("{{markers}}", "markers"))

    ceiling = load_ceiling(tmp_path / "site.toml")

    named = resources()
    assert named["smollm2"].model.source in ceiling.models
    assert named["handbook"].knowledge_base.folder in ceiling.folders
    assert named["wards"].tool_server.program in ceiling.programs


def test_each_number_has_exactly_one_place() -> None:
    """A number that stood in both places would not show where the answer came from."""
    files = [*(QUICKSTART / "handbook").iterdir(), QUICKSTART / "tools" / "wards.json"]
    marked = [path.name for path in files if "{{number}}" in path.read_text()]

    assert sorted(marked) == ["oxygen.md", "wards.json"]
    assert json.loads((QUICKSTART / "tools" / "wards.json").read_text())[QUESTION_WARD] == "{{number}}"


@pytest.mark.needs("bwrap")
async def test_tool_answers_in_a_sentence_with_its_number(tmp_path: Path) -> None:
    """The whole tool side of the quickstart: real server, real sandbox, its own spec and policy."""
    named = resources()
    policies = {"wards-read-only": named["wards-read-only"].policy}
    call = ToolCall("wards", "free_beds", {"ward": QUESTION_WARD})

    async with ToolServers(Ceiling(programs={"wards": wards(tmp_path, "73918")})) as broker:
        await broker.reconcile({"wards": named["wards"].tool_server})
        [definition] = broker.definitions(["wards"])
        result = await broker.call(call, policies=policies, idempotency_key="k")
        with pytest.raises(DeniedError):
            await broker.call(ToolCall("wards", "free_beds", {"ward": "attic"}), policies=policies, idempotency_key="k")
        open_policy = {"open": type(policies["wards-read-only"])(rules=[{"effect": 1}])}
        with pytest.raises(InvalidError):
            await broker.call(
                ToolCall("wards", "free_beds", {"ward": "attic"}), policies=open_policy, idempotency_key="k"
            )

    schema = MessageToDict(named["wards-read-only"].policy.rules[0].arguments)
    assert schema["properties"]["ward"]["enum"] == definition.input_schema["properties"]["ward"]["enum"]
    assert result.text.endswith("is 73918.")
