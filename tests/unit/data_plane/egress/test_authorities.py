"""Whom a node believes in TLS, and what it says of files that it cannot use."""

import asyncio
import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from data_plane.ceiling.models import DoorCeiling, Endpoint
from data_plane.egress.authorities import Authorities, load_authorities
from data_plane.egress.http_door import HttpDoor, HttpRequest
from data_plane.egress.ledger import open_ledger
from faos_core.clock import SystemClock
from faos_core.errors import SetupError, UnavailableError
from tests.servers.captured_http import captured_http
from tests.servers.proxies import Authority, write

CLASS = DoorCeiling.OPERATIONAL


async def ask(folder: Path, port: int, authorities: Authorities, ca_file: Path | None = None) -> int:
    """What a door to this endpoint is answered."""
    endpoint = Endpoint("box", f"https://127.0.0.1:{port}", CLASS, ca_file=ca_file)
    async with open_ledger(folder / "ledger") as ledger:
        door = HttpDoor("remote-model", endpoint, doors={}, ledger=ledger, clock=SystemClock(), authorities=authorities)
        async with door, door.send(HttpRequest("GET", f"{endpoint.url}/", {}, b"", CLASS)) as answer:
            return answer.status


def loaded(folder: Path) -> Authorities:
    return load_authorities(folder, datetime.now(UTC))


async def test_door_believes_the_sites_own_authorities(tmp_path: Path) -> None:
    """Behind an inspecting firewall every https endpoint answers with a certificate of the company's CA."""
    authority, stranger = Authority(), Authority()
    folder = write(tmp_path / "ca", corp=authority.pem, old=Authority("Other").pem)
    async with captured_http(tls=authority.server("127.0.0.1")) as server:
        assert await ask(tmp_path, server.port, loaded(folder)) == 200
        with pytest.raises(UnavailableError, match="unreachable") as caught:
            await ask(tmp_path, server.port, loaded(write(tmp_path / "wrong", it=stranger.pem)))

    assert "certificate" in caught.value.what or "signature" in caught.value.what
    assert len(server.requests) == 1


async def test_endpoints_own_file_is_believed_alone(tmp_path: Path) -> None:
    """Who names one authority for an endpoint means no other."""
    authority, folder = Authority(), tmp_path / "ca"
    write(folder, corp=authority.pem)
    pinned = write(tmp_path / "pin", pin=Authority("Pinned").pem) / "pin.pem"
    async with captured_http(tls=authority.server("127.0.0.1")) as server:
        with pytest.raises(UnavailableError):
            await ask(tmp_path, server.port, loaded(folder), ca_file=pinned)

    assert server.requests == []


def test_systems_authorities_stay(tmp_path: Path) -> None:
    """The folder is for what is missing; without it nothing changes."""
    folder = write(tmp_path / "ca", corp=Authority().pem)
    system = {each["serialNumber"] for each in ssl.create_default_context().get_ca_certs()}

    ours = {each["serialNumber"] for each in loaded(folder).context().get_ca_certs()}

    assert len(ours) == len(system) + 1
    assert system <= ours
    assert load_authorities(None, datetime.now(UTC)) == Authorities()


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ({}, "ca_dir.unusable"),
        ({"a.txt": b"x"}, "ca_dir.unusable"),
        ({"a.pem": b""}, "ca_dir.file_unreadable"),
        ({"a.crt": b"\x30\x82\x01"}, "ca_dir.file_unreadable"),
        ({"a.pem": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}, "ca_dir.file_unreadable"),
    ],
    ids=["empty", "no certificates", "empty file", "der", "garbage"],
)
def test_file_that_is_no_authority_is_named(tmp_path: Path, files: dict[str, bytes], code: str) -> None:
    """A folder that silently does nothing is found out months later."""
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)

    with pytest.raises(SetupError) as caught:
        loaded(tmp_path)

    assert caught.value.code.code == code
    assert str(tmp_path) in caught.value.what


def test_missing_folder_and_unreadable_file_are_said_in_the_systems_words(tmp_path: Path) -> None:
    """Permissions and typing errors are mended differently."""
    with pytest.raises(SetupError, match="unusable") as caught:
        loaded(tmp_path / "none")
    assert "No such file" in caught.value.what
    (tmp_path / "loop.pem").symlink_to("loop.pem")
    with pytest.raises(SetupError):
        loaded(tmp_path)


def test_expired_authority_is_an_alarm_and_no_end(tmp_path: Path) -> None:
    """A site works for months without anybody there; a restart must not fail over one old file."""
    folder = write(tmp_path / "ca", new=Authority().pem, old=Authority("Corp CA 2019", days=-3).pem)

    found = loaded(folder)

    assert found.alarms() == ("ca_dir.expired",)
    [expired] = found.expired
    assert "Corp CA 2019" in expired.error().what
    assert "old.pem" in expired.error().what


def test_what_else_stands_in_a_file_does_not_matter(tmp_path: Path) -> None:
    """Bundles come with comments, several certificates and other blocks."""
    one, two = Authority("One"), Authority("Two")
    write(tmp_path / "ca", bundle=b"# Corp bundle \xff\n" + one.pem + b"\nissuer: ...\n" + two.pem)

    names = [dict(pair for part in each["subject"] for pair in part) for each in _own(loaded(tmp_path / "ca"))]

    assert {"One", "Two"} <= {name.get("commonName") for name in names}
    assert one.certificate.public_bytes(Encoding.PEM).decode() in loaded(tmp_path / "ca").pem


def _own(authorities: Authorities) -> list[dict[str, object]]:
    return authorities.context().get_ca_certs()  # type: ignore[return-value]  # a typed dict


async def test_contexts_are_made_beside_the_loop(tmp_path: Path) -> None:
    """Loading the system's authorities takes milliseconds; the loop must not wait for them."""
    folder = write(tmp_path / "ca", corp=Authority().pem)
    contexts = await asyncio.gather(*(asyncio.to_thread(loaded(folder).context) for _ in range(4)))
    assert all(context.minimum_version is ssl.TLSVersion.TLSv1_2 for context in contexts)
