"""An Ollama server as the node sees it: nothing is fetched or said beyond what the site allows."""

import gzip
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from data_plane.ceiling.models import Ceiling, DoorCeiling, Endpoint
from data_plane.egress.reader import read_leaves
from data_plane.egress.service import Egress, ledger_folder, open_egress
from data_plane.models import errors, ollama
from data_plane.models.catalogue import ModelCatalogue
from data_plane.models.endpoint_models import EndpointModels
from data_plane.models.interfaces import Message, Role, Sampling, TextDelta
from data_plane.models.verification import FileVerifier
from faos.resource.v1 import resource_pb2 as resource
from faos_core.errors import DeniedError, FaosError, InvalidError, NotFoundError, SetupError, UnavailableError
from faos_core.resource_validation import is_model_tag
from tests.parts import ASSETS
from tests.servers.captured_http import captured_http
from tests.servers.ollama import TAG, create_model, ollama_server

REMOTE = resource.Model(runtime=resource.MODEL_RUNTIME_OLLAMA, source="box", model_tag=TAG)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with ollama_server(tmp_path_factory.mktemp("ollama")) as process:
        create_model(process.url, next(ASSETS.glob("*.gguf")))
        yield process.url


@pytest.fixture
async def egress(tmp_path: Path) -> AsyncIterator[Egress]:
    async with open_egress(tmp_path, Ceiling()) as opened:
        yield opened


def catalogue(egress: Egress, url: str, data_class: DoorCeiling = DoorCeiling.CUSTOMER) -> ModelCatalogue:
    endpoints = {"box": Endpoint("box", url, data_class)}
    return ModelCatalogue({}, FileVerifier(), endpoints=endpoints, open_door=egress.http_door)


@pytest.mark.needs("ollama")
async def test_model_that_was_not_pulled_is_refused_and_not_fetched(egress: Egress, url: str, tmp_path: Path) -> None:
    """Nothing downloads behind anybody's back: the error says what to type, and only the question was asked."""
    missing = resource.Model(runtime=resource.MODEL_RUNTIME_OLLAMA, source="box", model_tag="absent:1b")

    with pytest.raises(SetupError) as caught:
        await catalogue(egress, url).load({"m": missing})

    assert caught.value.next_step == "Have the server fetch it: faos model pull box absent:1b"
    assert [leaf.method for leaf in read_leaves(ledger_folder(tmp_path))] == ["POST /api/show"]


@pytest.mark.needs("ollama")
async def test_endpoint_below_customer_is_never_asked_a_question(egress: Egress, url: str, tmp_path: Path) -> None:
    """A tag is a name; a question is a customer's. The site's class for the endpoint tells them apart."""
    models = catalogue(egress, url, DoorCeiling.IDENTIFIER)
    await models.load({"m": REMOTE})
    await models.retain({"m": REMOTE})

    with pytest.raises(DeniedError):
        _ = [it async for it in models.runtime("m").chat([Message(Role.USER, "4711")], sampling=Sampling())]

    await models.aclose()
    assert [leaf.method for leaf in read_leaves(ledger_folder(tmp_path))] == ["POST /api/show"]


@pytest.mark.needs("ollama")
async def test_list_shows_what_servers_have_and_which_are_silent(egress: Egress, url: str) -> None:
    """One server that is down must not hide what the others have."""
    endpoints = {
        "box": Endpoint("box", url, DoorCeiling.CUSTOMER),
        "down": Endpoint("down", "http://127.0.0.1:9", DoorCeiling.CUSTOMER),
    }

    found = await EndpointModels(endpoints, egress.http_door).pulled()

    assert found["down"] is None
    assert [(model.tag, model.size_bytes > 90_000_000) for model in found["box"] or ()] == [(TAG, True)]


@pytest.mark.parametrize(
    ("endpoint", "tag", "error"),
    [("elsewhere", TAG, NotFoundError), ("box", "registry.example/a/b", InvalidError), ("box", "", InvalidError)],
)
async def test_pull_asks_only_named_endpoints_for_plain_tags(
    egress: Egress, tmp_path: Path, endpoint: str, tag: str, error: type[FaosError]
) -> None:
    """A tag with a host in it would have the server fetch from a place that nobody named."""
    models = EndpointModels({"box": Endpoint("box", "http://127.0.0.1:9", DoorCeiling.CUSTOMER)}, egress.http_door)

    with pytest.raises(error):
        _ = [it async for it in models.pull(endpoint, tag)]

    assert list(read_leaves(ledger_folder(tmp_path))) == []


async def test_an_answer_without_end_is_cut_off(egress: Egress, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not keep to num_predict must not fill the node's memory for as long as a run may take."""
    monkeypatch.setattr(ollama, "ANSWER_CHARACTERS", 1000)
    body = b'{"message": {"content": "word "}}\n' * 1000
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nContent-Length: {len(body)}\r\n\r\n"
    said: list[str] = []
    async with captured_http(head.encode() + body) as server:
        endpoint = Endpoint("box", f"http://127.0.0.1:{server.port}", DoorCeiling.CUSTOMER)
        async with egress.http_door("remote-model", endpoint) as door:
            runtime = ollama.OllamaRuntime(ollama.OllamaServer(door), "m", context_tokens=128)
            with pytest.raises(UnavailableError):
                await hear(runtime, said)
            await runtime.aclose()

    assert len("".join(said)) == 1000


@pytest.mark.parametrize("encoding", ["", "Content-Encoding: gzip\r\n"])
async def test_a_list_without_end_is_cut_off(egress: Egress, monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    """Nor may a server's list of its models fill it, by its length or by what it unpacks to."""
    monkeypatch.setattr(ollama, "ANSWER_BYTES", 1000)
    body = gzip.compress(b'{"models": []}' + b" " * 1_000_000) if encoding else b'{"models": []}' + b" " * 1000
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{encoding}Content-Length: {len(body)}\r\n\r\n"
    async with captured_http(head.encode() + body) as server:
        endpoint = Endpoint("box", f"http://127.0.0.1:{server.port}", DoorCeiling.CUSTOMER)
        async with egress.http_door("remote-model", endpoint) as door:
            with pytest.raises(UnavailableError) as caught:
                await ollama.OllamaServer(door).pulled()

    assert caught.value.code is errors.FAILED


async def hear(runtime: ollama.OllamaRuntime, said: list[str]) -> None:
    async for item in runtime.chat([Message(Role.USER, "4711")], sampling=Sampling()):
        assert isinstance(item, TextDelta)
        said.append(item.text)


async def test_endpoint_that_is_not_in_the_ceiling_is_refused(egress: Egress) -> None:
    """The cloud refers to names; it does not bring servers."""
    with pytest.raises(NotFoundError):
        await ModelCatalogue({}, FileVerifier(), open_door=egress.http_door).load({"m": REMOTE})


@pytest.mark.parametrize(
    ("tag", "fine"),
    [
        ("smollm2:135m", True),
        ("team/reader:v2", True),
        ("qwen2.5", True),
        ("registry.example/a", False),
        ("host:80/a", False),
        ("a/b/c", False),
        ("../a", False),
        ("A", False),
        ("a" * 201, False),
        ("a b", False),
        ("", False),
    ],
)
def test_tag_is_a_name_and_no_place(tag: str, fine: bool) -> None:
    """What comes from the cloud never says where to fetch from."""
    assert is_model_tag(tag) is fine
