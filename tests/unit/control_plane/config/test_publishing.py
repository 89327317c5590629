"""Revisions that are signed elsewhere, roots that rotate, and changes that nobody overtook."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Root, Targets

from control_plane.audit.service import AuditService
from control_plane.config.models import Terms
from control_plane.config.service import ConfigService
from control_plane.config.trust_service import TrustService
from control_plane.db.models import revisions
from data_plane.link.trust import Trust
from faos.resource.v1 import resource_pb2 as pb
from faos_core import publisher
from faos_core.errors import ConflictError, FaosError, InvalidError, NotFoundError, SetupError, StaleError
from faos_core.manifests import body_of
from tests.unit.control_plane.config.test_service import configuration, knowledge, rows

KNOWLEDGE = int(pb.KIND_KNOWLEDGE_BASE)


@pytest.fixture
async def service(tmp_path):
    async with configuration(tmp_path) as made:
        yield made


@pytest.fixture
def trusts(service):
    return TrustService(service._store, service._publication.keys_dir, service._clock, service.tell)


@pytest.fixture
def key():
    return CryptoSigner.generate_ecdsa()


def change(service, *resources, terms=None, request_id=""):
    return service.apply(
        "acme", list(resources), author="ada", request_id=request_id, validate_only=False, terms=terms or Terms()
    )


async def prepare(service, *resources):
    return (await change(service, *resources, terms=Terms(prepare=True))).prepared


def sign(service, key, prepared, **other):
    what = {"manifest": prepared.manifest, "revision": prepared.revision, "now": service._clock.now()}
    return publisher.sign_targets(key, **what | other)


async def move(service, trusts, key, **changed):
    """The publisher's key leaves: what the command line hands in."""
    trust = await trusts.get("acme")
    root = publisher.next_root(trust.roots[-1], now=service._clock.now(), publisher=key.public_key)
    targets = sign(service, key, trust.renewal) if trust.renewal else b""
    arguments = {"root": root, "signed_targets": targets} | changed
    return await trusts.rotate("acme", arguments["root"], signed_targets=arguments["signed_targets"], actor="ada")


@pytest.fixture
async def moved(service, trusts, key):
    """The service of a tenant whose publisher holds `key`; revision 1 was the control plane's, 2 is the same."""
    await change(service, knowledge("a"))
    await move(service, trusts, key)
    return service


async def signed(service, key, *resources, request_id=""):
    prepared = await prepare(service, *resources)
    return await change(
        service, *resources, terms=Terms(signed_targets=sign(service, key, prepared)), request_id=request_id
    )


async def taken_by_a_node(service, folder):
    """What a node that joins now would make of the standing offer."""
    material = await service.offer_material("acme")
    first = (
        await TrustService(service._store, service._publication.keys_dir, service._clock, service.tell).get("acme")
    ).roots[0]
    Trust(first, clock=service._clock).check(material.metadata, material.manifest_bytes, trusted=None, work=folder)
    return material


async def test_preparing_stores_nothing_and_says_all(service):
    """Whoever signs must be able to check every byte, and a look must cost nothing."""
    await change(service, knowledge("a"))

    prepared = await prepare(service, knowledge("a", 2), knowledge("b"))

    assert (prepared.revision, len(prepared.roots), prepared.source) == (2, 1, None)
    names = [entry.name for entry in pb.Manifest.FromString(prepared.manifest).entries]
    assert names == ["a", "b"]
    bodies = {body_of(knowledge("a")), body_of(knowledge("a", 2)), body_of(knowledge("b"))}
    assert set(prepared.bodies) == bodies
    assert len(await rows(service, revisions)) == 1


async def test_preparing_nothing_new_prepares_nothing(service):
    """There is nothing to sign."""
    await change(service, knowledge("a"))

    assert await prepare(service, knowledge("a")) is None


async def test_signed_elsewhere_is_published(moved, key, tmp_path):
    """The whole point: the control plane never had the key, and nodes take it from the first root on."""
    applied = await signed(moved, key, knowledge("a", 2))
    material = await taken_by_a_node(moved, tmp_path / "node")

    assert applied.revision == material.revision == 3


async def test_moving_signs_what_stands_again(moved, tmp_path):
    """Between the new root and the next apply, nodes that join must not be left without configuration."""
    material = await taken_by_a_node(moved, tmp_path / "node")

    assert material.revision == 2
    assert [entry.name for entry in material.manifest.entries] == ["a"]


