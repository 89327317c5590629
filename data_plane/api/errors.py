"""What can go wrong with the local API's socket."""

from faos_core.errors import define

ALREADY_RUNNING = define(
    "api.already_running",
    what="A node already runs here.",
    why="Another process holds the lock in {folder}.",
    next_step="Talk to it (faos status), stop it first, or give this one another data folder.",
)
SOCKET_PATH_TOO_LONG = define(
    "api.socket_path_too_long",
    what="The path of the node's socket is too long: {path}",
    why="The system allows a Unix socket {limit} bytes; this one has {length}.",
    next_step="Choose a data folder with a shorter path.",
)
SOCKET_FAILED = define(
    "api.socket_failed",
    what="The node's socket {path} cannot be made.",
    why="The folder belongs to another user or its file system has no sockets.",
    next_step="Look at owner and mode: ls -ld {path}",
)
