"""What can go wrong on the way from the command line to a control plane or a node."""

from collections.abc import Sequence

from faos_core.errors import InvalidError, define
from faos_core.resource_reader import Problem

CONTEXT_MISSING = define(
    "context.missing",
    what="It is not said which control plane or node is meant.",
    why="There is no .faos/context.json here or above, no context in use, none in {user_file}, and no --context.",
    next_step="Start everything here: faos up — or choose one: faos context list",
)
CONTEXT_FILE_MISSING = define(
    "context.file_missing",
    what="There is no context file {file}.",
    why="It was named by {named_by}.",
    next_step="See what is there: ls -l {folder}",
)
CONTEXT_UNUSABLE = define(
    "context.unusable",
    what="The context file {file} cannot be used.",
    why="{reason}",
    next_step="Correct it, or have it written anew: faos up, or faos control-plane run.",
)
CONTEXT_UNKNOWN = define(
    "context.unknown",
    what="There is no context named {name!r}.",
    why="Named ones are in {file}.",
    next_step="See which there are: faos context list",
)
CONTEXT_EXISTS = define(
    "context.exists",
    what="There is a context named {name!r} already.",
    why="Overwriting it would send commands of your scripts elsewhere.",
    next_step="Choose another name, or remove it first: faos context remove {name}",
)
CONTEXT_NAME = define(
    "context.name_malformed",
    what="{name!r} is no name for a context.",
    why="A name has at most 63 of a-z, 0-9 and '-', and begins and ends with a letter or digit.",
    next_step="Choose another: faos context add NAME",
)
CONTEXT_EMPTY = define(
    "context.empty",
    what="It is not said what the context {name!r} leads to.",
    why="There is no context here to take it from, and no flag says it.",
    next_step="Say it: faos context add {name} --server HOST:PORT --ca FILE --token-file FILE",
)
CONTEXT_INCOMPLETE = define(
    "context.incomplete",
    what="It is not said {missing}.",
    why="{source} does not have {key!r}.",
    next_step="Add it, or give {flag} with the command.",
)
CREDENTIAL_UNREADABLE = define(
    "context.credential_unreadable",
    what="{file} cannot be read.",
    why="{reason}; it is the {purpose} of the control plane.",
    next_step="Run the command as the user who may read it: ls -l {file}",
)
CREDENTIAL_MALFORMED = define(
    "context.credential_malformed",
    what="{file} is no {purpose}.",
    why="{reason}",
    next_step="See which files are used, and name the right one: faos context show",
)
CONTROL_PLANE_UNREACHABLE = define(
    "admin_api.unreachable",
    what="The control plane at {address} does not answer.",
    why="{reason}",
    next_step="See whether it runs (faos status); start it: faos up, or faos control-plane run --data DIR.",
)
CONTROL_PLANE_UNTRUSTED = define(
    "control_plane.untrusted",
    what="What answers at {address} is not the control plane that is expected.",
    why="Its certificate does not lead to the CA in {ca_file}.",
    next_step="Check the address, and copy ca/ca.pem anew from the control plane's data folder.",
)
TRACE_UNKNOWN = define(
    "trace.unknown",
    what="There is no single trace {named!r} here.",
    why="{found} in the files of this machine match; they are written some seconds after the work, and old ones go.",
    next_step="See which there are: faos trace",
)
NO_ANSWER = define(
    "command.no_answer",
    what="{whom} does not answer.",
    why="It took the question and said nothing for {seconds} seconds.",
    next_step="Look at its log, and at what the machine is busy with; then ask again: faos status",
)
NODE_NOT_RUNNING = define(
    "node.not_running",
    what="The node does not answer.",
    why="Nobody listens on {socket}.",
    next_step="Start it: faos up, or faos node run --data {folder}",
)
NODE_LOST = define(
    "node.lost",
    what="The node went away in the middle of the run, and did not come back within {waited_s} seconds.",
    why="It was stopped, or it crashed. The run is not lost: the node goes on with it when it is started.",
    next_step="Start the node, then look: faos run show {run_id}",
)
NO_TENANT = define(
    "tenant.none",
    what="There is no tenant yet.",
    why="Sites, nodes and resources belong to one.",
    next_step="Make one: faos tenant create NAME",
)
WHICH_TENANT = define(
    "tenant.which",
    what="It is not said which tenant is meant.",
    why="There are several: {tenants}.",
    next_step="Say which: --tenant NAME",
)
RESOURCES_REFUSED = define(
    "apply.refused",
    what="The control plane refused the resources: {count} thing(s) are wrong. The first: {first}",
    why="A revision is taken as a whole or not at all; nothing was changed.",
    next_step="Correct the places listed, then run the command again.",
)
TOKEN_EMPTY = define(
    "context.token_empty",
    what="No context was added.",
    why="--with-token reads the token from standard input, and there was none.",
    next_step="Hand it in: faos context add NAME --server HOST:PORT --ca FILE --with-token < FILE",
)
NOT_CONFIRMED = define(
    "sign.not_confirmed",
    what="Nothing was signed.",
    why="Nobody confirmed it.",
    next_step="Look at what would change (faos diff -f DIR); run it on a terminal, or add --yes.",
)
MEMORY_UNUSABLE = define(
    "sign.memory_unusable",
    what="The record of what was published from here cannot be used: {file}.",
    why="It cannot be read as what this program writes ({reason}).",
    next_step="Correct it; or remove it, and then look twice at the next difference before you sign it.",
)
SET_MISSING = define(
    "apply.set_missing",
    what="It is not said what --prune may delete.",
    why="Other files and other people may have applied resources of this tenant, so only those of one set can go.",
    next_step="Name the set that these files are applied with, each time: faos apply --prune --set NAME -f DIR",
)
WATCH_LOST = define(
    "get.watch_lost",
    what="The control plane did not come back within {waited_s} seconds.",
    why="{reason}",
    next_step="Look again when it runs: faos get nodes -w",
)
NODES_REFUSED = define(
    "apply.not_healthy",
    what="Revision {revision} is not healthy everywhere: {counts}.",
    why="{reason}",
    next_step="{hint}",
)
RUN_FAILED = define(
    "run.ended_badly",
    what="The run {how}.",
    why="The node says: {error_code}.",
    next_step="See each step: faos run show {run_id}",
)
NOTHING_NAMED = define(
    "get.not_found",
    what="There is no {kind} {name!r}.",
    why="It was never made, or its name is misspelt.",
    next_step="See which there are: faos get {plural}",
)
LEDGER_MISSING = define(
    "ledger.missing",
    what="There is no ledger in {folder}.",
    why="A node begins it when it joins.",
    next_step="Name the node's data folder: --data DIR",
)
LEDGER_LEAF_MISSING = define(
    "ledger.leaf_missing",
    what="The ledger has no message {index} that can be shown.",
    why="{reason}",
    next_step="See which there are: faos ledger show",
)


class ResourcesRefusedError(InvalidError):
    """What the control plane found wrong, at its places in the files."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(RESOURCES_REFUSED, count=len(problems), first=problems[0])
        self.problems = tuple(problems)
