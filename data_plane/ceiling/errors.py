"""What can be wrong with `site.toml` beyond its syntax."""

from faos_core.errors import define

PATH_MISSING = define(
    "ceiling.path_missing",
    what="{file}: {key} is {path}, and there is no such {wanted}.",
    why="Everything that the site's ceiling names must exist when the node starts.",
    next_step="Create it, or correct {key} in {file}.",
)
PROGRAM_MISSING = define(
    "ceiling.program_missing",
    what="{file}: {key} begins with {program!r}, which is not a program that can be run.",
    why="It must be on PATH, or a path to an executable file, relative to the folder of {file}.",
    next_step="Install it, or correct {key} in {file}.",
)
SHA256_MALFORMED = define(
    "ceiling.sha256_malformed",
    what="{file}: {key} is not a SHA-256.",
    why="It must be 64 digits of 0-9 and a-f.",
    next_step="Print it with 'sha256sum FILE' and put it at {key} in {file}.",
)
NAME_MALFORMED = define(
    "ceiling.name_malformed",
    what="{file}: {key} is not a name that a resource could refer to.",
    why="Names are 1 to 63 of a-z, 0-9 and '-', and begin and end with a letter or digit; {name!r} is not.",
    next_step="Rename the table [{key}] in {file}.",
)
LIMIT_NOT_POSITIVE = define(
    "ceiling.limit_not_positive",
    what="{file}: {key} must be at least 1.",
    why="With a limit of nothing, no agent could answer.",
    next_step="Correct {key} in {file}.",
)
KIND_UNKNOWN = define(
    "ceiling.kind_unknown",
    what="{file}: approval_required names {kind!r}, which is not a kind.{hint}",
    why="Kinds are {known}. A misspelt one would let through what you want to approve.",
    next_step="Correct approval_required in {file}.",
)
DOOR_UNKNOWN = define(
    "ceiling.door_unknown",
    what="{file}: doors.{door} is not a door of this node.",
    why="Doors are {known}.",
    next_step="Correct [doors] in {file}.",
)
TUNNEL_DOOR_TOO_HIGH = define(
    "ceiling.tunnel_door_too_high",
    what="{file}: doors.tunnel cannot be 'customer'.",
    why="Customer data never goes to the control plane; no setting changes that.",
    next_step="Set doors.tunnel to 'identifier' or 'operational' in {file}.",
)
URL_MALFORMED = define(
    "ceiling.url_malformed",
    what="{file}: {key} is not the URL of an endpoint.",
    why="It must be http:// or https://, a host, and perhaps a port and a path; no user, query or fragment.",
    next_step="Correct {key} in {file}.",
)
CA_FILE_UNUSABLE = define(
    "ceiling.ca_file_unusable",
    what="{file}: {key} is {path}, and it holds no certificates.",
    why="It must be PEM: one or more BEGIN CERTIFICATE blocks.",
    next_step="Correct {key} in {file}.",
)
