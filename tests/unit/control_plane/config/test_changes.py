"""Deleting, pruning, rolling back, and what differs: one transaction each, nothing left dangling."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from control_plane.audit.service import AuditService
from control_plane.config.errors import (
    LEFT_DANGLING,
    PRUNE_OF_ALL,
    PRUNE_UNNAMED,
    REASON_TOO_LONG,
    LeftDanglingError,
    ResourcesInvalidError,
)
from faos.admin.v1.admin_pb2 import ChangeType
from faos.resource.v1 import resource_pb2 as pb
from faos_core.errors import ConflictError, InvalidError, NotFoundError
from tests.unit.control_plane.config.test_service import apply, configuration, knowledge, ward  # noqa: F401

KNOWLEDGE, AGENT, MODEL = pb.KIND_KNOWLEDGE_BASE, pb.KIND_AGENT, pb.KIND_MODEL
DELETED = ChangeType.CHANGE_TYPE_DELETED


@pytest.fixture
async def service(tmp_path):
    async with configuration(tmp_path) as made:
        yield made


async def standing(service):
    """Name → body of what stands."""
    listed, _ = await service.list_resources("acme", pb.KIND_UNSPECIFIED, page_size=1000, page_token="")
    return {each.resource.metadata.name: each.resource.SerializeToString(deterministic=True) for each in listed}


def apply_set(service, resources, name, **more):
    return service.apply(
        "acme", resources, author="ada", request_id="", apply_set=name, **{"validate_only": False, **more}
    )


async def test_delete_makes_a_revision_without_it(service):
    """What is gone must be gone from what nodes are offered, and the history says who, what and why."""
    await apply(service, [knowledge("a"), knowledge("b")])

    deleted = await service.delete("acme", [(KNOWLEDGE, "a")], author="bob", reason="  closed\nward ")
    material = await service.offer_material("acme")
    revision = await service.get_revision("acme", 2)

    assert (deleted.revision, list(deleted.affected_sites)) == (2, ["north", "south"])
    assert [(it.name, it.change) for it in deleted.changes] == [("a", DELETED)]
    assert [entry.name for entry in material.manifest.entries] == ["b"]
    assert (revision.author, revision.reason, revision.changes[0].change) == ("bob", "closed ward", DELETED)
    assert set(await standing(service)) == {"b"}


async def test_delete_of_what_others_need_names_them(service, ward):  # noqa: F811
    """An agent without its model would fail at every site at once."""
    await apply(service, ward)

    with pytest.raises(LeftDanglingError) as refused:
        await service.delete("acme", [(MODEL, "small")], author="ada")

    assert [(it.kind, it.name, it.field_path) for it in refused.value.violations] == [(AGENT, "nurse", "spec.model")]
    assert "nurse" in refused.value.why
    assert "small" in await standing(service)


async def test_delete_of_both_ends_of_a_reference(service, ward):  # noqa: F811
    """Who refers and what is referred to may go together."""
    await apply(service, ward)

    deleted = await service.delete("acme", [(MODEL, "small"), (AGENT, "nurse")], author="ada")

    assert {it.name for it in deleted.changes} == {"small", "nurse"}


@pytest.mark.parametrize("names", [[], [(KNOWLEDGE, "absent")], [(KNOWLEDGE, "a"), (KNOWLEDGE, "absent")]])
async def test_delete_is_whole_or_not_at_all(service, names):
    """A typing error must not delete the half that was spelt right."""
    await apply(service, [knowledge("a")])

    with pytest.raises((NotFoundError, InvalidError)):
        await service.delete("acme", names, author="ada")

    assert set(await standing(service)) == {"a"}


async def test_deleting_everything_leaves_a_revision_of_nothing(service):
    """The last resource goes as the first does."""
    await apply(service, [knowledge("a")])

    await service.delete("acme", [(KNOWLEDGE, "a")], author="ada")

    assert list((await service.offer_material("acme")).manifest.entries) == []


async def test_delete_only_asked_about_changes_nothing(service):
    """And shows each field that would go."""
    await apply(service, [knowledge("a", top_k=7)])

    asked = await service.delete("acme", [(KNOWLEDGE, "a")], author="ada", validate_only=True)

    assert ("spec.topK", "7", None) in [(it.field_path, it.before, it.after) for it in asked.changes[0].fields]
    assert (asked.revision, set(await standing(service))) == (1, {"a"})


async def test_same_request_id_same_answer_for_each_kind_of_change(service):
    """A retry after a lost answer must neither fail with 'not found' nor do something else."""
    await apply(service, [knowledge("a"), knowledge("b")])
    first = await service.delete("acme", [(KNOWLEDGE, "a")], author="ada", request_id="r")
    again = await service.delete("acme", [(KNOWLEDGE, "a")], author="ada", request_id="r")

    assert (first.revision, again.revision) == (2, 2)
    with pytest.raises(ConflictError):
        await service.delete("acme", [(KNOWLEDGE, "b")], author="ada", request_id="r")
    with pytest.raises(ConflictError):
        await service.rollback("acme", 1, author="ada", request_id="r")


async def test_prune_deletes_what_its_set_no_longer_declares(service):
    """The files are what stands: whoever removes one has removed the resource."""
    await apply_set(service, [knowledge("a"), knowledge("b")], "ward")
    await apply(service, [knowledge("loose")])

    pruned = await apply_set(service, [knowledge("a", top_k=9)], "ward", prune=True)

    assert [(it.name, it.change) for it in pruned.changes] == [("a", ChangeType.CHANGE_TYPE_UPDATED), ("b", DELETED)]
    assert set(await standing(service)) == {"a", "loose"}


async def test_prune_of_what_others_need_names_them(service, ward):  # noqa: F811
    """As a delete: the refusal says who still refers."""
    model, agent = (next(each for each in ward if each.WhichOneof("spec") == kind) for kind in ("model", "agent"))
    await apply_set(service, [model, knowledge("x")], "models")
    await apply(service, [each for each in ward if each is not model])

    with pytest.raises(LeftDanglingError) as refused:
        await apply_set(service, [knowledge("x")], "models", prune=True)

    assert refused.value.code is LEFT_DANGLING
    assert [it.name for it in refused.value.violations] == [agent.metadata.name]


async def test_prune_must_say_of_what_and_not_of_all(service):
    """A prune of everything that the request does not name would delete other people's work."""
    with pytest.raises(InvalidError) as unnamed:
        await apply_set(service, [knowledge("a")], "", prune=True)
    with pytest.raises(InvalidError) as empty:
        await apply_set(service, [], "ward", prune=True)

    assert (unnamed.value.code, empty.value.code) == (PRUNE_UNNAMED, PRUNE_OF_ALL)


