"""The doctor's look at a node's database on a server."""

from pathlib import Path

import pytest
import sqlalchemy as sa

from data_plane.doctor.database import Database, exposed_host
from data_plane.doctor.subject import subject_of
from data_plane.network import Network
from data_plane.settings import NodeSettings
from faos_core.checkup import Finding, Verdict
from faos_core.clock import SystemClock
from faos_core.errors import FaosError


async def looked(folder: Path, url: str | None) -> Finding:
    settings = NodeSettings(data_dir=folder, database_url=url)
    return await Database(subject_of(settings, Network(), SystemClock())).server()


async def test_file_of_its_own_is_left_out(tmp_path: Path) -> None:
    """Most nodes: nothing to look at, and said so."""
    assert (await looked(tmp_path, None)).verdict is Verdict.SKIPPED


@pytest.mark.needs("postgres")
async def test_server_is_reached_or_said_not_to_be(tmp_path: Path, postgres_url: str) -> None:
    """A node that does not start for its database must not need a stack trace to say so."""
    found = await looked(tmp_path, postgres_url)
    assert found.verdict is Verdict.PASS
    with pytest.raises(FaosError) as caught:
        await looked(tmp_path, str(sa.make_url(postgres_url).set(database="nowhere").render_as_string(False)))
    assert caught.value.code.code.startswith("store.")


@pytest.mark.parametrize(
    ("url", "environment", "host"),
    [
        ("postgresql://a:b@db.ward.example/faos", {}, "db.ward.example"),
        ("postgresql://a@10.0.0.7/faos?sslmode=require", {}, "10.0.0.7"),
        ("postgresql:///faos?host=db.ward.example", {}, "db.ward.example"),
        ("postgresql:///faos", {"PGHOST": "db"}, "db"),
        ("postgresql://a@db.ward.example/faos?sslmode=verify-full", {}, ""),
        ("postgresql://a@db.ward.example/faos", {"PGSSLMODE": "verify-full"}, ""),
        ("postgresql://a@127.0.0.1/faos", {}, ""),
        ("postgresql://a@[::1]/faos", {}, ""),
        ("postgresql:///faos?host=/run/postgresql", {}, ""),
        ("postgresql:///faos", {}, ""),
    ],
)
def test_only_what_goes_over_a_network_unverified_is_exposed(url: str, environment: dict[str, str], host: str) -> None:
    """A database elsewhere is the one way out of a site that no gate stands before."""
    assert exposed_host(sa.make_url(url), environment) == host
