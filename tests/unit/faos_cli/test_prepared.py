"""A control plane that lies about what it prepared: a publisher's key signs nothing but what its operator asked for."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.signer import CryptoSigner

from faos.admin.v1 import admin_pb2 as admin
from faos.resource.v1 import resource_pb2 as pb
from faos_cli.prepared import Known, check, check_renewal
from faos_cli.publisher_memory import PublisherMemory
from faos_core import publisher
from faos_core.errors import DeniedError, FaosError, IntegrityError, SetupError
from faos_core.manifests import body_of, entry_of, manifest_bytes

NOW = datetime.now(UTC)
OURS, THEIRS = CryptoSigner.generate_ed25519(), CryptoSigner.generate_ed25519()
KNOWLEDGE = pb.KIND_KNOWLEDGE_BASE


def knowledge(name: str, top_k: int = 1, **sites: str) -> pb.Resource:
    metadata = pb.Metadata(name=name, sites=pb.Selector(match_labels=sites) if sites else None)
    return pb.Resource(metadata=metadata, knowledge_base=pb.KnowledgeBase(folder="docs", top_k=top_k))


def manifest(revision: int, resources: Sequence[pb.Resource], tenant: str = "acme") -> bytes:
    return manifest_bytes(tenant, revision, [entry_of(each, body_of(each)) for each in resources])


def signed(revision: int, resources: Sequence[pb.Resource], by: CryptoSigner = OURS) -> admin.SignedManifest:
    data = manifest(revision, resources)
    targets = publisher.sign_targets(by, manifest=data, revision=revision, now=NOW)
    return admin.SignedManifest(manifest=data, targets=targets)


def prepared(
    before: Sequence[pb.Resource], after: Sequence[pb.Resource], *, by: CryptoSigner = OURS, **fields: Any
) -> admin.PreparedRevision:
    """What an honest control plane prepares as revision 8 over 7."""
    chosen = {
        "revision": 8,
        "manifest": manifest(8, after),
        "base": signed(7, before, by),
        "bodies": [body_of(each) for each in (*before, *after)],
    }
    return admin.PreparedRevision(**chosen | fields)


A, B, C = knowledge("a"), knowledge("b"), knowledge("c")
APPLY_B2 = admin.ApplyResourcesRequest(tenant="acme", resources=[knowledge("b", 2)])
HONEST = prepared([A, B], [A, knowledge("b", 2)])


def verdict(request: Any, of: admin.PreparedRevision, *, adopt: bool = False) -> str:
    """The code of the refusal; "" when it would be signed."""
    try:
        check(request, of, OURS.public_key, adopt=adopt)
    except FaosError as error:
        return error.code.code
    return ""


def test_what_was_asked_for_is_shown_and_may_be_signed() -> None:
    """The difference is worked out here, not taken from whoever asks for the signature."""
    checked = check(APPLY_B2, HONEST, OURS.public_key, adopt=False)

    assert (checked.revision, checked.manifest, checked.adopted) == (8, HONEST.manifest, ())
    assert [(it.name, it.change) for it in checked.changes] == [("b", admin.CHANGE_TYPE_UPDATED)]
    assert [(it.field_path, it.before, it.after) for it in checked.changes[0].fields] == [("spec.topK", "1", "2")]


def test_first_revision_needs_no_base() -> None:
    """A new tenant's first apply."""
    request = admin.ApplyResourcesRequest(tenant="acme", resources=[A])
    first = admin.PreparedRevision(revision=1, manifest=manifest(1, [A]))

    assert verdict(request, first) == ""
    assert verdict(request, admin.PreparedRevision(revision=5, manifest=manifest(5, [A]))) == "sign.prepared_wrong"


