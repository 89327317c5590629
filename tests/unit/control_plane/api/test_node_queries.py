"""Nodes as the database knows them: of one tenant, in pages, with a bounded history."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from control_plane.api.node_queries import MAX_HISTORY, NodeQueries
from control_plane.db.models import node_config_status, nodes, revisions, sites, tenants
from control_plane.db.schema import migrate_schema
from faos.tunnel.v1.tunnel_pb2 import ApplyState
from faos_core.errors import NotFoundError
from faos_core.ids import NodeIdentity, NodeName, SiteName, TenantName
from faos_core.store import Store

NOW = datetime(2026, 5, 4, tzinfo=UTC)


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    """Two tenants, each with the sites s1 and s2 and the nodes n1 and n2 there; acme stands at revision 3."""
    migrate_schema(database_url)
    async with Store(database_url) as store:
        for tenant in ("acme", "other"):
            await insert(store, tenants, name=tenant, created_at=NOW, tuf_root=b"")
            for number in (1, 2):
                await insert(store, sites, tenant=tenant, name=f"s{number}", labels={}, created_at=NOW)
                await insert(store, nodes, **node_row(tenant, f"s{number}", f"n{number}"))
        for number in (1, 2, 3):
            await insert(
                store,
                revisions,
                tenant="acme",
                number=number,
                created_at=NOW,
                author="a",
                manifest=b"",
                manifest_sha256=b"",
            )
        yield store


async def insert(store: Store, table: object, **row: object) -> None:
    await store.write(lambda connection: connection.execute(table.insert().values(row)))  # type: ignore[attr-defined]


def node_row(tenant: str, site: str, name: str) -> dict[str, object]:
    return {
        "tenant": tenant,
        "site": site,
        "name": name,
        "spiffe_id": NodeIdentity(TenantName(tenant), SiteName(site), NodeName(name)).spiffe_id,
        "labels": {},
        "enrolled_at": NOW,
        "public_key_sha256": b"",
        "certificate_serial": "1",
        "certificate_expires_at": NOW,
    }


@pytest.mark.parametrize(
    ("tenant", "site", "expected"),
    [
        ("acme", "", ["acme/n1", "acme/n2"]),
        ("acme", "s2", ["acme/n2"]),
        ("", "", ["acme/n1", "acme/n2", "other/n1", "other/n2"]),
        ("", "s1", ["acme/n1", "other/n1"]),
    ],
)
async def test_list_filters_and_pages(store: Store, tenant: str, site: str, expected: list[str]) -> None:
    """Empty means every one; pages of one node each come to the same."""
    queries, seen, token = NodeQueries(store), [], ""
    while not seen or token:
        page, token = await queries.list(tenant, site, page_size=1, page_token=token)
        seen += [f"{node.identity.tenant}/{node.identity.node}" for node in page]

    assert seen == expected


@pytest.mark.parametrize(("tenant", "site"), [("nobody", ""), ("acme", "s9"), ("nobody", "s1")])
async def test_list_of_what_is_not_there_says_so(store: Store, tenant: str, site: str) -> None:
    """An empty list would look like a site without nodes."""
    with pytest.raises(NotFoundError):
        await NodeQueries(store).list(tenant, site, page_size=0, page_token="")


async def test_desired_revision_is_the_tenants_newest(store: Store) -> None:
    """And never another tenant's."""
    listed, _ = await NodeQueries(store).list("", "", page_size=0, page_token="")

    assert {str(node.identity.tenant): node.desired_revision for node in listed} == {"acme": 3, "other": 0}


async def test_history_is_newest_first_and_bounded(store: Store) -> None:
    """A node that flaps for months must not make its own page unreadable."""
    state = ApplyState.APPLY_STATE_HEALTHY
    for number in range(1, MAX_HISTORY + 3):
        await insert(store, node_config_status, tenant="acme", node="n1", revision=number, state=state, at=NOW)

    _, history = await NodeQueries(store).get("acme", "n1")

    assert [it.attempted_revision for it in history] == list(range(MAX_HISTORY + 2, 2, -1))


async def test_nack_of_an_earlier_attempt_is_not_shown_with_a_good_state(store: Store) -> None:
    """A row that kept old columns must not show a healthy node as refusing."""
    await insert(
        store,
        node_config_status,
        tenant="acme",
        node="n1",
        revision=1,
        state=ApplyState.APPLY_STATE_HEALTHY,
        nack_code=1,
        at=NOW,
    )

    _, history = await NodeQueries(store).get("acme", "n1")

    assert history[0].nack is None


async def test_statuses_of_a_revision_are_of_one_tenant(store: Store) -> None:
    """Revisions of two tenants have the same numbers."""
    for tenant in ("acme", "other"):
        await insert(store, node_config_status, tenant=tenant, node="n2", revision=1, state=1, at=NOW)

    statuses = await NodeQueries(store).of_revision("acme", 1)

    assert [(status.node, status.site) for status in statuses] == [("n2", "s2")]