async def test_control_plane_publishes_no_more(moved):
    """Its key is gone, and it says who has it."""
    with pytest.raises(SetupError) as caught:
        await change(moved, knowledge("a", 2))

    assert caught.value.code.code == "config.publisher_elsewhere"
    assert not (moved._publication.keys_dir / "acme" / "targets.pem").exists()
    assert len(await rows(moved, revisions)) == 2


async def test_overtaken_signature_is_refused_and_says_by_whom(moved, key):
    """Two operators at once: the second must look at what the first did."""
    late = await prepare(moved, knowledge("a", 7))
    await signed(moved, key, knowledge("b"))

    with pytest.raises(StaleError) as caught:
        await change(moved, knowledge("a", 7), terms=Terms(signed_targets=sign(moved, key, late)))

    assert caught.value.code.code == "config.overtaken"
    assert "Revision 3, by ada" in caught.value.why
    assert "created KnowledgeBase b" in caught.value.why
    assert "then run the same command again" in caught.value.next_step


async def test_same_request_is_published_once_whatever_its_signature(moved, key):
    """ECDSA signs differently each time: who does not know whether they were heard signs again."""
    first = await signed(moved, key, knowledge("b"), request_id="r")
    again = await change(moved, knowledge("b"), request_id="r", terms=Terms(signed_targets=b"another"))

    assert (first.revision, again.revision) == (3, 3)


FORGERIES: dict[str, Callable] = {
    "another key's": lambda s, key, prepared: sign(s, CryptoSigner.generate_ed25519(), prepared),
    "another manifest's": lambda s, key, prepared: sign(s, key, prepared, manifest=b"other"),
    "a later revision's": lambda s, key, prepared: sign(s, key, prepared, revision=9),
    "expired": lambda s, key, prepared: sign(s, key, prepared, now=s._clock.now() - timedelta(days=366)),
    "for ten years": lambda s, key, prepared: sign(s, key, prepared, now=s._clock.now() + timedelta(days=3650)),
    "another role's": lambda s, key, prepared: publisher.signed(
        Root(version=prepared.revision, expires=s._clock.now() + timedelta(days=9)), key
    ),
    "with more targets": lambda s, key, prepared: with_more(s, key, prepared),
    "garbage": lambda s, key, prepared: b"{}",
    "too large": lambda s, key, prepared: sign(s, key, prepared) + b" " * publisher.MAX_TARGETS_BYTES,
}


def with_more(service, key, prepared):
    said = Targets(version=prepared.revision, expires=service._clock.now() + timedelta(days=9))
    for name in ("manifest", "more"):
        said.targets[name] = publisher.TargetFile.from_data(name, prepared.manifest, ["sha256"])
    return publisher.signed(said, key)


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_what_nodes_would_refuse_is_not_published(moved, key, forgery):
    """A revision that no node takes would stand between the operator and the next one."""
    prepared = await prepare(moved, knowledge("b"))

    with pytest.raises(InvalidError) as caught:
        await change(moved, knowledge("b"), terms=Terms(signed_targets=FORGERIES[forgery](moved, key, prepared)))

    assert caught.value.code.code == "publisher.targets_refused"
    assert len(await rows(moved, revisions)) == 2


async def test_another_change_than_the_signed_one_is_refused(moved, key):
    """The signature is over content, not over a number."""
    prepared = await prepare(moved, knowledge("b"))

    with pytest.raises(InvalidError):
        await change(moved, knowledge("c"), terms=Terms(signed_targets=sign(moved, key, prepared)))


async def test_content_near_its_signatures_end_is_signed_again_by_an_apply(moved, key, tmp_path):
    """The control plane cannot renew it; an apply of the same files does, from two months before."""
    assert await prepare(moved, knowledge("a")) is None
    moved._clock.at += timedelta(days=320)

    applied = await signed(moved, key, knowledge("a"))
    material = await taken_by_a_node(moved, tmp_path / "node")

    assert applied.revision == material.revision == 3


