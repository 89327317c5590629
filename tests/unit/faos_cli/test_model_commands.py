"""faos model list and pull: as typed, through a node's real API and door, to an Ollama server."""

import json
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from data_plane.api.interfaces import Facts
from data_plane.api.server import SiteServer
from data_plane.api.service import SiteApi
from data_plane.ceiling.models import Ceiling, DoorCeiling, Endpoint
from data_plane.egress.reader import read_leaves
from data_plane.egress.service import ledger_folder, open_egress
from data_plane.models.endpoint_models import EndpointModels
from data_plane.storage.service import open_storage
from faos_core.ids import TenantName
from faos_core.lifecycle import running
from tests.fakes.runs import make_node
from tests.parts import ASSETS
from tests.ports import own_port
from tests.servers.ollama import TAG, create_model, ollama_server
from tests.unit.faos_cli.test_run import Standing

if TYPE_CHECKING:
    from tests.unit.faos_cli.conftest import RunFaos

PROGRESS = [
    {"status": "pulling manifest"},
    {"status": "pulling 41872", "digest": "sha256:41872", "total": 2_000_000, "completed": 500_000},
    {"status": "pulling 41872", "digest": "sha256:41872", "total": 2_000_000, "completed": 2_000_000},
    {"status": "success"},
]


@asynccontextmanager
async def node_with(endpoints: Mapping[str, str], folder: Path) -> AsyncIterator[Path]:
    """A node's API and door; its data folder. endpoints: name → URL."""
    data = folder / "node"
    (folder / ".faos").mkdir()
    (folder / ".faos" / "context.json").write_text(json.dumps({"node_data_dir": str(data)}))
    named = {name: Endpoint(name, url, DoorCeiling.CUSTOMER) for name, url in endpoints.items()}
    async with open_storage(data, tenant=TenantName("acme")) as storage, open_egress(data, Ceiling()) as egress:
        node = make_node(storage)
        runs, facts = node.runs(), Facts(Standing(), node.configuration, Standing())
        async with running([runs, SiteServer(data, SiteApi(runs, facts, EndpointModels(named, egress.http_door)))]):
            yield data


@pytest.mark.needs("ollama")
async def test_real_server_is_listed_and_what_it_cannot_fetch_is_said(run_faos: "RunFaos", tmp_path: Path) -> None:
    """The first two things that a person does with a model server; what left the node for it is in the ledger."""
    (tmp_path / "ollama").mkdir()
    with ollama_server(tmp_path / "ollama") as server:
        create_model(server.url, next(ASSETS.glob("*.gguf")))
        async with node_with({"box": server.url, "gone": f"http://127.0.0.1:{own_port()}"}, tmp_path) as data:
            listed = await run_faos("model", "list")
            facts = await run_faos("model", "list", "-o", "json")
            pulled = await run_faos("model", "pull", "box", "no/such:1b")
            unknown = await run_faos("model", "pull", "elsewhere", TAG)

        leaves = list(read_leaves(ledger_folder(data)))

    assert listed.code == 0
    assert ["box", TAG] in [line.split()[:2] for line in listed.out.splitlines()]
    assert "gone does not answer" in listed.err
    assert (facts.json["models"][0]["tag"], facts.json["silentEndpoints"]) == (TAG, ["gone"])
    assert (pulled.code, "Traceback" in pulled.err, "next:" in pulled.err) == (1, False, True)
    assert (unknown.code, "elsewhere" in unknown.err) == (1, True)
    assert any(b"/api/pull" in (leaf.body or b"") for leaf in leaves)


class Registry(BaseHTTPRequestHandler):
    """A server that fetches whatever it is asked to, in four steps."""

    asked: list[bytes]

    def do_POST(self) -> None:  # the library's name
        self.asked.append(self.rfile.read(int(self.headers["Content-Length"])))
        body = b"".join(json.dumps(each).encode() + b"\n" for each in PROGRESS)
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Silence."""


@contextmanager
def registry() -> Iterator[tuple[str, list[bytes]]]:
    """Its URL, and what it was asked."""
    asked: list[bytes] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Asked", (Registry,), {"asked": asked}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def test_pull_shows_progress_and_says_that_it_is_there(run_faos: "RunFaos", tmp_path: Path) -> None:
    """A gigabyte takes a while; in a log one line says what is fetched, and the last that it is done."""
    with registry() as (url, asked):
        async with node_with({"box": url}, tmp_path):
            done = await run_faos("model", "pull", "box", TAG)
            quiet = await run_faos("model", "pull", "box", TAG, "--quiet")

    assert (done.code, done.out) == (0, f"box has {TAG}.\n")
    assert done.err.count("Fetching") == 1
    assert "2 MB" in done.err
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")
    assert [json.loads(each)["model"] for each in asked] == [TAG, TAG]
