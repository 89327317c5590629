"""Several control planes over one database: each in a process of its own, on each engine."""

import asyncio
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from control_plane.audit.service import AuditService, record
from control_plane.config.service import ConfigService
from control_plane.config.trust_service import TrustService
from control_plane.db.models import audit_records, nodes, revisions, tuf_metadata
from control_plane.db.schema import migrate_schema
from control_plane.identity.authority import Authority, enrolment_uri
from control_plane.identity.enrolment import JoinTokens
from control_plane.tenants.service import TenantService
from faos.resource.v1 import resource_pb2 as pb
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core.clock import SystemClock
from faos_core.errors import FaosError
from faos_core.store import Store
from tunnel.identity import certificate_request, decode_join_string, new_key
from tunnel.tls import Peer

APPLIES = 8
REPLICAS = 3


def knowledge(name: str) -> pb.Resource:
    return pb.Resource(metadata=pb.Metadata(name=name), knowledge_base=pb.KnowledgeBase(folder="docs", top_k=1))


def services(store: Store, folder: Path) -> tuple[TenantService, ConfigService, JoinTokens]:
    clock = SystemClock()
    config = ConfigService(store, folder / "keys", clock)
    tokens = JoinTokens(store, Authority.open(folder / "ca", clock), record, clock, ["127.0.0.1:1"])
    trust = TrustService(store, folder / "keys", clock, config.tell)
    return TenantService(store, clock, trust.create_tenant_keys), config, tokens


async def replica(url: str, folder: Path, number: int, joins: list[str]) -> dict[str, Any]:
    """What one process does, all at once: makes the tenant, applies, joins with every token."""
    async with Store(url) as store:
        tenants, config, tokens = services(store, folder)

        async def apply(n: int) -> int:
            resources = [knowledge(f"k-{number}-{n}")]
            answer = await config.apply("acme", resources, author="a", request_id="", validate_only=False)
            return answer.revision

        created, *rest = await asyncio.gather(
            outcome(tenants.create_tenant("other", actor="me")),
            *(apply(n) for n in range(APPLIES)),
            *(outcome(enroll(tokens, string)) for string in joins),
        )
        return {"created": created, "revisions": rest[:APPLIES], "joined": rest[APPLIES:]}


async def enroll(tokens: JoinTokens, string: str) -> None:
    join = decode_join_string(string)
    request = tunnel.EnrollRequest(token_id=join.token_id, secret=join.secret, csr_der=certificate_request(new_key()))
    await tokens.enroll(request, Peer(enrolment_uri(join.token_id), 1))


async def outcome(work: Any) -> str:
    try:
        await work
    except FaosError as error:
        return error.code.code
    return "done"


@pytest.mark.slow
async def test_replicas_that_do_all_at_once_do_it_as_one(database_url: str, tmp_path: Path) -> None:
    """Revisions without gap or fork, one audit chain, a token used once, a tenant made once: whoever comes first."""
    await asyncio.to_thread(migrate_schema, database_url)
    async with Store(database_url) as store:
        tenants, config, tokens = services(store, tmp_path)
        await tenants.create_tenant("acme", actor="me")
        await tenants.create_site("acme", "main", labels={}, actor="me")
        joins = [(await token(tokens)) for _ in range(2)]

        told = await asyncio.gather(*(other(database_url, tmp_path, n, joins * 4) for n in range(REPLICAS)))

        numbers = sorted(number for each in told for number in each["revisions"])
        assert numbers == list(range(1, REPLICAS * APPLIES + 1))
        assert sorted(each["created"] for each in told) == ["done", "tenant.exists", "tenant.exists"]
        joined = [each for replica in told for each in replica["joined"]]
        assert sorted(set(joined)) == ["done", "join_token.used"]
        assert joined.count("done") == len(joins)
        assert await AuditService(store).verify() == await count(store, audit_records)
        assert await count(store, nodes) == len(joins)
        assert await count(store, revisions) == REPLICAS * APPLIES
        assert await count(store, tuf_metadata) == REPLICAS * APPLIES * 3
        listed, _ = await config.list_resources("acme", 0, page_size=100, page_token="")
        assert len(listed) == REPLICAS * APPLIES


async def token(tokens: JoinTokens) -> str:
    _, string = await tokens.create(actor="me", tenant="acme", site="main", labels={}, ttl_s=600)
    return string


async def count(store: Store, table: sa.Table) -> int:
    query = sa.select(sa.func.count()).select_from(table)
    return await store.read(lambda connection: connection.execute(query).scalar_one())


CHILD = """
import asyncio, json, sys
from pathlib import Path
from tests.contract.test_control_plane_replicas import replica
print(json.dumps(asyncio.run(replica(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4])))))
"""


async def other(url: str, folder: Path, number: int, joins: list[str]) -> dict[str, Any]:
    arguments = [sys.executable, "-c", CHILD, url, str(folder), str(number), json.dumps(joins)]
    process = await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    assert process.returncode == 0
    told: dict[str, Any] = json.loads(said)
    return told


async def test_audit_records_of_two_stores_make_one_chain(database_url: str) -> None:
    """The head is read and then followed: two writers that read the same head would fork it."""
    migrate_schema(database_url)

    def write(store: Store, actor: str) -> Any:
        return store.write(
            lambda connection: record(
                connection, actor=actor, action="x/Y", tenant="t", target="u", at=datetime.now(UTC)
            )
        )

    async with Store(database_url) as one, Store(database_url) as two:
        await asyncio.gather(*(write(store, "a") for _ in range(100) for store in (one, two)))

        assert await AuditService(one).verify() == 200
