"""A site that costs little to bring up, and its node: for tests of what must not get through."""

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from data_plane.app import Node, node
from data_plane.settings import ApplyTimes, NodeSettings
from faos.resource.v1 import resource_pb2 as pb
from faos.site.v1 import site_pb2 as site
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from tests.parts import ROOT
from tests.patience import PATIENCE_S
from tests.system.harness import RunningControlPlane
from tests.system.quickstart import markers

FIXTURES = ROOT / "tests" / "fixtures" / "mcp"
ENDED = (tunnel.APPLY_STATE_HEALTHY, tunnel.APPLY_STATE_REJECTED, tunnel.APPLY_STATE_ROLLED_BACK)


def fill_small_site(folder: Path, *, own_model: bool = False, program: Sequence[str] = ("rogue.py",)) -> Path:
    """A folder of documents and one program that misbehaves when asked to; the path of site.toml.

    own_model: with a copy of the model file, which a test may damage. program: script among the fixtures and its
    arguments.
    """
    (handbook := folder / "handbook").mkdir(parents=True)
    (handbook / "gloves.md").write_text("Wear gloves in the laboratory.\n")
    found = markers(handbook, handbook)
    if own_model:
        found["model"] = str(shutil.copy(found["model"], folder / "model.gguf"))
    tables: dict[str, Mapping[str, Any]] = {
        "models.smollm2": {"file": found["model"], "sha256": found["model_sha256"]},
        "embedder": {key: found[key.replace("model", "embedder", 1)] for key in ("model", "model_sha256")}
        | {key: found[key] for key in ("tokenizer", "tokenizer_sha256")},
        "folders.handbook": {"path": str(handbook)},
        "programs.rogue": {
            "command": [sys.executable, str(FIXTURES / program[0]), *program[1:]],
            "readable": [str(FIXTURES), *program[1:]],
        },
    }
    site_toml = folder / "site.toml"
    site_toml.write_text("\n".join(["approval_required = []", *(toml_table(*each) for each in tables.items())]))
    return site_toml


def toml_table(name: str, values: Mapping[str, Any]) -> str:
    """JSON's strings and lists of strings are TOML's too."""
    return "\n".join([f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items()), ""])


def tool_server(
    name: str = "rogue", *, program: str = "rogue", tools: Sequence[str] = ("fine",), call_timeout_s: int = 60
) -> pb.Resource:
    spec = pb.ToolServer(program=program, allowed_tools=tools, call_timeout_seconds=call_timeout_s)
    return pb.Resource(metadata=pb.Metadata(name=name), tool_server=spec)


def knowledge_base(name: str = "handbook", *, folder: str = "handbook") -> pb.Resource:
    return pb.Resource(metadata=pb.Metadata(name=name), knowledge_base=pb.KnowledgeBase(folder=folder, top_k=1))


def model(name: str = "smollm2", *, source: str = "smollm2", context_tokens: int = 2048) -> pb.Resource:
    sampling = pb.Sampling(max_tokens=32)
    spec = pb.Model(runtime=pb.MODEL_RUNTIME_LLAMA_CPP, source=source, context_tokens=context_tokens, sampling=sampling)
    return pb.Resource(metadata=pb.Metadata(name=name), model=spec)


def allow_all(name: str = "all") -> pb.Resource:
    rule = pb.PolicyRule(name="all", effect=pb.POLICY_EFFECT_ALLOW)
    return pb.Resource(metadata=pb.Metadata(name=name), policy=pb.Policy(rules=[rule]))


def agent(name: str = "assistant", **spec: Any) -> pb.Resource:
    """Answers in a few words from the model "smollm2"."""
    described = {"model": "smollm2", "instructions": "Answer in one short sentence."} | spec
    return pb.Resource(metadata=pb.Metadata(name=name), agent=pb.Agent(**described))


@asynccontextmanager
async def running_node(data_dir: Path, site_toml: Path, **settings: Any) -> AsyncIterator[Node]:
    chosen = NodeSettings(data_dir=data_dir, site_file=site_toml, apply=ApplyTimes(soak_s=0.1), **settings)
    async with node(chosen) as running:
        yield running


async def until_settled(
    plane: RunningControlPlane, name: str, revision: int, states: Sequence[tunnel.ApplyState.ValueType] = ENDED
) -> Any:
    """The node as the control plane's operator sees it, once the revision has come to an end there."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            seen = await plane.node(name)
            if seen.config.attempted_revision == revision and seen.config.state in states:
                return seen
            await asyncio.sleep(0.05)


async def ask(running: Node, question: str, agent: str = "assistant") -> tuple[site.Run, list[site.Step]]:
    run_id = await running.runs.start(agent, question)
    async with asyncio.timeout(PATIENCE_S):
        async for _ in running.runs.watch(run_id):
            pass
    return await running.runs.get(run_id)


async def until(holds: Callable[[], object]) -> None:
    """Raises TimeoutError."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(0.05)
