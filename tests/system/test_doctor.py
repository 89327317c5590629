"""`faos doctor` before joining, beside a running node, and behind the networks that companies have."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from control_plane.doctor.service import checks_of as checks_of_control_plane
from control_plane.settings import ControlPlaneSettings
from data_plane.ceiling.models import Ceiling
from data_plane.doctor.service import checks_of
from data_plane.doctor.subject import subject_of
from data_plane.egress.service import ledger_folder, open_egress
from data_plane.identity.join import join
from data_plane.network import Network
from data_plane.settings import NodeSettings
from faos_core.checkup import Check, Finding, Verdict, examine
from faos_core.clock import Clock, SystemClock
from tests.patience import PATIENCE_S
from tests.servers.proxies import INSPECTOR, Authority, ConnectProxy, running, write
from tests.system.harness import RunningControlPlane, running_control_plane
from tests.system.small_site import fill_small_site, running_node

DIRECT = Network()
SEVERAL = ("model file", "endpoint", "port")


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[RunningControlPlane]:
    async with running_control_plane(tmp_path / "cp") as plane:
        await plane.create_tenant()
        yield plane


class MovedClock(SystemClock):
    """This machine's, some days off."""

    def __init__(self, days: float) -> None:
        self._off = timedelta(days=days)

    def now(self) -> datetime:
        return datetime.now(UTC) + self._off


async def findings(
    data_dir: Path, network: Network = DIRECT, *, string: str = "", clock: Clock | None = None, site: Path | None = None
) -> Mapping[str, Finding]:
    """By the check's name, its subject after it where there are several."""
    settings = NodeSettings(data_dir=data_dir, site_file=site)
    checks = await asyncio.to_thread(lambda: checks_of(subject_of(settings, network, clock or SystemClock(), string)))
    return await answers(checks)


async def answers(checks: list[Check]) -> Mapping[str, Finding]:
    found = {}
    for result in await examine(checks):
        name = result.check.name
        found[f"{name} {result.check.subject}" if name in SEVERAL else name] = result.finding
        if name == "port":
            found[name] = result.finding
    return found


def failing(found: Mapping[str, Finding]) -> set[str]:
    return {name for name, finding in found.items() if finding.verdict is Verdict.FAIL}


def digests(folder: Path) -> dict[str, tuple[str, int]]:
    """Of every file: content and modification time."""
    return {
        str(file): (hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_mtime_ns)
        for file in folder.rglob("*")
        if file.is_file()
    }


async def test_machine_that_is_about_to_join_is_told_that_it_can(plane: RunningControlPlane, tmp_path: Path) -> None:
    """One look before a token is spent."""
    found = await findings(tmp_path / "node", string=await plane.join_string())

    assert failing(found) == set()
    assert (found["tls"].verdict, found["port"].verdict) == (Verdict.PASS, Verdict.PASS)
    assert found["identity"].verdict is found["site.toml"].verdict is Verdict.SKIPPED
    assert not (tmp_path / "node").exists()


@pytest.mark.parametrize("joined", [False, True], ids=["before joining", "joined"])
async def test_inspecting_proxy_is_named(plane: RunningControlPlane, tmp_path: Path, joined: bool) -> None:
    """The finding that this command exists for: who, where, and whom to ask for what."""
    string, inspector = await plane.join_string(), Authority()
    if joined:
        await join(tmp_path / "node", string, Ceiling())
    async with running(ConnectProxy(inspector=inspector)) as proxy:
        trusting = Network(proxy=proxy.url, ca_dir=write(tmp_path / "ca", corp=inspector.pem))
        for network in (Network(proxy=proxy.url), trusting):  # the tunnel trusts no folder
            found = await findings(tmp_path / "node", network, string="" if joined else string)
            assert (found["proxy"].verdict, found["tls"].verdict) == (Verdict.PASS, Verdict.FAIL)
            assert INSPECTOR in found["tls"].what
            assert f"exempt {plane.tunnel_address}" in found["tls"].next_step


