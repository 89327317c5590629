"""Codes and errors of the control plane's configuration side."""

from collections.abc import Sequence

from faos_core.errors import InvalidError, define
from faos_core.kinds import kind_name
from faos_core.resource_validation import Violation

KEYS_UNUSABLE = define(
    "config.keys_unusable",
    what="The {role} key of a tenant cannot be used.",
    why="Its key folder, {directory}, lacks a readable private key that belongs to the tenant's TUF root.",
    next_step="Restore that folder from backup; without it, no new configuration can be signed for the tenant.",
)
METADATA_UNREADABLE = define(
    "config.metadata_unreadable",
    what="Stored signed metadata cannot be read.",
    why="The control plane's database was damaged or edited.",
    next_step="Restore the database from backup.",
)
RESOURCES_INVALID = define(
    "config.resources_invalid",
    what="{count} thing(s) are wrong with these resources.",
    why="{first}",
    next_step="Correct them and apply again; nothing was stored.",
)
REQUEST_ID_REUSED = define(
    "config.request_id_reused",
    what="Request id {request_id!r} was already used for another request.",
    why="One request id stands for one set of resources, so that retrying is safe.",
    next_step="Apply again with a fresh request id.",
)
RESOURCE_UNKNOWN = define(
    "config.resource_unknown",
    what="Tenant {tenant!r} has no {kind} named {name!r}.",
    why="It was never applied, or its name is another.",
    next_step="See what there is: faos get {kind}",
)
REVISION_UNKNOWN = define(
    "config.revision_unknown",
    what="Tenant {tenant!r} has no revision {number}.",
    why="Revisions count from 1, one for each apply that changed something.",
    next_step="See what there is: faos get revisions",
)


class ResourcesInvalidError(InvalidError):
    """Resources that cannot be applied; `violations` has everything that is wrong at once, at least one."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        first = violations[0]
        where = f"{kind_name(first.kind)} {first.name!r}, {first.field_path or 'as a whole'}: {first.message}"
        super().__init__(RESOURCES_INVALID, count=len(violations), first=where)
        self.violations: Sequence[Violation] = tuple(violations)
