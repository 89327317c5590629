"""What can go wrong with sealed storage, and what a person does about it."""

from sqlalchemy.exc import DontWrapMixin

from faos_core.errors import IntegrityError, define

KEK_MISSING = define(
    "storage.kek_missing",
    what="The site's data key {path} is missing, and the database holds data sealed with it.",
    why="The file was moved or lost, or the database was restored without it. Without it nothing can be read.",
    next_step="Put the file back from its backup: {path}",
)
KEK_EXPOSED = define(
    "storage.kek_exposed",
    what="The site's data key {path} can be read by other users (mode {mode}).",
    why="Whoever reads it can read all data of this node.",
    next_step="chmod 600 {path}",
)
KEK_MALFORMED = define(
    "storage.kek_malformed",
    what="The site's data key {path} is not a key.",
    why="A key file holds exactly 32 bytes; this one holds {size_bytes}.",
    next_step="Put the file back from its backup: {path}",
)
KEK_UNREADABLE = define(
    "storage.kek_unreadable",
    what="The site's data key {path} cannot be read or made.",
    why="The folder or the file belongs to another user, or the disk is full.",
    next_step="Look at owner, mode and space: ls -ld {path}; df -h",
)
KEK_OTHER = define(
    "storage.kek_other",
    what="The site's data key {path} is not the one that this database was sealed with.",
    why="The key file and the database come from different installations or backups.",
    next_step="Put back the key file that belongs to this database: {path}",
)
SEAL_BROKEN = define(
    "storage.seal_broken",
    what="A sealed value of {table}.{column} does not belong where it stands.",
    why="It was changed, moved from another row or column, or never sealed.",
    next_step="Stop the node, keep a copy of the database, and restore the last backup.",
)
UNSEALED = define(
    "storage.unsealed",
    what="Something tried to store customer data in the clear.",
    why="This is a defect of FAOS. Nothing was written.",
    next_step="Report it, with the log.",
)
KEY_DESTROYED = define(
    "storage.key_destroyed",
    what="A value of {table}.{column} can no longer be read: its data subject was erased.",
    why="Erasing a subject destroys the key of all that was stored about it.",
    next_step="Nothing: this is what erasing is for.",
)
SUBJECT_EMPTY = define(
    "storage.subject_empty",
    what="Erasing needs the name of a data subject.",
    why="The empty name stands for the tenant's own data.",
    next_step="Name the subject to erase.",
)
ERASABLE_TWICE = define(
    "storage.erasable_twice",
    what="Two stores of customer data are registered as {name}.",
    why="This is a defect of FAOS.",
    next_step="Report it, with the log.",
)


class UnsealedError(IntegrityError, DontWrapMixin):
    """A value without a seal was about to enter, or came out of, a sealed column."""