async def test_resource_of_another_set_is_refused(service):
    """Two folders that declare one resource would undo each other at every apply."""
    await apply_set(service, [knowledge("a")], "ward")

    with pytest.raises(ResourcesInvalidError) as refused:
        await apply_set(service, [knowledge("a"), knowledge("b")], "lab")

    assert "'ward'" in refused.value.violations[0].message
    assert set(await standing(service)) == {"a"}


async def test_set_is_kept_taken_and_forgotten(service):
    """Applied without a set, a resource stays in its own; what is deleted and made anew is nobody's."""
    await apply_set(service, [knowledge("a")], "ward")
    await apply(service, [knowledge("a", top_k=3)])
    kept = await service.get_resource("acme", KNOWLEDGE, "a")
    await service.delete("acme", [(KNOWLEDGE, "a")], author="ada")
    await apply(service, [knowledge("a")])
    anew = await service.get_resource("acme", KNOWLEDGE, "a")
    taken = await apply_set(service, [knowledge("a")], "lab")

    assert (kept.apply_set, anew.apply_set, taken.revision) == ("ward", "", 4)
    assert (await service.get_resource("acme", KNOWLEDGE, "a")).apply_set == "lab"


async def test_rollback_is_a_new_revision_with_old_content(service):
    """Numbers only rise: a node must not be told to go back to a number that it left."""
    await apply_set(service, [knowledge("a")], "ward")
    content = await standing(service)
    await apply(service, [knowledge("a", top_k=9), knowledge("b")])

    back = await service.rollback("acme", 1, author="ada", reason="b was wrong")
    revision = await service.get_revision("acme", 3)

    assert (back.revision, await standing(service)) == (3, content)
    assert [(it.name, it.change) for it in back.changes] == [("a", ChangeType.CHANGE_TYPE_UPDATED), ("b", DELETED)]
    assert (revision.rollback_of, revision.reason) == (1, "b was wrong")
    assert (await service.offer_material("acme")).manifest.revision == 3


