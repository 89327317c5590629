"""Error codes of runs. Every limit of a run has one, so that a stopped run says which."""

from faos_core.errors import define

AGENT_UNKNOWN = define(
    "run.agent_unknown",
    what="There is no agent {agent!r} in the running revision.",
    why="The node runs revision {revision}, and it declares no agent of that name for this site.",
    next_step="See which agents run here: faos status.",
)
AGENT_GONE = define(
    "run.agent_gone",
    what="The run's agent is no longer declared.",
    why="The node restarted on a revision without the agent that began this run.",
    next_step="Apply a revision that has the agent, and ask again: faos run AGENT TEXT.",
)
RUN_UNKNOWN = define(
    "run.unknown",
    what="There is no run {run_id!r}.",
    why="It was never started on this node, or it has been erased.",
    next_step="List the runs of this node: faos runs.",
)
STEP_RECORDED = define(
    "run.step_recorded",
    what="Step {sequence} of run {run_id} cannot be recorded.",
    why="It has a result already, or the run was erased meanwhile.",
    next_step="Look at the run: faos run show {run_id}.",
)
PAGE_TOKEN_MALFORMED = define(
    "run.page_token_malformed",
    what="The page token is not one of ours.",
    why="A page token is the one that the page before came with, or empty.",
    next_step="Start from the first page: faos runs.",
)
TOO_MANY_RUNS = define(
    "run.too_many",
    what="The node already has {active} runs in progress.",
    why="site.toml allows {limit} at once ([limits] concurrent_runs).",
    next_step="Try again when one has ended (faos runs), or raise the limit in site.toml.",
)
SERVICE_STOPPED = define(
    "run.service_stopped",
    what="The node does not take runs now.",
    why="It is starting or stopping.",
    next_step="Try again in a moment.",
)
TURNS_EXHAUSTED = define(
    "run.turns",
    what="The run was stopped after its last allowed model call.",
    why="It reached max_turns of the agent or of site.toml.",
    next_step="Look at what it did: faos run show RUN_ID; raise limits.maxTurns if it was on its way.",
)
TOOL_CALLS_EXHAUSTED = define(
    "run.tool_calls",
    what="The run was stopped after its last allowed tool call.",
    why="It reached max_tool_calls of the agent or of site.toml.",
    next_step="Look at what it did: faos run show RUN_ID; raise limits.maxToolCalls if it was on its way.",
)
OUTPUT_TOKENS_EXHAUSTED = define(
    "run.output_tokens",
    what="The run was stopped after its last allowed token.",
    why="It reached max_output_tokens of the agent or of site.toml.",
    next_step="Look at what it wrote: faos run show RUN_ID; raise limits.maxOutputTokens if it was on its way.",
)
SECONDS_EXHAUSTED = define(
    "run.seconds",
    what="The run was stopped because its time was over.",
    why="It reached max_seconds of the agent or of site.toml, counted from its start, waiting included.",
    next_step="See where the time went: faos run show RUN_ID.",
)
IDENTICAL_CALLS = define(
    "run.identical_calls",
    what="The run was stopped because its model kept making the same tool call.",
    why="Three calls in a row had the same tool and arguments: the model was going in a circle.",
    next_step="Look at the calls: faos run show RUN_ID; say in the agent's instructions when to stop.",
)
ARGUMENTS_MALFORMED = define(
    "run.arguments_malformed",
    what="The model did not fill in a tool's arguments.",
    why="Three attempts under the tool's schema gave no arguments that it accepts, and a call is never made up.",
    next_step="Look at the attempts: faos run show RUN_ID; simplify the tool's schema or use a larger model.",
)
TOOL_FAILED = define(
    "run.tool_failed",
    what="The tool itself reported an error.",
    why="What it said is in the run's journal, at this site only.",
    next_step="See it: faos run show RUN_ID.",
)
TOOL_WITHDRAWN = define(
    "run.tool_withdrawn",
    what="The tool {tool!r} is no longer the agent's.",
    why="The revision that runs now does not give that tool server to the agent.",
    next_step="See what the agent has: faos get agents -o yaml.",
)
RUN_CANCELLED = define(
    "run.cancelled",
    what="The run was cancelled.",
    why="Somebody at this site stopped it (faos run cancel); its step under way was abandoned, not undone.",
    next_step="See how far it came: faos run show RUN_ID; ask again: faos run AGENT TEXT.",
)
RUN_DEFECT = define(
    "run.defect",
    what="The run stopped on a defect of ours.",
    why="Something failed that should not have; the node's log says where.",
    next_step="Please report it with the log lines around this moment.",
)
TURN_WITHOUT_END = define(
    "run.turn_without_end",
    what="The model {model!r} stopped without ending its turn.",
    why="A defect of its runtime.",
    next_step="Please report it with the log lines around this moment.",
)
