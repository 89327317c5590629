"""Applying resources: validated, numbered, signed, offered."""

import asyncio
import contextlib
import tempfile
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tuf.api.exceptions import DownloadHTTPError
from tuf.api.metadata import Metadata
from tuf.ngclient import FetcherInterface, Updater

from control_plane.audit.service import verify
from control_plane.config import trust
from control_plane.config.errors import ResourcesInvalidError
from control_plane.config.service import ConfigService
from control_plane.config.trust_service import TrustService
from control_plane.db.models import audit_records, nodes, revisions, tuf_metadata
from control_plane.db.schema import migrate_schema
from control_plane.tenants.service import TenantService
from faos.admin.v1.admin_pb2 import ChangeType
from faos.resource.v1 import resource_pb2 as pb
from faos_core import resource_yaml
from faos_core.errors import ConflictError, InvalidError, NotFoundError, SetupError
from faos_core.store import Store

FIXTURES = Path(__file__).parents[3] / "fixtures" / "resources"
CREATED, UPDATED, UNCHANGED = (
    ChangeType.CHANGE_TYPE_CREATED,
    ChangeType.CHANGE_TYPE_UPDATED,
    ChangeType.CHANGE_TYPE_UNCHANGED,
)


class FakeClock:
    """Wall time that a test sets."""

    def __init__(self):
        self.at = datetime.now(UTC).replace(microsecond=0)

    def now(self):
        return self.at

    def monotonic_s(self):
        return self.at.timestamp()

    async def sleep(self, duration_s):
        self.at += timedelta(seconds=duration_s)


@contextlib.asynccontextmanager
async def configuration(folder, age=timedelta(0), url=None):
    """A configuration service over a real database, with the tenant acme and its sites north and south, begun in the
    past if it has an age."""
    url = url or f"sqlite:///{folder / 'cp.db'}"
    await asyncio.to_thread(migrate_schema, url)
    clock = FakeClock()
    clock.at -= age
    async with Store(url) as store:
        service = ConfigService(store, folder / "keys", clock)
        trusts = TrustService(store, folder / "keys", clock, service.tell)
        tenants = TenantService(store, clock, trusts.create_tenant_keys)
        await tenants.create_tenant("acme", actor="test")
        for name in ("north", "south"):
            await tenants.create_site("acme", name, labels={"region": name}, actor="test")
        yield service


@pytest.fixture
async def service(tmp_path, database_url):
    async with configuration(tmp_path, url=database_url) as made:
        yield made


@pytest.fixture
def ward():
    return [item.resource for item in resource_yaml.load([FIXTURES / "ward.yaml"])]


def apply(service, resources, *, tenant="acme", request_id="", validate_only=False):
    return service.apply(tenant, resources, author="ada", request_id=request_id, validate_only=validate_only)


def knowledge(name, top_k=1, **sites):
    metadata = pb.Metadata(name=name, sites=pb.Selector(match_labels=sites))
    return pb.Resource(metadata=metadata, knowledge_base=pb.KnowledgeBase(folder="docs", top_k=top_k))


def rows(service, table):
    return service._store.read(lambda connection: list(connection.execute(sa.select(table))))


async def test_first_apply_makes_revision_one(service, ward):
    """The first thing that a newcomer does must give something to run."""
    applied = await apply(service, ward)

    assert applied.revision == 1
    assert [(change.name, change.change) for change in applied.changes][-1] == ("nurse", CREATED)
    assert {change.change for change in applied.changes} == {CREATED}


async def test_unchanged_apply_makes_no_revision(service, ward):
    """Applying again is how people make sure; it must not disturb a fleet."""
    await apply(service, ward)

    applied = await apply(service, ward)

    assert applied.revision == 1
    assert {change.change for change in applied.changes} == {UNCHANGED}
    assert applied.affected_sites == ()
    assert len(await rows(service, revisions)) == 1


async def test_change_of_one_resource_keeps_the_others(service, ward):
    """Resources that a request does not name stay."""
    await apply(service, ward)
    ward[0].model.sampling.max_tokens = 99

    applied = await apply(service, ward[:1])
    material = await service.offer_material("acme")

    assert applied.revision == 2
    assert [(change.name, change.change) for change in applied.changes] == [("small", UPDATED)]
    assert [entry.name for entry in material.manifest.entries] == ["nurse", "small", "clock", "handbook", "read-only"]