async def test_rollback_brings_a_resource_back_into_its_set(service):
    """Otherwise the next prune of its files would leave it behind."""
    await apply_set(service, [knowledge("a"), knowledge("b")], "ward")
    await service.delete("acme", [(KNOWLEDGE, "b")], author="ada")
    await service.rollback("acme", 1, author="ada")

    await apply_set(service, [knowledge("a")], "ward", prune=True)

    assert set(await standing(service)) == {"a"}


async def test_rollback_to_what_stands_makes_no_revision(service):
    """Like an apply of what is there already."""
    await apply(service, [knowledge("a")])

    back = await service.rollback("acme", 1, author="ada")

    assert (back.revision, list(back.changes)) == (1, [])


@pytest.mark.parametrize("number", [0, 2, 2**63 - 1])
async def test_rollback_to_no_revision(service, number):
    """There is nothing to bring back."""
    await apply(service, [knowledge("a")])

    with pytest.raises(NotFoundError):
        await service.rollback("acme", number, author="ada")


async def test_each_change_is_recorded_under_its_own_name(service):
    """The auditor reads what was asked for, not only that something changed."""
    await apply(service, [knowledge("a"), knowledge("b")])
    await service.delete("acme", [(KNOWLEDGE, "a")], author="bob")
    await service.rollback("acme", 1, author="eve")
    records, _ = await AuditService(service._store).list("acme", page_size=3, page_token="")

    assert [(it.actor, it.action.split("/")[1], it.target) for it in records] == [
        ("eve", "RollbackRevision", "revision 3 (content of revision 1)"),
        ("bob", "DeleteResources", "revision 2"),
        ("ada", "ApplyResources", "revision 1"),
    ]


async def test_reason_has_a_bound(service):
    """It is a note, not a document."""
    with pytest.raises(InvalidError) as refused:
        await apply_set(service, [knowledge("a")], "", reason="x" * 1001)

    assert refused.value.code is REASON_TOO_LONG


names = st.sampled_from(["a", "b", "c", "d"])
contents = st.dictionaries(names, st.integers(1, 50), min_size=1)
changes = st.lists(
    st.one_of(
        st.tuples(st.just("apply"), st.sampled_from(["", "ward", "lab"]), contents),
        st.tuples(st.just("prune"), st.sampled_from(["ward", "lab"]), contents),
        st.tuples(st.just("delete"), st.just(""), st.sets(names, min_size=1)),
        st.tuples(st.just("rollback"), st.just(""), st.integers(1, 8)),
    ),
    max_size=8,
)


@given(changes=changes)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
async def test_any_history_can_be_gone_back_in_and_sets_do_not_touch_each_other(changes):
    """Rollback(n) gives the content of n, whatever happened since; a prune deletes of its own set only."""
    with tempfile.TemporaryDirectory() as folder:
        async with configuration(Path(folder)) as service:
            history = {}
            for what, of_set, argument in changes:
                before, sets = await standing(service), await owners(service)
                try:
                    done = await perform(service, what, of_set, argument)
                except (NotFoundError, InvalidError):
                    assert await standing(service) == before
                    continue
                now = await standing(service)
                if what == "prune":
                    assert {sets[name] for name in before.keys() - now.keys()} <= {of_set}
                if what == "rollback":
                    assert now == history[argument]
                assert history.setdefault(done.revision, now) == now


def perform(service, what, of_set, argument):
    if what == "delete":
        return service.delete("acme", [(KNOWLEDGE, name) for name in argument], author="ada")
    if what == "rollback":
        return service.rollback("acme", argument, author="ada")
    resources = [knowledge(name, top_k) for name, top_k in argument.items()]
    return apply_set(service, resources, of_set, prune=what == "prune")


async def owners(service):
    listed, _ = await service.list_resources("acme", pb.KIND_UNSPECIFIED, page_size=1000, page_token="")
    return {each.resource.metadata.name: each.apply_set for each in listed}
