"""What can go wrong with tools, and what a person does about it."""

from enum import StrEnum

from faos_core.errors import ErrorCode, SetupError, define

SANDBOX_UNAVAILABLE = define(
    "sandbox.unavailable",
    what="Tool servers cannot be run without network on this machine.",
    why="Neither bubblewrap nor an unprivileged network namespace works; no tool server runs outside one.",
    next_step="Install bubblewrap (apt-get install bubblewrap), or enable user namespaces "
    "(sysctl -w kernel.unprivileged_userns_clone=1).",
)
PROGRAM_UNKNOWN = define(
    "tool_server.program_unknown",
    what="Tool server {server!r} asks for program {program!r}, which this site does not have.",
    why="site.toml holds no [programs.{program}]; only the site decides what runs here.",
    next_step="Add [programs.{program}] with its command to site.toml, or name another program in the ToolServer.",
)
START_FAILED = define(
    "tool_server.start_failed",
    what="Tool server {server!r} did not start ({fault}).",
    why="Its program did not answer the MCP handshake.",
    next_step="Run the command of [programs.{program}] by hand and read what it prints.",
)
ENDPOINT_FAILED = define(
    "tool_server.endpoint_failed",
    what="Tool server {server!r} did not answer at the endpoint {endpoint!r} ({fault}).",
    why="There was no connection, or what answers there does not speak MCP over streamable HTTP.",
    next_step="Check that it runs, and url and ca_file of [endpoints.{endpoint}] in site.toml.",
)
ENDPOINT_UNKNOWN = define(
    "tool_server.endpoint_unknown",
    what="Tool server {server!r} asks for endpoint {endpoint!r}, which this site does not have.",
    why="site.toml holds no [endpoints.{endpoint}]; only the site decides whom this node asks.",
    next_step="Add [endpoints.{endpoint}] with its url to site.toml, or name another endpoint in the ToolServer.",
)
TOOL_NOT_OFFERED = define(
    "tool_server.tool_not_offered",
    what="Tool server {server!r} does not offer the tool {tool!r} that its spec allows.",
    why="spec.allowedTools may only name tools that the program lists.",
    next_step="Correct allowedTools of ToolServer {server}, then: faos apply -f",
)
SERVER_SANDBOX_UNAVAILABLE = define(
    "tool_server.sandbox_unavailable",
    what="Tool server {server!r} was not started, because it cannot be run without network here.",
    why="Neither bubblewrap nor an unprivileged network namespace works on this machine.",
    next_step="Install bubblewrap (apt-get install bubblewrap), then apply again.",
)
SERVER_UNKNOWN = define(
    "tool.server_unknown",
    what="There is no tool server {server!r} in the running revision.",
    why="An agent names a ToolServer that is not active on this node.",
    next_step="See what is: faos get toolservers",
)
NOT_ALLOWED = define(
    "tool.not_allowed",
    what="The tool is not among those that tool server {server!r} may offer.",
    why="Only the tools in spec.allowedTools exist for agents.",
    next_step="Add it to allowedTools of ToolServer {server} if agents are meant to use it.",
)
DEFINITION_CHANGED = define(
    "tool.definition_changed",
    what="The tool {tool!r} of {server!r} is quarantined: its definition is not the one that this site accepted.",
    why="Its server described it differently after a start; what a tool says of itself is an instruction to a model.",
    next_step="Look at what changed (faos tool list); if it is meant to be so: faos tool repin {server} {tool}",
)
POLICY_DENIED = define(
    "tool.policy_denied",
    what="Policy does not allow this call of {tool!r} on {server!r} (policy {policy!r}, rule {rule!r}).",
    why="The strictest matching rule denies it; where both names are empty, no rule matched.",
    next_step="If the call is meant to be allowed, add a rule to one of the agent's policies.",
)
APPROVAL_UNAVAILABLE = define(
    "tool.approval_unavailable",
    what="The call of {tool!r} on {server!r} needs a person's yes (policy {policy!r}, rule {rule!r}).",
    why="This version has no way to ask one, so the call is refused.",
    next_step="Change the rule's effect to ALLOW or DENY.",
)
ARGUMENTS_INVALID = define(
    "tool.arguments_invalid",
    what="The arguments do not fit the tool {tool!r} of {server!r} (schema {schema_path}).",
    why="Arguments are checked against the tool's own JSON Schema before anything is sent.",
    next_step="Look at the tool's input schema; a model that fails here needs constrained arguments.",
)
SERVER_HUNG = define(
    "tool.server_hung",
    what="Tool server {server!r} did not answer within {timeout_s} s.",
    why="The call took longer than spec.callTimeoutSeconds. A program of this node that hangs is killed and restarted.",
    next_step="Raise callTimeoutSeconds of ToolServer {server} if the tool is just slow.",
)
SERVER_DIED = define(
    "tool.server_died",
    what="Tool server {server!r} died during the call; it is being restarted.",
    why="Its process ended or closed its standard output, or the connection to its endpoint broke.",
    next_step="Try again; if it goes on, run the program by hand, or look at the server behind the endpoint.",
)
SERVER_GARBAGE = define(
    "tool.server_garbage",
    what="Tool server {server!r} answered something that is not MCP; it was killed and is being restarted.",
    why="Standard output of a stdio server may carry MCP messages only, one a line, below the size limit.",
    next_step="Make the program write its own output to standard error.",
)
SERVER_RESTARTING = define(
    "tool.server_restarting",
    what="Tool server {server!r} is down and has not come back within the time of this call.",
    why="It died, hung or answered garbage earlier, and is restarted with growing pauses.",
    next_step="Try again later; if it goes on, run the program by hand.",
)
NOT_QUARANTINED = define(
    "tool.not_quarantined",
    what="The tool {tool!r} of {server!r} is not quarantined.",
    why="Only a tool whose definition changed waits to be accepted, by its name in the ToolServer's allowedTools.",
    next_step="See which do: faos tool list",
)
SERVER_BUSY = define(
    "tool.server_busy",
    what="Tool server {server!r} already has {limit} calls under way.",
    why="Calls of one server are bounded, so that a slow one cannot exhaust the node ([limits] concurrent_tool_calls).",
    next_step="Try again later, or raise the limit in site.toml.",
)


class StartCause(StrEnum):
    """Why a tool server cannot be had: what a NACK is made of."""

    NOT_IN_CEILING = "not_in_ceiling"
    START_FAILED = "start_failed"
    TOOL_NOT_OFFERED = "tool_not_offered"
    SANDBOX_UNAVAILABLE = "sandbox_unavailable"


class ToolServerError(SetupError):
    """A ToolServer of the configuration cannot be run here. `server` is its name in the revision."""

    def __init__(self, code: ErrorCode, cause: StartCause, *, server: str, **fields: object) -> None:
        super().__init__(code, server=server, **fields)
        self.server = server
        self.cause = cause