async def test_manifest_names_every_body_by_digest(service, ward):
    """Nodes check bodies against the manifest alone."""
    await apply(service, ward)
    material = await service.offer_material("acme")

    assert (material.manifest.tenant, material.manifest.revision) == ("acme", 1)
    for entry in material.manifest.entries:
        body = material.blobs[entry.sha256]
        assert (sha256(body).digest(), len(body)) == (entry.sha256, entry.length_bytes)
        assert pb.Resource.FromString(body).metadata.name == entry.name
    assert material.manifest.entries[0].sites.match_labels == {"region": "north"}


async def test_offer_is_signed_for_its_manifest(service, ward):
    """What is offered must be what was signed."""
    await apply(service, ward)
    material = await service.offer_material("acme")
    target = Metadata.from_bytes(material.metadata.targets).signed.targets["manifest"]

    target.verify_length_and_hashes(material.manifest_bytes)
    assert sha256(material.manifest_bytes).digest() == material.manifest_sha256


async def test_offer_material_is_built_once_per_revision(service, ward):
    """A thousand nodes must share one encoding."""
    await apply(service, ward)

    first, second = await asyncio.gather(service.offer_material("acme"), service.offer_material("acme"))
    await apply(service, [knowledge("more")])
    third = await service.offer_material("acme")

    assert first is second
    assert (first.revision, third.revision) == (1, 2)


async def test_nothing_is_offered_before_the_first_apply(service):
    """A node of a new tenant has nothing to run, which is no error."""
    assert await service.offer_material("acme") is None


async def test_timestamp_is_signed_again_after_a_day(service, ward):
    """A tenant that changes nothing must not run out of fresh metadata."""
    await apply(service, ward)
    before = await service.offer_material("acme")
    service._clock.at += timedelta(days=6)

    after = await service.offer_material("acme")
    old, new = (Metadata.from_bytes(it.metadata.timestamp).signed for it in (before, after))

    assert new.version == old.version + 1
    assert new.expires == service._clock.at + timedelta(days=7)
    assert after.manifest_bytes == before.manifest_bytes
    assert await service.offer_material("acme") is after


async def test_a_year_without_changes_is_bridged(tmp_path, ward):
    """Root and targets expire after a year: a tenant that changes nothing must still enrol nodes after that."""
    async with configuration(tmp_path, age=timedelta(days=400)) as service:
        await apply(service, ward)
        pinned = (tmp_path / "keys" / "acme" / "1.root.json").read_bytes()
        service._clock.at += timedelta(days=400)

        material = await service.offer_material("acme")

        assert (material.revision, [trust.version_of(root) for root in material.metadata.roots]) == (2, [2])
        assert len(material.manifest.entries) == len(ward)
        assert take(tmp_path / "node", pinned, material) == material.manifest_bytes
        assert (await service.get_revision("acme", 2)).author == "control-plane"


async def test_offline_root_and_publisher_do_not_stop_the_timestamp(service, ward, tmp_path):
    """Keys may live elsewhere; freshness is the online keys' work alone."""
    await apply(service, ward)
    for name in ("root.pem", "targets.pem"):
        (tmp_path / "keys" / "acme" / name).unlink()
    service._clock.at += timedelta(days=330)

    material = await service.offer_material("acme")

    assert material.revision == 1
    assert trust.expires_at(material.metadata.timestamp) == service._clock.at + timedelta(days=7)


def take(folder, root, material):
    """The TUF client of a fresh node, today."""
    (folder / "targets").mkdir(parents=True)
    metadata = material.metadata
    files = {"manifest": material.manifest_bytes, "timestamp.json": metadata.timestamp}
    files |= {"snapshot.json": metadata.snapshot, "targets.json": metadata.targets}
    files |= {f"{trust.version_of(root)}.root.json": root for root in metadata.roots}
    updater = Updater(str(folder), "memory:///", str(folder / "targets"), "memory:///", Memory(files), bootstrap=root)
    return Path(updater.download_target(updater.get_targetinfo("manifest"))).read_bytes()


class Memory(FetcherInterface):
    """Serves files from memory."""

    def __init__(self, files):
        self.files = files

    def _fetch(self, url):
        name = url.rsplit("/", 1)[-1]
        if name not in self.files:
            raise DownloadHTTPError("not in the offer", 404)
        yield self.files[name]


async def test_lost_timestamp_key_still_offers_what_was_signed(service, ward, tmp_path):
    """A broken key must stop what needs it, not what does not."""
    await apply(service, ward)
    service._clock.at += timedelta(days=2)
    (tmp_path / "keys" / "acme" / "timestamp.pem").unlink()

    material = await service.offer_material("acme")

    assert Metadata.from_bytes(material.metadata.timestamp).signed.version == 1


