"""What can go wrong with knowledge bases, as a person reads it. Names of documents are customer data: none here."""

from faos_core.errors import define

FOLDER_UNREADABLE = define(
    "memory.folder_unreadable",
    what="The folder {folder} of knowledge base {name!r} cannot be read.",
    why="The system says: {reason}",
    next_step="Correct the path under [folders] in site.toml, or make the folder readable for the node's user.",
)
NEVER_INGESTED = define(
    "memory.never_ingested",
    what="Knowledge base {name!r} is not here.",
    why="The running revision does not declare it for this site, or its folder was never read.",
    next_step="See what the node runs: faos status.",
)