async def test_healthy_node_behind_a_proxy_passes(plane: RunningControlPlane, tmp_path: Path) -> None:
    """What works is said to work, and what does not apply is said to be left out."""
    (credentials := tmp_path / "credentials").write_text("a:b")
    credentials.chmod(0o600)
    async with running(ConnectProxy(credentials="a:b")) as proxy:
        network = Network(proxy=proxy.url, proxy_credentials_file=credentials)
        await join(tmp_path / "node", await plane.join_string(), Ceiling(), network=network)
        found = await findings(tmp_path / "node", network)
        credentials.chmod(0o644)
        careless = await findings(tmp_path / "node", network)

    assert failing(found) == {"site.toml"}  # there is none here
    assert {found[name].verdict for name in ("proxy", "tls", "identity", "certificate", "ledger")} == {Verdict.PASS}
    assert {found[name].verdict for name in ("dns", "port", "node")} == {Verdict.SKIPPED}
    assert (careless["proxy"].verdict, careless["proxy"].next_step) == (Verdict.WARN, f"chmod 600 {credentials}")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 407 X\r\nProxy-Authenticate: Negotiate\r\n\r\n", "Negotiate"),
        (b"HTTP/1.1 403 X\r\n\r\n", "allow"),
        (b"nonsense\r\n\r\n", "CONNECT"),
    ],
)
async def test_proxys_refusal_is_one_finding_and_no_riddle(
    plane: RunningControlPlane, tmp_path: Path, answer: bytes, words: str
) -> None:
    """Three checks fail of one cause; only the cause is told as failing."""
    async with running(ConnectProxy(answer=answer)) as proxy:
        found = await findings(tmp_path / "node", Network(proxy=proxy.url), string=await plane.join_string())

    assert failing(found) == {"proxy"}
    assert words in found["proxy"].cause + found["proxy"].next_step
    assert found["tls"].verdict is Verdict.SKIPPED


async def test_closed_port_and_unknown_name_are_told_apart(plane: RunningControlPlane, tmp_path: Path) -> None:
    """They are mended by different people."""
    from tunnel.identity import decode_join_string, encode_join_string

    string = decode_join_string(await plane.join_string())
    async with running(ConnectProxy()) as gone:
        pass
    string.addresses[:] = [f"127.0.0.1:{gone.port}"]
    closed = await findings(tmp_path / "node", string=encode_join_string(string))
    string.addresses[:] = ["cloud.invalid:7443"]
    unknown = await findings(tmp_path / "node", string=encode_join_string(string))

    assert failing(closed) == {"port", f"port 127.0.0.1:{gone.port}"}
    assert "nothing listens" in closed["port"].cause
    assert failing(unknown) == {"dns", "port", "port cloud.invalid:7443"}
    assert "cloud.invalid" in unknown["dns"].what


@pytest.mark.parametrize("days", [-3, 4000])
async def test_wrong_clock_is_found(plane: RunningControlPlane, tmp_path: Path, days: float) -> None:
    """By what the control plane has signed: nothing needs to be asked."""
    await join(tmp_path / "node", await plane.join_string(), Ceiling())

    found = await findings(tmp_path / "node", clock=MovedClock(days))

    assert found["clock"].verdict is Verdict.FAIL
    assert "timedatectl" in found["clock"].next_step


async def test_nothing_is_changed_and_damage_is_found(plane: RunningControlPlane, tmp_path: Path) -> None:
    """A look must be safe at any time; evidence stays as it lies."""
    data_dir = tmp_path / "node"
    await join(data_dir, await plane.join_string(), Ceiling())
    before = digests(data_dir)
    well = await findings(data_dir)
    assert digests(data_dir) == before

    [segment] = ledger_folder(data_dir).glob("*.seg")
    whole = segment.read_bytes()
    segment.write_bytes(whole[:-40] + bytes([whole[-40] ^ 1]) + whole[-39:])
    damaged = await findings(data_dir)

    assert well["ledger"].verdict is Verdict.PASS
    assert damaged["ledger"].verdict is Verdict.FAIL
    assert "faos ledger verify" in damaged["ledger"].next_step


@pytest.mark.parametrize(
    ("files", "verdict", "words"),
    [
        ({"corp": b"-----BEGIN"}, Verdict.FAIL, "corp.pem"),
        ({}, Verdict.FAIL, ".pem"),
        ({"old": Authority("Old CA", days=-1).pem}, Verdict.WARN, "Old CA"),
    ],
    ids=["garbage", "empty", "expired"],
)
async def test_authorities_are_looked_at(tmp_path: Path, files: dict[str, bytes], verdict: Verdict, words: str) -> None:
    """An expired inspection CA is the usual reason why everything stops on a Monday."""
    found = await findings(tmp_path / "node", Network(ca_dir=write(tmp_path / "ca", **files)))

    assert found["authorities"].verdict is verdict
    assert words in found["authorities"].what + found["authorities"].cause