async def test_lost_publisher_key_stores_nothing(service, ward, tmp_path):
    """A revision without a signature must not exist."""
    (tmp_path / "keys" / "acme" / "targets.pem").unlink()

    with pytest.raises(SetupError):
        await apply(service, ward)

    assert await rows(service, revisions) == []
    assert (await service.list_resources("acme", 0, page_size=0, page_token=""))[0] == []


async def test_invalid_resources_store_nothing_and_say_everything(service, ward):
    """All or nothing; and one round trip tells all."""
    ward[0].model.source = "/models/small.gguf"
    ward[4].agent.tools.append("gone")

    with pytest.raises(ResourcesInvalidError) as caught:
        await apply(service, ward)

    paths = [(violation.name, violation.field_path) for violation in caught.value.violations]
    assert paths == [("small", "spec.source"), ("nurse", "spec.tools[1]")]
    assert isinstance(caught.value, InvalidError)
    assert "small" in caught.value.why
    assert await rows(service, revisions) == []


async def test_reference_to_what_stands_is_accepted(service, ward):
    """Resources may come one file at a time, in the order of their references."""
    await apply(service, ward[:4])

    assert (await apply(service, ward[4:])).revision == 2


async def test_policy_for_a_tool_server_that_nobody_declared_is_refused(service, ward):
    """A deny rule with a misspelt server denies nothing; only here is all known that a tenant declares."""
    ward[3].policy.rules[0].tool_servers.append("clok")

    with pytest.raises(ResourcesInvalidError) as caught:
        await apply(service, ward)

    assert caught.value.violations[0].field_path == "spec.rules[0].toolServers[1]"


async def test_validate_only_stores_nothing(service, ward):
    """A dry run must be dry."""
    applied = await apply(service, ward, validate_only=True)

    assert (applied.revision, len(applied.changes), applied.affected_sites) == (0, 5, ("north", "south"))
    assert await rows(service, revisions) == []


@pytest.mark.parametrize("validate_only", [True, False])
async def test_unknown_tenant_is_not_found(service, ward, validate_only):
    """A misspelt tenant must not come into being."""
    with pytest.raises(NotFoundError):
        await apply(service, ward, tenant="acne", validate_only=validate_only)


async def test_affected_sites_are_those_selected(service):
    """An operator wants to know whom a change reaches, before and after."""
    everywhere = await apply(service, [knowledge("all")])
    north = await apply(service, [knowledge("some", region="north")])
    by_name = await apply(service, [knowledge("one", site="south")])
    moved = await apply(service, [knowledge("some", region="south")])

    assert everywhere.affected_sites == ("north", "south")
    assert north.affected_sites == ("north",)
    assert by_name.affected_sites == ("south",)
    assert moved.affected_sites == ("north", "south")


async def test_label_of_a_node_makes_its_site_affected(service):
    """Nodes have labels of their own, and selectors match those."""
    now = service._clock.now()
    node = {"tenant": "acme", "name": "n1", "site": "south", "labels": {"gpu": "yes"}, "spiffe_id": "x"}
    certificate = {"public_key_sha256": b"x", "certificate_serial": "1", "certificate_expires_at": now}
    insert = nodes.insert().values(enrolled_at=now, **node, **certificate)
    await service._store.write(lambda connection: connection.execute(insert))

    assert (await apply(service, [knowledge("big", gpu="yes")])).affected_sites == ("south",)


async def test_same_request_id_gives_the_same_answer(service, ward):
    """A client that lost the answer asks again; the world must not have changed twice."""
    first = await apply(service, [knowledge("a")], request_id="r1")
    await apply(service, [knowledge("a", top_k=2)])

    again = await apply(service, [knowledge("a")], request_id="r1")

    assert again == first
    assert (await service.get_resource("acme", pb.KIND_KNOWLEDGE_BASE, "a")).resource.knowledge_base.top_k == 2


async def test_request_id_of_another_request_is_refused(service):
    """Two requests under one id would make one of them vanish."""
    await apply(service, [knowledge("a")], request_id="r" * 300)

    with pytest.raises(ConflictError):
        await apply(service, [knowledge("b")], request_id="r" * 300)