SMUGGLED = pb.Manifest.FromString(HONEST.manifest)
SMUGGLED.entries.append(entry_of(C, body_of(C)))
SWAPPED = [A, knowledge("b", 3)]
LIES: dict[str, Callable[[], admin.PreparedRevision]] = {
    "more than was asked for": lambda: prepared([A, B], [A, knowledge("b", 2), C]),
    "another body under the name": lambda: prepared([A, B], SWAPPED),
    "another site": lambda: prepared([A, B], [A, knowledge("b", 2, site="n")]),
    "what stood is gone": lambda: prepared([A, B], [knowledge("b", 2)]),
    "what stood is another": lambda: prepared([A, B], [knowledge("a", 9), knowledge("b", 2)]),
    "not what was asked for at all": lambda: prepared([A, B], [A, B]),
    "another tenant's": lambda: prepared([A, B], [], manifest=manifest(8, [A, knowledge("b", 2)], "evil")),
    "another number inside": lambda: prepared([A, B], [], manifest=manifest(9, [A, knowledge("b", 2)])),
    "a number that does not follow": lambda: prepared(
        [A, B], [], revision=900, manifest=manifest(900, [A, knowledge("b", 2)])
    ),
    "unknown fields": lambda: prepared([A, B], [], manifest=HONEST.manifest + b"\xa2\x06\x07/bin/sh"),
    "a name twice": lambda: prepared([A, B], [], manifest=manifest(8, [A, knowledge("b", 2), knowledge("b", 2)])),
    "out of order": lambda: prepared(
        [A, B],
        [],
        manifest=pb.Manifest(
            tenant="acme",
            revision=8,
            entries=[entry_of(each, body_of(each)) for each in (knowledge("b", 2), A)],
        ).SerializeToString(),
    ),
    "no manifest": lambda: prepared([A, B], [], manifest=b"\xff\xff"),
    "a base of another tenant": lambda: prepared(
        [A, B], [A, knowledge("b", 2)], base=admin.SignedManifest(manifest=manifest(7, [A, B], "evil"))
    ),
    "smuggled beside": lambda: prepared([A, B], [], manifest=SMUGGLED.SerializeToString(deterministic=True)),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("adopt", [False, True])
def test_lie_is_not_signed(lie: str, adopt: bool) -> None:
    """Promise 3: a compromised cloud gets no signature on anything else. Vouching for what stands changes nothing."""
    assert verdict(APPLY_B2, HONEST) == ""
    assert verdict(APPLY_B2, LIES[lie](), adopt=adopt) == "sign.prepared_wrong"


@pytest.mark.parametrize("forged", ["another's signature", "none", "of another manifest"])
def test_what_this_key_never_signed_must_be_vouched_for(forged: str) -> None:
    """Otherwise a forged base would carry anything under the publisher's signature."""
    evil = knowledge("backdoor")
    made = prepared([evil, B], [evil, knowledge("b", 2)], by=THEIRS)
    if forged == "none":
        made.base.targets = b""
    elif forged == "of another manifest":
        made.base.targets = signed(7, [A, B]).targets

    with pytest.raises(DeniedError) as caught:
        check(APPLY_B2, made, OURS.public_key, adopt=False)

    assert "knowledgebase/backdoor" in caught.value.what
    assert "knowledgebase/b," not in caught.value.what
    assert check(APPLY_B2, made, OURS.public_key, adopt=True).adopted == ((KNOWLEDGE, "backdoor"),)


def test_deletion_is_of_what_was_named_and_nothing_else() -> None:
    """A policy that goes along unseen opens what it forbade."""
    request = admin.DeleteResourcesRequest(tenant="acme", names=[admin.ResourceName(kind=KNOWLEDGE, name="a")])

    assert verdict(request, prepared([A, B, C], [B, C])) == ""
    assert verdict(request, prepared([A, B, C], [C])) == "sign.prepared_wrong"
    assert verdict(request, prepared([A, B, C], [A, B, C])) == "sign.prepared_wrong"


def test_prune_may_delete_and_change_nothing_else() -> None:
    """What a set no longer declares goes, and is shown; the rest is as it was signed."""
    request = admin.ApplyResourcesRequest(tenant="acme", resources=[B], apply_set="s", prune=True)

    checked = check(request, prepared([A, B, C], [B, C]), OURS.public_key, adopt=False)

    assert [(it.name, it.change) for it in checked.changes] == [("a", admin.CHANGE_TYPE_DELETED)]
    assert verdict(request, prepared([A, B], [B, C])) == "sign.prepared_wrong"
    assert verdict(request, prepared([A, B, C], [C])) == "sign.prepared_wrong"


def test_rollback_is_to_what_this_key_signed_as_that_revision() -> None:
    """The content that comes back is the publisher's of then, not the control plane's word for it."""
    request = admin.RollbackRevisionRequest(tenant="acme", number=3)

    assert verdict(request, prepared([A, B], [A, C], source=signed(3, [A, C]))) == ""
    assert verdict(request, prepared([A, B], [A, C], source=signed(4, [A, C]))) == "sign.prepared_wrong"
    assert verdict(request, prepared([A, B], [A, C], source=signed(3, [A]))) == "sign.prepared_wrong"
    assert verdict(request, prepared([A, B], [A, C], source=signed(3, [A, C], THEIRS))) == "sign.never_signed"


def test_content_that_did_not_come_is_said_not_to_be_shown() -> None:
    """A person must see that there is something that they do not see."""
    checked = check(APPLY_B2, prepared([A, B], [A, knowledge("b", 2)], bodies=[]), OURS.public_key, adopt=False)

    assert checked.changes[0].fields_truncated
    assert list(checked.changes[0].fields) == []


def test_renewal_is_the_same_content() -> None:
    """A new publisher signs what stands, and sees each name of it."""
    checked = check_renewal("acme", prepared([A, B], [A, B], by=THEIRS), OURS.public_key)

    assert checked.adopted == ((KNOWLEDGE, "a"), (KNOWLEDGE, "b"))
    with pytest.raises(IntegrityError):
        check_renewal("acme", prepared([A, B], [A, B, C], by=THEIRS), OURS.public_key)


@given(st.binary(max_size=200))
def test_bytes_of_anybody_are_refused_as_ours(data: bytes) -> None:
    """Whatever comes from the network ends in a refusal that a person can read, never in a crash."""
    assert verdict(APPLY_B2, prepared([A, B], [], manifest=data)) == "sign.prepared_wrong"
    base = admin.SignedManifest(manifest=HONEST.base.manifest, targets=data)
    assert verdict(APPLY_B2, prepared([A, B], [A, knowledge("b", 2)], base=base)) == "sign.never_signed"


# ---- what this machine has seen


def known(revision: int, content: bytes = b"m") -> Known:
    return Known(revision, {}, sha256(content).digest(), is_signed=True)


@pytest.fixture
def memory(tmp_path: Path) -> PublisherMemory:
    made = PublisherMemory.of_user({"XDG_STATE_HOME": str(tmp_path)})
    made.remember("key", "acme", first_root=b"r", revision=7, manifest_sha256=sha256(b"m").digest())
    return made


def test_newer_and_the_same_is_what_may_stand(memory: PublisherMemory) -> None:
    """Others publish too; and another key, or tenant, has a count of its own."""
    memory.check("key", "acme", first_root=b"r", base=known(7))
    memory.check("key", "acme", first_root=b"r", base=known(9))
    memory.check("other", "acme", first_root=b"r", base=known(1))
    memory.check("key", "beta", first_root=b"r", base=known(1))


@pytest.mark.parametrize(
    ("first_root", "base", "code"),
    [
        (b"r", known(6), "sign.seen_newer"),
        (b"r", known(0), "sign.seen_newer"),
        (b"r", known(7, b"another"), "sign.seen_newer"),
        (b"another", known(9), "sign.other_root"),
    ],
)
def test_older_or_another_history_is_refused(
    memory: PublisherMemory, first_root: bytes, base: Known, code: str
) -> None:
    """A control plane that was rolled back, or is not the one that it was, must be looked at by a person first."""
    with pytest.raises(IntegrityError) as caught:
        memory.check("key", "acme", first_root=first_root, base=base)

    assert caught.value.code.code == code
    assert str(memory.file) in caught.value.why


def test_memory_is_the_users_own_and_damage_is_said(memory: PublisherMemory) -> None:
    """Forgetting in silence is what an attacker would want."""
    assert memory.file.stat().st_mode & 0o077 == 0

    memory.file.write_text("{")
    with pytest.raises(SetupError):
        memory.check("key", "acme", first_root=b"r", base=known(9))


def test_commands_at_once_forget_nothing_of_one_another(tmp_path: Path) -> None:
    """Two tenants' pipelines on one machine: the memory of neither may be lost to the other's."""
    memories = [PublisherMemory.of_user({"XDG_STATE_HOME": str(tmp_path)}) for _ in range(8)]
    digest = sha256(b"m").digest()

    def publish(number: int) -> None:
        for revision in range(1, 6):
            memories[number].remember("key", f"t{number}", first_root=b"r", revision=revision, manifest_sha256=digest)

    with ThreadPoolExecutor(len(memories)) as threads:
        list(threads.map(publish, range(len(memories))))

    for number in range(len(memories)):
        with pytest.raises(IntegrityError):
            memories[0].check("key", f"t{number}", first_root=b"r", base=known(4))


def test_command_that_ends_later_does_not_bring_back_what_was_older(memory: PublisherMemory) -> None:
    """Of two that publish one after the other, the first may be the last to write it down."""
    memory.remember("key", "acme", first_root=b"r", revision=6, manifest_sha256=sha256(b"old").digest())

    memory.check("key", "acme", first_root=b"r", base=known(7))
    with pytest.raises(IntegrityError):
        memory.check("key", "acme", first_root=b"r", base=known(6))


def test_what_stands_and_was_not_remembered_is_said_and_is_no_failure(
    memory: PublisherMemory, capsys: pytest.CaptureFixture[str]
) -> None:
    """A script that takes it for a failure would publish, or roll back, what stands already."""
    memory.file.with_name("published.json.lock").unlink()
    memory.file.with_name("published.json.lock").mkdir()
    seen = {"first_root": b"r", "revision": 8, "manifest_sha256": b"m" * 32}

    memory.keep("key", "acme", "Revision 8", **seen)
    memory.file.write_text("{")
    memory.file.with_name("published.json.lock").rmdir()
    memory.keep("key", "acme", "Revision 8", **seen)

    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("warning: Revision 8 stands at the control plane") == 2
    assert f"{memory.file}: Is a directory" in said.err
    assert "Traceback" not in said.err
