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
KEYS_OF_ANOTHER = define(
    "config.keys_of_another",
    what="The keys in {directory} are those of another publisher.",
    why="An earlier attempt to make the tenant ended half-way, and named another publisher's key, or none.",
    next_step="Make the tenant with the same key as then, or remove that folder first.",
)
PUBLISHER_ELSEWHERE = define(
    "config.publisher_elsewhere",
    what="This control plane cannot publish for tenant {tenant!r}.",
    why="The tenant's revisions are signed by its publisher, on a machine of its own; the key is not here.",
    next_step="Sign with the publisher's key: faos apply --sign KEYREF -f DIR",
)
REVISION_TOO_LARGE = define(
    "config.revision_too_large",
    what="That would be more than nodes take in one revision. Nothing was changed.",
    why="Tenant {tenant!r} would have {count} resources, whose manifest has {size} bytes; the most are {most_count} "
    "resources and {most_size} bytes.",
    next_step="Delete what is not needed (faos apply --prune), or give other sites a tenant of their own.",
)
OVERTAKEN = define(
    "config.overtaken",
    what="The revision that was signed, {signed}, was overtaken: {number} stands already.",
    why="{change}",
    next_step="Look at it (faos describe revision {number}), then run the same command again.",
)
REVISION_STALE = define(
    "config.revision_stale",
    what="Revision {expected} stands no more: {number} does. Nothing was changed.",
    why="{change}",
    next_step="Look at it (faos describe revision {number}), then decide again.",
)
RESOURCE_STALE = define(
    "config.resource_stale",
    what="{kind} {name!r} is not as you saw it. Nothing was changed.",
    why="{change}",
    next_step="Look at it again: faos get {kind} {name}",
)
RENEWAL_MISSING = define(
    "config.renewal_missing",
    what="The new publisher has not signed what stands.",
    why="Nodes that know the new root would refuse revision {number}, which the publisher before has signed.",
    next_step="Have both done in one step: faos tenant publisher set --key KEYREF",
)
ROOT_ELSEWHERE = define(
    "config.root_elsewhere",
    what="The new root is not signed by the tenant's root key.",
    why="That key is not here: it is in the hands of whoever moved it.",
    next_step="Sign with it: add --root-key KEYREF to the command.",
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
LEFT_DANGLING = define(
    "config.left_dangling",
    what="What would be deleted is still needed, in {count} place(s).",
    why="{first}",
    next_step="Delete what refers to it too, or change it first; nothing was deleted.",
)
IN_OTHER_SET = define(
    "config.in_other_set",
    what="It belongs to the apply set {owner!r}.",
    why="Two sets that declare one resource undo each other; one of them must let go of it.",
    next_step="Take it out of one set's files, or apply both with one name: faos apply --set NAME -f DIR",
)
PRUNE_UNNAMED = define(
    "config.prune_unnamed",
    what="It is not said what a prune may delete.",
    why="Other files and other people may have applied resources of this tenant, so only those of one set can go.",
    next_step="Name the set that these files are applied with, each time: faos apply --prune --set NAME -f DIR",
)
PRUNE_OF_ALL = define(
    "config.prune_of_all",
    what="There is no resource in the request, so a prune would delete the whole set.",
    why="That is what an empty folder or a failed template looks like.",
    next_step="If it is meant, delete them by name: faos delete KIND NAME",
)
REASON_TOO_LONG = define(
    "config.reason_too_long",
    what="The reason has {count} characters.",
    why="The history keeps at most {limit}.",
    next_step="Say it shorter, or refer to where it is told.",
)
NAMES_MISSING = define(
    "config.names_missing",
    what="The request names {count} resources to delete.",
    why="It takes from 1 to {limit}.",
    next_step="Name them: faos delete KIND NAME",
)


class ResourcesInvalidError(InvalidError):
    """Resources that cannot be applied; `violations` has everything that is wrong at once, at least one."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__(RESOURCES_INVALID, count=len(violations), first=_place(violations[0]))
        self.violations: Sequence[Violation] = tuple(violations)


class LeftDanglingError(InvalidError):
    """Resources that cannot go, because others refer to them; `violations` says who, at least one."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__(LEFT_DANGLING, count=len(violations), first=_place(violations[0]))
        self.violations: Sequence[Violation] = tuple(violations)


def _place(violation: Violation) -> str:
    where = violation.field_path or "as a whole"
    return f"{kind_name(violation.kind)} {violation.name!r}, {where}: {violation.message}"