async def test_all_of_it_over_both_databases(tmp_path, database_url, key):
    """Signatures and roots are bytes in columns: engines differ there."""
    async with configuration(tmp_path, url=database_url) as service:
        trusts = TrustService(service._store, service._publication.keys_dir, service._clock, service.tell)
        await change(service, knowledge("a"))
        await move(service, trusts, key)
        await signed(service, key, knowledge("b"))

        assert (await taken_by_a_node(service, tmp_path / "node")).revision == 3
        assert (
            await refused(change(service, knowledge("c"), terms=Terms(expected_revision=2))) == "config.revision_stale"
        )


async def test_rollback_and_delete_are_signed_too(moved, key):
    """Every way to a revision goes through the publisher."""
    await signed(moved, key, knowledge("b"))
    deletion = (await moved.delete("acme", [(KNOWLEDGE, "b")], author="ada", terms=Terms(prepare=True))).prepared
    terms = Terms(signed_targets=sign(moved, key, deletion))
    deleted = await moved.delete("acme", [(KNOWLEDGE, "b")], author="ada", terms=terms)
    back = (await moved.rollback("acme", 3, author="ada", terms=Terms(prepare=True))).prepared
    restored = await moved.rollback("acme", 3, author="ada", terms=Terms(signed_targets=sign(moved, key, back)))

    assert (deleted.revision, restored.revision) == (4, 5)
    assert pb.Manifest.FromString(back.source.manifest).revision == 3
    for attempt in (moved.delete("acme", [(KNOWLEDGE, "b")], author="ada"), moved.rollback("acme", 1, author="ada")):
        with pytest.raises(SetupError):
            await attempt


# ---- roots


async def test_same_root_again_changes_nothing(moved, trusts):
    """An operator whose connection broke hands it in again."""
    root = (await trusts.get("acme")).roots[-1]

    again = await trusts.rotate("acme", root, actor="ada")

    assert (again.root_version, again.revision, again.moved) == (2, 2, ())


async def test_rotation_is_recorded_and_roots_follow_from_each_other(moved, trusts):
    """The customer's auditor reads who moved which key."""
    records, _ = await AuditService(moved._store).list("acme", page_size=1, page_token="")
    trust = await trusts.get("acme")

    publisher.check_chain(trust.roots)
    assert (trust.has_root_key, trust.has_publisher_key) == (True, False)
    assert (records[0].actor, records[0].target) == ("ada", "TUF root 2, another targets key")


async def test_root_key_leaves_and_only_it_rotates(moved, trusts):
    """Whoever holds the control plane's disk from now on names no publisher."""
    mine, now = CryptoSigner.generate_ed25519(), moved._clock.now()
    root = publisher.next_root((await trusts.get("acme")).roots[-1], now=now, root_key=mine.public_key)
    await trusts.rotate("acme", publisher.with_signature(root, mine), actor="ada")
    following = publisher.next_root((await trusts.get("acme")).roots[-1], now=now)

    with pytest.raises(SetupError) as caught:
        await trusts.rotate("acme", following, actor="eve")
    renewed = await trusts.rotate("acme", publisher.with_signature(following, mine), actor="ada")

    assert caught.value.code.code == "config.root_elsewhere"
    assert renewed.root_version == 4
    assert not (moved._publication.keys_dir / "acme" / "root.pem").exists()


async def test_other_replicas_offer_a_root_that_came_without_a_revision(service, trusts):
    """Whoever rotates because a key was stolen must not wait a day until nodes hear of it from the other replica."""
    await change(service, knowledge("a"))
    replica, heard = ConfigService(service._store, service._publication.keys_dir, service._clock), []

    async def listener(tenant):
        heard.append(len((await replica.offer_material(tenant)).metadata.roots))

    replica.on_change(listener)
    await replica.changed("acme")
    mine = CryptoSigner.generate_ed25519()
    last = (await trusts.get("acme")).roots[-1]
    root = publisher.next_root(last, now=service._clock.now(), root_key=mine.public_key)
    await trusts.rotate("acme", publisher.with_signature(root, mine), actor="ada")
    for _ in range(2):  # there are other records, too, about which nobody need be told
        await replica.changed("acme")

    before, after = heard
    assert after == before + 1


