"""Keys of log fields, metrics and spans: one spelling each. Log with `extra={names.REVISION: 7}`."""

from enum import StrEnum

ADDRESS = "address"
ADMIN_PORT = "admin_port"
AGENT = "agent"
BYTES = "bytes"
CAUSE = "cause"
CODE = "code"
DOOR = "door"
DURATION_MS = "duration_ms"
ERROR = "error"
ISOLATION = "isolation"
ISSUER = "issuer"
KIND = "kind"
NODE = "node"
PATH = "path"
PHASE = "phase"
PID = "pid"
PORT = "port"
RESOURCE = "resource"
REVISION = "revision"
RUN_ID = "run_id"
SEQUENCE = "sequence"
SERVICE = "service"
SESSION_ID = "session_id"
SIGNAL = "signal"
SITE = "site"
SIZE = "size"
SPAN_ID = "span_id"
STATE = "state"
STEP = "step"
TENANT = "tenant"
TOOL = "tool"
TOOL_SERVER = "tool_server"
TRACE_ID = "trace_id"


class Span(StrEnum):
    """What a span is about. Those of agents are named as OpenTelemetry's conventions for generative AI name them
    (version 1.38); the name of the agent, model or tool follows after a blank."""

    ADMIN_RPC = "admin.rpc"
    CONFIG_ACTIVATE = "config.activate"
    CONFIG_PHASE = "config.phase"  # control plane: until the node reported the next state
    CONFIG_PROMOTE = "config.promote"
    CONFIG_PUSH = "config.push"  # control plane: from the offer to how it ended
    CONFIG_ROLL_BACK = "config.roll_back"
    CONFIG_SOAK = "config.soak"
    CONFIG_STAGE = "config.stage"
    CONFIG_VERIFY = "config.verify"
    MODEL_TURN = "chat"
    RETRIEVAL = "retrieval"
    ROUTING = "routing"
    RUN = "invoke_agent"
    TOOL_CALL = "execute_tool"


class Attribute(StrEnum):
    """What spans and metrics say, besides their names; faos_core/tracing.py says which values pass."""

    AGENT_NAME = "gen_ai.agent.name"
    CLASS = "faos.data_class"
    DOOR = "faos.door"
    ERROR_TYPE = "error.type"  # a code of the error registry
    INPUT_TOKENS = "gen_ai.usage.input_tokens"
    MODEL_NAME = "gen_ai.request.model"  # of the Model resource
    NODE_NAME = "faos.node"
    OPERATION_NAME = "gen_ai.operation.name"
    OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
    REVISION_NUMBER = "faos.revision"
    RPC_METHOD = "rpc.method"
    RPC_STATUS = "rpc.response.status_code"
    RUN_NUMBER = "faos.run.id"
    SIGNAL = "faos.signal"
    SITE_NAME = "faos.site"
    STATE_NAME = "faos.state"
    STEP_NUMBER = "faos.step"
    TENANT_NAME = "faos.tenant"
    TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105  # of a model's tokens
    TOOL_NAME = "gen_ai.tool.name"
    TOOL_SERVER_NAME = "faos.tool_server"


class Resource(StrEnum):
    """Who tells all this."""

    SERVICE_ID = "service.instance.id"
    SERVICE_NAME = "service.name"
    SERVICE_VERSION = "service.version"


class Metric(StrEnum):
    """What is counted and measured. Durations are in seconds."""

    ADMIN_RPC_DURATION = "faos.admin.rpc.duration"
    LEDGER_APPEND_DURATION = "faos.ledger.append.duration"
    LEDGER_COMMIT_DURATION = "faos.ledger.commit.duration"
    LEDGER_LEAVES = "faos.ledger.leaves"
    LEDGER_SIZE = "faos.ledger.size"
    LINK_CONNECTED = "faos.link.connected"
    LINK_ENDS = "faos.link.ends"
    LINK_OFFERS = "faos.link.offers"
    LINK_SENT = "faos.link.sent"
    LINK_SESSIONS = "faos.link.sessions"
    LINK_STATUSES = "faos.link.statuses"
    OFFERS = "faos.offers"
    PUSH_DURATION = "faos.push.duration"
    RUNS_ACTIVE = "faos.runs.active"
    RUNS_FINISHED = "faos.runs.finished"
    RUN_DURATION = "faos.run.duration"
    RUN_TOKENS = "faos.run.tokens"
    RUN_TOOL_CALLS = "faos.run.tool_calls"
    RUN_TURNS = "faos.run.turns"
    SESSIONS_LIVE = "faos.sessions.live"
    STORE_COMMITS = "faos.store.commits"
    STORE_COMMIT_DURATION = "faos.store.commit.duration"
    STORE_WRITES = "faos.store.writes"
    TELEMETRY_DROPPED = "faos.telemetry.dropped"
    TELEMETRY_SENT = "faos.telemetry.sent"
    TURN_DURATION = "faos.turn.duration"
    TURN_FIRST_TOKEN = "faos.turn.first_token.duration"  # noqa: S105  # of a model's answer
