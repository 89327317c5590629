"""Whether a resource from the cloud stays under the site's ceiling."""

from collections.abc import Iterable

from data_plane.ceiling.models import Ceiling, DoorCeiling
from faos.resource.v1.resource_pb2 import MODEL_RUNTIME_OLLAMA, Resource
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos.tunnel.v1.tunnel_pb2 import Nack
from faos_core.kinds import BY_FIELD, field_path_numbers

MCP_DOOR = "mcp-http"


def check(resource: Resource, ceiling: Ceiling) -> Nack | None:
    """The NACK for what the site does not allow, None for what it does.

    A reference to what the site defines must be one of its names, exactly: a path, a host or a command is no
    name of anything, so it gets NAME_NOT_IN_CEILING like any other stranger. Limits of agents above the
    ceiling are lowered when a run starts, not refused here.
    """
    for field, name, allowed in _references(resource, ceiling):
        if name not in allowed:
            return _nack(resource, tunnel.NACK_CODE_NAME_NOT_IN_CEILING, path=f"spec.{field}")
    if resource.model.context_tokens > ceiling.limits.context_tokens:
        return _nack(resource, tunnel.NACK_CODE_ABOVE_CEILING, path="spec.contextTokens")
    if resource.tool_server.endpoint and not takes_customer_data(resource.tool_server.endpoint, ceiling):
        return _nack(resource, tunnel.NACK_CODE_ABOVE_CEILING, path="spec.endpoint")
    return None


def check_count(resources: Iterable[Resource], ceiling: Ceiling) -> Nack | None:
    """The NACK for the first tool server, by name, that is one too many."""
    servers = sorted((it for it in resources if it.HasField("tool_server")), key=lambda it: it.metadata.name)
    beyond = servers[ceiling.limits.tool_servers :]
    return _nack(beyond[0], tunnel.NACK_CODE_ABOVE_CEILING, path="") if beyond else None


def takes_customer_data(endpoint: str, ceiling: Ceiling) -> bool:
    """Whether a tool can be called there at all: what a model puts into a call may be a customer's."""
    door = ceiling.doors.get(MCP_DOOR, DoorCeiling.CUSTOMER)
    return door is ceiling.endpoints[endpoint].data_class is DoorCeiling.CUSTOMER


def _references(resource: Resource, ceiling: Ceiling) -> Iterable[tuple[str, str, Iterable[str]]]:
    """(field, name in it, names that the site defines) of each field that refers to the ceiling."""
    match resource.WhichOneof("spec"):
        case "model":
            remote = resource.model.runtime == MODEL_RUNTIME_OLLAMA
            yield "source", resource.model.source, ceiling.endpoints if remote else ceiling.models
        case "tool_server":
            server = resource.tool_server
            if server.endpoint:
                yield "endpoint", server.endpoint, ceiling.endpoints
            else:
                yield "program", server.program, ceiling.programs
        case "knowledge_base":
            yield "folder", resource.knowledge_base.folder, ceiling.folders


def _nack(resource: Resource, code: tunnel.NackCode.ValueType, *, path: str) -> Nack:
    kind = BY_FIELD[resource.WhichOneof("spec") or ""].kind
    name = resource.metadata.name
    return Nack(code=code, kind=kind, resource_name=name, field_path=field_path_numbers(path, resource))
