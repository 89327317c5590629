"""What a change comes to, before anything is written. All within the caller's transaction; nothing is stored here."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import sqlalchemy as sa

from control_plane.config.apply_sets import apply_sets, moved
from control_plane.config.errors import (
    IN_OTHER_SET,
    RESOURCE_UNKNOWN,
    REVISION_TOO_LARGE,
    REVISION_UNKNOWN,
    LeftDanglingError,
    ResourcesInvalidError,
)
from control_plane.config.models import Applied, Change
from control_plane.config.revisions import (
    Body,
    bodies_of,
    manifest_of,
    sites_selected,
    standing_bodies,
    standing_number,
)
from control_plane.tenants.service import require_tenant
from faos.admin.v1.admin_pb2 import ChangeType
from faos.resource.v1.resource_pb2 import Kind
from faos_core.errors import InvalidError, NotFoundError
from faos_core.field_changes import MAX_ANSWER_CHARACTERS, field_changes
from faos_core.kinds import kind_name
from faos_core.manifests import MOST_ENTRIES, MOST_MANIFEST_BYTES, Key
from faos_core.resource_validation import Violation, validate

CREATED = ChangeType.CHANGE_TYPE_CREATED
UPDATED = ChangeType.CHANGE_TYPE_UPDATED
UNCHANGED = ChangeType.CHANGE_TYPE_UNCHANGED
DELETED = ChangeType.CHANGE_TYPE_DELETED


@dataclass(frozen=True, slots=True)
class Plan:
    """From what stands to what shall."""

    number: int  # of the revision that stands; 0 before the first
    standing: dict[Key, Body]
    after: dict[Key, Body]
    changes: tuple[Change, ...] = ()  # as asked, the unchanged included; then what goes
    affected_sites: tuple[str, ...] = ()
    moved: tuple[Key, ...] = ()  # resources whose apply set changes
    rollback_of: int = 0

    @property
    def changed(self) -> list[Body]:
        """Bodies that are new or differ."""
        return [body for key, body in self.after.items() if _digest(self.standing, key) != body.digest]

    @property
    def removed(self) -> list[Key]:
        return [key for key in self.standing if key not in self.after]

    @property
    def is_new(self) -> bool:
        """Whether it takes a revision."""
        return bool(self.changed or self.removed)

    def answer(self) -> Applied:
        """What would happen, field by field."""
        room = MAX_ANSWER_CHARACTERS
        detailed: list[Change] = []
        for change in self.changes:
            key = (int(change.kind), change.name)
            before, after = self.standing.get(key), self.after.get(key)
            resources = (each.resource if each else None for each in (before, after))
            fields = field_changes(*resources, limit=room)
            room -= fields.size_characters
            detailed.append(replace(change, fields=fields.fields, fields_truncated=fields.is_truncated))
        return Applied(self.number, tuple(detailed), self.affected_sites)


def plan_apply(
    connection: sa.Connection, tenant: str, bodies: Sequence[Body], *, apply_set: str = "", prune: bool = False
) -> Plan:
    """These resources besides what stands; with prune, without the others of the set.

    Raises: ResourcesInvalidError (LeftDanglingError where a prune is to blame), NotFoundError (tenant).
    """
    require_tenant(connection, tenant)
    standing = standing_bodies(connection, tenant)
    sets = apply_sets(connection, tenant)
    asked = {body.key: body for body in bodies}
    if apply_set and (taken := _in_other_sets(bodies, standing, sets, apply_set)):
        raise ResourcesInvalidError(taken)
    pruned = {key for key in standing if prune and key not in asked and sets.get(key) == apply_set}
    kept = {key: body for key, body in standing.items() if key not in pruned}
    _refuse_invalid(bodies, standing, kept)
    plan = _plan(connection, tenant, standing, kept | asked, [body.key for body in bodies])
    return replace(plan, moved=tuple(moved(sets, apply_set, asked, standing)))


def _in_other_sets(
    bodies: Iterable[Body], standing: dict[Key, Body], sets: dict[Key, str], apply_set: str
) -> list[Violation]:
    """Resources that another set's files declare: each apply of one would undo the other's."""
    found = []
    for body in bodies:
        owner = sets.get(body.key, apply_set) if body.key in standing else apply_set
        if owner != apply_set:
            message = f"{IN_OTHER_SET.what.format(owner=owner)} {IN_OTHER_SET.why}"
            kind, name = body.key
            found.append(Violation(Kind.ValueType(kind), name, "metadata.name", IN_OTHER_SET.code, message))
    return found


def _refuse_invalid(bodies: Sequence[Body], standing: dict[Key, Body], kept: dict[Key, Body]) -> None:
    """Raises ResourcesInvalidError; LeftDanglingError when nothing is wrong but what is pruned."""
    resources = [body.resource for body in bodies]
    violations = validate(resources, [body.resource for body in kept.values()], complete=True)
    if not violations:
        return
    if len(kept) < len(standing) and not validate(
        resources, [body.resource for body in standing.values()], complete=True
    ):
        raise LeftDanglingError(violations)
    raise ResourcesInvalidError(violations)


def plan_delete(connection: sa.Connection, tenant: str, keys: Sequence[Key]) -> Plan:
    """What stands without these. Raises: LeftDanglingError, NotFoundError (tenant, or one of the resources)."""
    require_tenant(connection, tenant)
    standing = standing_bodies(connection, tenant)
    for kind, name in keys:
        if (kind, name) not in standing:
            shown = kind_name(Kind.ValueType(kind))
            raise NotFoundError(RESOURCE_UNKNOWN, tenant=tenant, kind=shown, name=name[:80])
    gone = set(keys)
    after = {key: body for key, body in standing.items() if key not in gone}
    if violations := validate([], [body.resource for body in after.values()], complete=True):
        raise LeftDanglingError(violations)
    return _plan(connection, tenant, standing, after, ())


def plan_rollback(connection: sa.Connection, tenant: str, number: int) -> Plan:
    """What stood in that revision. Raises: NotFoundError (tenant, revision), ResourcesInvalidError (content that this
    version no longer takes)."""
    require_tenant(connection, tenant)
    if not 0 < number <= standing_number(connection, tenant):
        raise NotFoundError(REVISION_UNKNOWN, tenant=tenant, number=number)
    after = bodies_of(connection, tenant, number)
    if violations := validate([body.resource for body in after.values()], complete=True):
        raise ResourcesInvalidError(violations)
    plan = _plan(connection, tenant, standing_bodies(connection, tenant), after, sorted(after))
    changes = tuple(change for change in plan.changes if change.change != UNCHANGED)
    return replace(plan, changes=changes, rollback_of=number)


def plan_renewal(connection: sa.Connection, tenant: str) -> Plan:
    """What stands, once more."""
    standing = standing_bodies(connection, tenant)
    return Plan(standing_number(connection, tenant), standing, standing)


def _plan(
    connection: sa.Connection, tenant: str, standing: dict[Key, Body], after: dict[Key, Body], asked: Sequence[Key]
) -> Plan:
    plan = Plan(standing_number(connection, tenant), standing, after)
    _refuse_oversized(tenant, plan)
    changes = [_change(standing, after, key) for key in (*asked, *sorted(plan.removed))]
    touched = {*(body.key for body in plan.changed), *plan.removed}
    versions = chain.from_iterable((side[key] for side in (standing, after) if key in side) for key in touched)
    selectors = [body.resource.metadata.sites for body in versions]
    affected = tuple(sites_selected(connection, tenant, selectors))
    return replace(plan, changes=tuple(changes), affected_sites=affected)


def _refuse_oversized(tenant: str, plan: Plan) -> None:
    """Raises InvalidError for what every node would refuse. What only deletes passes."""
    count, size = len(plan.after), len(manifest_of(tenant, plan.number + 1, plan.after.values()))
    if plan.changed and (count > MOST_ENTRIES or size > MOST_MANIFEST_BYTES):
        most = {"most_count": MOST_ENTRIES, "most_size": MOST_MANIFEST_BYTES}
        raise InvalidError(REVISION_TOO_LARGE, tenant=tenant, count=count, size=size, **most)


def _digest(bodies: dict[Key, Body], key: Key) -> bytes | None:
    return bodies[key].digest if key in bodies else None


def _change(standing: dict[Key, Body], after: dict[Key, Body], key: Key) -> Change:
    before, now = _digest(standing, key), _digest(after, key)
    change = CREATED if before is None else DELETED if now is None else UNCHANGED if before == now else UPDATED
    kind, name = key
    return Change(Kind.ValueType(kind), name, change)