async def test_keys_that_a_crash_left_behind_sign_nothing(service, trusts, key, tmp_path):
    """The root is durable before the old keys are destroyed. One that survived must not sign under the new one's name:
    every node would refuse it, and so would the root's next version, for ever."""
    await change(service, knowledge("a"))
    mine, folder = CryptoSigner.generate_ed25519(), service._publication.keys_dir / "acme"
    before = {file: file.read_bytes() for file in folder.iterdir()}
    await move(service, trusts, key)
    root = publisher.next_root((await trusts.get("acme")).roots[-1], now=service._clock.now(), root_key=mine.public_key)
    root = publisher.with_signature(root, mine)
    await trusts.rotate("acme", root, actor="ada")
    for file, content in before.items():
        file.write_bytes(content)  # as it was: nothing of this was destroyed

    trust = await trusts.get("acme")
    with pytest.raises(SetupError) as refused_apply:
        await change(service, knowledge("b"))
    following = publisher.next_root(trust.roots[-1], now=service._clock.now())
    renewed = await trusts.rotate("acme", publisher.with_signature(following, mine), actor="ada")

    assert (trust.has_root_key, trust.has_publisher_key) == (False, False)
    assert refused_apply.value.code.code == "config.publisher_elsewhere"
    assert renewed.root_version == 4
    assert not {"root.pem", "targets.pem"} & {file.name for file in folder.iterdir()}


async def test_handing_in_the_same_root_destroys_what_was_left(moved, trusts):
    """What an operator does whose connection broke while the control plane was killed."""
    folder = moved._publication.keys_dir / "acme"
    references = (folder / "keys.json").read_text()
    (folder / "targets.pem").write_bytes(CryptoSigner.generate_ed25519().private_bytes)
    (folder / "keys.json").write_text(references.replace("{", '{"targets": "file:targets.pem",', 1))

    await trusts.rotate("acme", (await trusts.get("acme")).roots[-1], actor="ada")

    assert not (folder / "targets.pem").exists()
    assert (folder / "keys.json").read_text() == references


async def test_second_publisher_leaves_the_first_its_key(service, trusts, key):
    """A root may name two; the one here is still named, so it is still good, and signs as itself."""
    await change(service, knowledge("a"))
    trust = await trusts.get("acme")
    said = publisher.root_of(publisher.next_root(trust.roots[-1], now=service._clock.now()))
    own = said.roles["targets"].keyids[0]
    said.add_key(key.public_key, "targets")
    said.roles["targets"].keyids.remove(own)
    said.roles["targets"].keyids.append(own)
    await trusts.rotate(
        "acme", publisher.Metadata(said).to_bytes(), signed_targets=sign(service, key, trust.renewal), actor="ada"
    )

    applied = await change(service, knowledge("b"))
    material = await service.offer_material("acme")
    root = (await trusts.get("acme")).roots[-1]

    assert applied.revision == 3
    what = {"manifest": material.manifest_bytes, "revision": 3, "now": service._clock.now()}
    publisher.check_targets(root, material.metadata.targets, **what)


def other_snapshot(root):
    said = publisher.root_of(root)
    publisher._give(said, "snapshot", CryptoSigner.generate_ed25519().public_key)
    return publisher.Metadata(said).to_bytes()


def of_version(root, version):
    said = publisher.root_of(root)
    said.version = version
    return publisher.Metadata(said).to_bytes()


async def test_root_that_would_lock_out_is_refused(service, trusts):
    """Nodes would refuse it, or the control plane could not go on: nothing can take a root back."""
    await change(service, knowledge("a"))
    now = service._clock.now()
    first = (await trusts.get("acme")).roots[-1]
    good = publisher.next_root(first, now=now)
    unsigned_new_key = publisher.next_root(first, now=now, root_key=CryptoSigner.generate_ed25519().public_key)
    wrong = {
        "another snapshot key": other_snapshot(good),
        "a version left out": of_version(good, 3),
        "its new key did not sign": unsigned_new_key,
        "expired": publisher.next_root(first, now=now - timedelta(days=400)),
        "no root": b"{}",
        "too large": padded(good),
    }
    refusals = {name: await refused(trusts.rotate("acme", root, actor="ada")) for name, root in wrong.items()}

    assert refusals == dict.fromkeys(wrong, "publisher.root_refused")
    assert (await trusts.get("acme")).roots == (first,)


def padded(root):
    said = publisher.root_of(root)
    said.unrecognized_fields["padding"] = "x" * publisher.MAX_ROOT_BYTES
    return publisher.Metadata(said).to_bytes()


async def refused(attempt):
    try:
        await attempt
    except FaosError as error:
        return error.code.code
    return ""


