"""Nothing that the cloud sends names a command, a path or a host."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_plane.ceiling.check import check, check_count
from data_plane.ceiling.models import Ceiling, DoorCeiling, Endpoint, Folder, Limits, ModelFile, Program
from faos.resource.v1 import resource_pb2
from faos.resource.v1.resource_pb2 import Agent, KnowledgeBase, Metadata, Model, Policy, Resource, RunLimits, ToolServer
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core.kinds import field_path_names, kind_of

CEILING = Ceiling(
    models={"small": ModelFile("small", Path("/m/small.gguf"), "0" * 64)},
    folders={"handbook": Folder("handbook", Path("/d/handbook"))},
    programs={"clock": Program("clock", ("/usr/bin/clock", "--utc"))},
)
NAMED = Metadata(name="it")


def model(source: str) -> Resource:
    return Resource(metadata=NAMED, model=Model(source=source))


def tool_server(program: str) -> Resource:
    return Resource(metadata=NAMED, tool_server=ToolServer(program=program))


def knowledge_base(folder: str) -> Resource:
    return Resource(metadata=NAMED, knowledge_base=KnowledgeBase(folder=folder))


REFERRING = {
    "spec.source": (model, "small"),
    "spec.program": (tool_server, "clock"),
    "spec.folder": (knowledge_base, "handbook"),
}


@pytest.mark.parametrize("path", REFERRING)
def test_name_of_the_ceiling_passes(path: str) -> None:
    """What the site defined may be used."""
    make, name = REFERRING[path]

    assert check(make(name), CEILING) is None


@pytest.mark.parametrize("path", REFERRING)
@pytest.mark.parametrize(
    "stranger",
    [
        "",
        "other",
        "/m/small.gguf",
        "/d/handbook",
        "../handbook",
        "/usr/bin/clock",
        "clock --utc",
        "sh -c 'curl example.com'",
        "example.com:443",
        "https://example.com/model",
        "small\n",
        "SMALL",
    ],
)
def test_path_host_and_command_are_no_names(path: str, stranger: str) -> None:
    """A path that the ceiling itself holds is no exception: only names cross."""
    make, _ = REFERRING[path]
    resource = make(stranger)

    nack = check(resource, CEILING)

    assert nack is not None
    assert nack.code == tunnel.NACK_CODE_NAME_NOT_IN_CEILING
    assert (nack.resource_name, nack.kind) == ("it", kind_of(resource))
    assert field_path_names(nack.field_path, nack.kind) == path


@given(st.text())
def test_only_exact_names_pass(text: str) -> None:
    """No spelling of anything else slips through."""
    assert (check(tool_server(text), CEILING) is None) == (text in CEILING.programs)


@pytest.mark.parametrize("spec", [{"agent": Agent(limits=RunLimits(max_turns=4_000_000))}, {"policy": Policy()}])
def test_limits_above_the_ceiling_are_not_refused(spec: dict[str, Agent | Policy]) -> None:
    """They are lowered when a run starts, so that one agent serves sites with different ceilings."""
    assert check(Resource(metadata=NAMED, **spec), CEILING) is None  # type: ignore[arg-type]  # one key of the oneof


def test_remote_model_refers_to_an_endpoint_and_a_file_does_not() -> None:
    """The name of a file must not open a way out, nor the name of a server a file."""
    endpoint = Endpoint("box", "http://box", DoorCeiling.CUSTOMER)
    ceiling = Ceiling(endpoints={"box": endpoint}, models=CEILING.models)
    remote, local = resource_pb2.MODEL_RUNTIME_OLLAMA, resource_pb2.MODEL_RUNTIME_LLAMA_CPP
    file = next(iter(CEILING.models))

    def refused(runtime: resource_pb2.ModelRuntime.ValueType, source: str) -> bool:
        model = resource_pb2.Model(runtime=runtime, source=source)
        return check(Resource(metadata=NAMED, model=model), ceiling) is not None

    assert [refused(remote, "box"), refused(local, file)] == [False, False]
    assert [refused(remote, file), refused(local, "box")] == [True, True]


def test_http_tool_server_refers_to_an_endpoint_that_takes_customer_data() -> None:
    """A call carries what a model says: an endpoint that may not read that can never be called, so it is refused."""
    endpoints = {
        "open": Endpoint("open", "http://a/mcp", DoorCeiling.CUSTOMER),
        "closed": Endpoint("closed", "http://b/mcp", DoorCeiling.IDENTIFIER),
    }
    ceiling = Ceiling(endpoints=endpoints, programs=CEILING.programs)

    def refusal(name: str, ceiling: Ceiling = ceiling) -> tuple[str, str] | None:
        nack = check(Resource(metadata=NAMED, tool_server=ToolServer(endpoint=name)), ceiling)
        return nack and (tunnel.NackCode.Name(nack.code)[10:], field_path_names(nack.field_path, nack.kind))

    assert refusal("open") is None
    assert refusal("closed") == ("ABOVE_CEILING", "spec.endpoint")
    assert refusal("clock") == ("NAME_NOT_IN_CEILING", "spec.endpoint")  # a program is no endpoint
    shut = replace(ceiling, doors={"mcp-http": DoorCeiling.IDENTIFIER})
    assert refusal("open", shut) == ("ABOVE_CEILING", "spec.endpoint")


def test_more_tool_servers_than_the_site_allows_are_refused_by_name() -> None:
    """Each is a process of this machine; the cloud must not be able to start a thousand."""
    servers = [
        Resource(metadata=Metadata(name=f"s{index}"), tool_server=ToolServer(program="clock")) for index in (2, 0, 1)
    ]
    nack = check_count(servers, Ceiling(limits=Limits(tool_servers=2)))

    assert nack is not None
    assert (nack.code, nack.resource_name) == (tunnel.NACK_CODE_ABOVE_CEILING, "s2")
    assert check_count(servers, Ceiling(limits=Limits(tool_servers=3))) is None
