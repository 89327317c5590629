"""Codes of the admin API itself."""

from faos_core.errors import define

TOKEN_MISSING = define(
    "admin.token_missing",
    what="The call carries no token.",
    why="Every call of the admin API but health and reflection needs 'authorization: Bearer TOKEN'.",
    next_step="Read it on the control plane's machine, in its data folder: cat DATA_DIR/admin.token",
)
TOKEN_WRONG = define(
    "admin.token_wrong",
    what="The token is not one of this control plane's.",
    why="It belongs to another control plane, or was replaced.",
    next_step="Read it on the control plane's machine, in its data folder: cat DATA_DIR/admin.token",
)
TOKEN_FILE_UNUSABLE = define(
    "admin.token_file_unusable",
    what="The admin token file {file} cannot be used.",
    why="{reason}",
    next_step="Delete it and start again to have a new token made: rm {file}",
)
PERMISSION_DENIED = define(
    "admin.permission_denied",
    what="{subject} may not do this.",
    why="It takes the permission {permission!r}.",
    next_step="Ask an administrator for it.",
)
RPC_UNGUARDED = define(
    "admin.rpc_unguarded",
    what="{method} is not open to {subject}, nor to anybody.",
    why="It declares no permission, so nobody holds it. This is a defect of ours.",
    next_step="Please report it.",
)
NODE_NOT_FOUND = define(
    "node.not_found",
    what="Tenant {tenant!r} has no node {node!r}.",
    why="It never enrolled here, or its name is misspelt.",
    next_step="See which there are: faos get nodes",
)
WATCHES_TOO_MANY = define(
    "admin.watches_too_many",
    what="This control plane watches for {limit} callers already.",
    why="Each watch asks the database again and again.",
    next_step="End one that is not needed, or look once: faos get nodes",
)
REQUEST_UNPARSABLE = define(
    "admin.request_unparsable",
    what="The request is not a message of this API.",
    why="Its bytes cannot be read as what this RPC takes.",
    next_step="Use the same version of faos here as on the control plane: faos --version",
)