async def test_new_publisher_must_sign_what_stands(service, trusts, key):
    """All or nothing: a root without the content that follows from it is not stored."""
    await change(service, knowledge("a"))
    forged = sign(service, CryptoSigner.generate_ed25519(), (await trusts.get("acme")).renewal)

    assert await refused(move(service, trusts, key, signed_targets=b"")) == "config.renewal_missing"
    assert await refused(move(service, trusts, key, signed_targets=forged)) == "publisher.targets_refused"
    assert len((await trusts.get("acme")).roots) == 1
    assert (service._publication.keys_dir / "acme" / "targets.pem").exists()


async def test_move_that_was_overtaken_is_refused(service, trusts, key):
    """Content that came in between would be lost."""
    await change(service, knowledge("a"))
    early = sign(service, key, (await trusts.get("acme")).renewal)
    await change(service, knowledge("b"))

    assert await refused(move(service, trusts, key, signed_targets=early)) == "config.overtaken"
    assert len((await trusts.get("acme")).roots) == 1


async def test_tenant_may_begin_with_a_publisher_elsewhere(service, trusts, key, tmp_path):
    """The control plane never makes that key; a retry with another one is no success."""
    pem = key.public_key.keyval["public"]
    root = trusts.create_tenant_keys("beta", pem)

    assert trusts.create_tenant_keys("beta", pem) == root
    assert publisher.keys_of(root, "targets") == [key.public_key]
    assert not (service._publication.keys_dir / "beta" / "targets.pem").exists()
    for another in ("", CryptoSigner.generate_ecdsa().public_key.keyval["public"]):
        with pytest.raises(ConflictError):
            trusts.create_tenant_keys("beta", another)
    with pytest.raises(InvalidError):
        trusts.create_tenant_keys("gamma", "no key")


async def test_unknown_tenant_has_no_trust(trusts):
    """Not an internal error."""
    with pytest.raises(NotFoundError):
        await trusts.get("nobody")
    with pytest.raises(NotFoundError):
        await trusts.rotate("nobody", b"{}", actor="ada")


# ---- nobody was faster


async def test_expected_revision_must_stand(service):
    """Who decided by what they saw must not undo what they did not see."""
    await change(service, knowledge("a"), terms=Terms())
    await change(service, knowledge("b"))

    with pytest.raises(StaleError) as caught:
        await change(service, knowledge("a", 2), terms=Terms(expected_revision=1))
    applied = await change(service, knowledge("a", 2), terms=Terms(expected_revision=2))

    assert "Revision 2, by ada" in caught.value.why
    assert applied.revision == 3


async def test_etag_is_of_the_content(service):
    """Another's change to the same resource is noticed, one to others is not."""
    await change(service, knowledge("a"))
    seen = await service.get_resource("acme", KNOWLEDGE, "a")
    await change(service, knowledge("b"))
    terms = Terms(etags=[((KNOWLEDGE, "a"), seen.etag)])

    await change(service, knowledge("a", 2), terms=terms)
    with pytest.raises(StaleError) as caught:
        await change(service, knowledge("a", 3), terms=terms)

    assert "updated KnowledgeBase a" in caught.value.why
    assert (await service.get_resource("acme", KNOWLEDGE, "a")).etag != seen.etag


async def test_empty_etag_is_of_what_must_not_stand(service):
    """Two people create one name at once."""
    terms = Terms(etags=[((KNOWLEDGE, "a"), "")])

    await change(service, knowledge("a"), terms=terms)
    with pytest.raises(StaleError):
        await change(service, knowledge("a", 2), terms=terms)


async def test_deletion_by_etag_and_in_a_dry_run(service):
    """The dry run says the same as the real one."""
    await change(service, knowledge("a"))
    seen = await service.get_resource("acme", KNOWLEDGE, "a")
    await change(service, knowledge("a", 2))
    terms = Terms(etags=[((KNOWLEDGE, "a"), seen.etag)])

    for validate_only in (True, False):
        with pytest.raises(StaleError):
            await service.delete("acme", [(KNOWLEDGE, "a")], author="ada", validate_only=validate_only, terms=terms)


async def test_same_id_with_other_terms_is_another_request(service):
    """One id, one meaning."""
    await change(service, knowledge("a"), request_id="r")

    with pytest.raises(ConflictError):
        await change(service, knowledge("a"), request_id="r", terms=Terms(expected_revision=1))