async def test_expired_certificate_says_how_it_comes_back(plane: RunningControlPlane, tmp_path: Path) -> None:
    """After a long holiday nobody needs to enrol anew."""
    await join(tmp_path / "node", await plane.join_string(), Ceiling())

    found = await findings(tmp_path / "node", clock=MovedClock(30))

    assert found["certificate"].verdict is Verdict.WARN
    assert "Start the node" in found["certificate"].next_step


@pytest.mark.needs("model", "embedder", "bwrap")
async def test_running_node_is_asked_and_its_files_are_checked(plane: RunningControlPlane, tmp_path: Path) -> None:
    """It works while the node runs: the ledger has one writer, and the doctor is not it."""
    data_dir, site = tmp_path / "node", fill_small_site(tmp_path / "site", own_model=True)
    await join(data_dir, await plane.join_string(), Ceiling())
    async with running_node(data_dir, site) as node:
        async with asyncio.timeout(PATIENCE_S):
            while not node.session.is_connected:
                await asyncio.sleep(0.05)
        found = await findings(data_dir, site=site)
        with (tmp_path / "site" / "model.gguf").open("ab") as file:
            file.write(b"x")
        changed = await findings(data_dir, site=site)

    assert failing(found) == set(), found
    assert "connected" in found["node"].what
    assert found["model file smollm2"].verdict is found["sandbox"].verdict is Verdict.PASS
    assert failing(changed) == {"model file smollm2"}


async def test_endpoints_are_reached_and_their_certificates_read(tmp_path: Path) -> None:
    """A model server behind an inspector fails at the first question, hours after the start."""
    inspector, owner = Authority(), Authority("Site CA")
    async with (
        running(ConnectProxy(inspector=inspector)) as proxy,
        running(ConnectProxy(tls=owner.server("127.0.0.1"))) as server,
    ):
        site = tmp_path / "site.toml"
        site.write_text(
            f"""
            [endpoints.direct]
            url = "{server.url}"
            data_class = "customer"
            ca_file = "{write(tmp_path / "own", ca=owner.pem) / "ca.pem"}"
            [endpoints.inspected]
            url = "{server.url}"
            data_class = "customer"
            through_proxy = true
            [endpoints.plain]
            url = "{proxy.url}"
            data_class = "customer"
            """
        )
        found = await findings(tmp_path / "node", Network(proxy=proxy.url), site=site)

    assert found["endpoint direct"].verdict is found["endpoint plain"].verdict is Verdict.PASS
    assert INSPECTOR in found["endpoint inspected"].what


async def test_control_plane_is_looked_at(plane: RunningControlPlane, tmp_path: Path) -> None:
    """The other end of the cable has disks, ports and certificates too."""
    settings = ControlPlaneSettings(data_dir=plane.data_dir, public_addresses=(plane.tunnel_address,))
    found = await answers(checks_of_control_plane(settings, SystemClock()))
    assert failing(found) == set()
    assert found["database"].verdict is found["authority"].verdict is Verdict.PASS
    assert found["port tunnel_listen"].verdict is found["public address"].verdict is Verdict.PASS

    fresh = await answers(checks_of_control_plane(replace(settings, data_dir=tmp_path / "none"), SystemClock()))
    assert failing(fresh) == set()
    (plane.data_dir / "ca" / "ca.pem").write_text("gone")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "control-plane.db").write_bytes(b"no database at all, and longer than a page" * 200)
    assert "authority" in failing(await answers(checks_of_control_plane(settings, SystemClock())))
    damaged = replace(settings, data_dir=tmp_path / "damaged")
    assert "database" in failing(await answers(checks_of_control_plane(damaged, SystemClock())))


async def test_doctor_beside_an_open_ledger_reads_it(plane: RunningControlPlane, tmp_path: Path) -> None:
    """A node that is being written to is the usual patient."""
    await join(tmp_path / "node", await plane.join_string(), Ceiling())
    async with open_egress(tmp_path / "node", Ceiling()):
        assert (await findings(tmp_path / "node"))["ledger"].verdict is Verdict.PASS