async def test_every_apply_has_its_audit_record(service, ward):
    """No audit, no action; and nothing in the record but names."""
    await apply(service, ward)
    await apply(service, ward)
    with pytest.raises(ResourcesInvalidError):
        await apply(service, [knowledge("Bad")])

    records = [row for row in await rows(service, audit_records) if row.action.endswith("ApplyResources")]

    assert [(row.actor, row.tenant, row.target) for row in records] == [
        ("ada", "acme", "revision 1"),
        ("ada", "acme", "revision 1 (unchanged)"),
    ]
    assert await service._store.read(verify) == 5


async def test_listener_hears_of_new_revisions_only(service, ward):
    """Connected nodes learn at once; and are left alone when nothing changed."""
    heard = []

    async def listener(tenant):
        heard.append((tenant, (await service.offer_material(tenant)).revision))

    service.on_change(listener)
    await apply(service, ward)
    await apply(service, ward)
    await apply(service, [knowledge("more")])

    assert heard == [("acme", 1), ("acme", 2)]


async def test_cancelled_apply_is_still_told(service, ward):
    """A client that hangs up must not leave a stored revision that no node hears of."""
    heard = asyncio.Event()

    async def listener(tenant):
        heard.set()

    service.on_change(listener)
    task = asyncio.ensure_future(apply(service, ward))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert heard.is_set()
    assert (await service.offer_material("acme")).revision == 1


async def test_concurrent_applies_make_consecutive_revisions(service):
    """Two operators at once: both changes stand, one after the other."""
    applied = await asyncio.gather(*(apply(service, [knowledge(f"k{n}")]) for n in range(10)))

    assert sorted(it.revision for it in applied) == list(range(1, 11))
    assert len((await service.offer_material("acme")).blobs) == 10


async def test_resources_are_listed_in_pages(service, ward):
    """Lists of a fleet do not fit into one answer."""
    await apply(service, ward)

    first, token = await service.list_resources("acme", pb.KIND_UNSPECIFIED, page_size=3, page_token="")
    second, end = await service.list_resources("acme", pb.KIND_UNSPECIFIED, page_size=3, page_token=token)
    models, _ = await service.list_resources("acme", pb.KIND_MODEL, page_size=3, page_token="")

    assert [it.resource.metadata.name for it in first + second] == ["nurse", "small", "clock", "handbook", "read-only"]
    assert end == ""
    assert [it.resource.metadata.name for it in models] == ["small"]
    with pytest.raises(InvalidError):
        await service.list_resources("acme", pb.KIND_MODEL, page_size=3, page_token=token)


async def test_resource_says_in_which_revision_it_last_changed(service, ward):
    """`describe` tells what is new."""
    await apply(service, ward)
    await apply(service, [knowledge("handbook", top_k=9)])

    changed = await service.get_resource("acme", pb.KIND_KNOWLEDGE_BASE, "handbook")
    other = await service.get_resource("acme", pb.KIND_MODEL, "small")

    assert (changed.revision, other.revision) == (2, 1)
    assert other.resource == ward[0]
    with pytest.raises(NotFoundError):
        await service.get_resource("acme", pb.KIND_MODEL, "handbook")


async def test_revisions_are_listed_newest_first(service, ward):
    """Who changed what, and when, is what an operator looks for after an incident."""
    await apply(service, ward)
    await apply(service, [*ward, knowledge("more")])

    listed, _ = await service.list_revisions("acme", page_size=0, page_token="")

    assert [(it.number, it.author, len(it.changes)) for it in listed] == [(2, "ada", 1), (1, "ada", 5)]
    assert await service.get_revision("acme", 2) == listed[0]
    assert listed[0].changes[0].name == "more"
    for number in (0, 3, 2**64 - 1):
        with pytest.raises(NotFoundError):
            await service.get_revision("acme", number)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(1, 2), max_size=3), min_size=1, max_size=8))
def test_revisions_strictly_increase_and_unchanged_applies_make_none(applies):
    """Whatever the order of applies: a number stands for one content, and grows exactly when the content changes."""

    async def run(folder):
        async with configuration(folder) as service:
            content, number = {}, 0
            for wanted in applies:
                applied = await apply(service, [knowledge(name, top_k=top_k) for name, top_k in wanted.items()])
                number += bool(wanted.items() - content.items())
                content |= wanted
                assert applied.revision == number
            versions = [row.version for row in await rows(service, tuf_metadata) if row.role == "targets"]
            assert sorted(versions) == list(range(1, number + 1))
            standing, _ = await service.list_resources("acme", 0, page_size=0, page_token="")
            assert {it.resource.metadata.name: it.resource.knowledge_base.top_k for it in standing} == content

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder)))
