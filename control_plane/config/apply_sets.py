"""Which set of files a resource was applied with: what a prune may delete. Within the caller's transaction."""

from collections.abc import Iterable, Mapping

import sqlalchemy as sa

from control_plane.db.models import apply_set_members as members
from faos_core.manifests import Key


def apply_sets(connection: sa.Connection, tenant: str) -> dict[Key, str]:
    """Set by kind and name; also of resources that stand no more, so look at those that do."""
    query = sa.select(members.c.kind, members.c.name, members.c.apply_set).where(members.c.tenant == tenant)
    return {(row.kind, row.name): row.apply_set for row in connection.execute(query)}


def assign(connection: sa.Connection, tenant: str, apply_set: str, keys: Iterable[Key]) -> None:
    """Make these resources members of the set; "" of none."""
    _remove(connection, tenant, keys := list(keys))
    if apply_set and keys:
        rows = [{"tenant": tenant, "kind": kind, "name": name, "apply_set": apply_set} for kind, name in keys]
        connection.execute(members.insert(), rows)


def _remove(connection: sa.Connection, tenant: str, keys: Iterable[Key]) -> None:
    here = (
        members.c.tenant == tenant,
        members.c.kind == sa.bindparam("key_kind"),
        members.c.name == sa.bindparam("key_name"),
    )
    if rows := [{"key_kind": kind, "key_name": name} for kind, name in keys]:
        connection.execute(members.delete().where(*here), rows)


def moved(before: Mapping[Key, str], apply_set: str, asked: Iterable[Key], standing: Iterable[Key]) -> list[Key]:
    """Of the resources asked for, those whose set an apply changes: all that are not in a set that it names; without
    one, those that are new, which must not inherit what somebody of their name was in."""
    if apply_set:
        return [key for key in asked if before.get(key) != apply_set]
    stands = set(standing)
    return [key for key in asked if key in before and key not in stands]
