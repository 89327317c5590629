"""Whether this node takes what was signed: schema, references, and the site's ceiling, judged again on the node."""

from collections.abc import Iterable, Iterator, Sequence

from data_plane.ceiling.check import check
from data_plane.ceiling.models import Ceiling
from data_plane.link.interfaces import ConfigurationError
from data_plane.link.nacks import refusal
from faos.resource.v1 import resource_pb2
from faos.resource.v1.resource_pb2 import Kind, Resource
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core.kinds import field_path_numbers, kind_of

Name = tuple[Kind.ValueType, str]


def admit(resources: Sequence[Resource], ceiling: Ceiling) -> None:
    """Nothing, when all of them may run here together.

    Raises ConfigurationError, the first in order of resources: SPEC_INVALID, REFERENCE_MISSING (also for what
    exists, but not for the labels of this node), NAME_NOT_IN_CEILING, APPROVAL_REQUIRED.
    """
    present = {(kind_of(resource), resource.metadata.name) for resource in resources}
    for resource in resources:
        _check_references(resource, present)
        if nack := check(resource, ceiling):
            raise ConfigurationError(nack)


def _check_references(resource: Resource, present: Iterable[Name]) -> None:
    for path, target in _references(resource):
        if target not in present:
            raise _refused(resource, tunnel.NACK_CODE_REFERENCE_MISSING, path)


def _references(resource: Resource) -> Iterator[tuple[str, Name]]:
    """(field path, what it names) of each reference from this resource to another."""
    if resource.WhichOneof("spec") != "agent":
        return
    agent = resource.agent
    yield "spec.model", (resource_pb2.KIND_MODEL, agent.model)
    lists = {
        "knowledge": (resource_pb2.KIND_KNOWLEDGE_BASE, agent.knowledge),
        "tools": (resource_pb2.KIND_TOOL_SERVER, agent.tools),
        "policies": (resource_pb2.KIND_POLICY, agent.policies),
    }
    for name, (kind, targets) in lists.items():
        yield from ((f"spec.{name}[{index}]", (kind, target)) for index, target in enumerate(targets))


def _refused(resource: Resource, code: tunnel.NackCode.ValueType, path: str) -> ConfigurationError:
    numbers = field_path_numbers(path, resource)
    return refusal(code, kind=kind_of(resource), name=resource.metadata.name, path=numbers)
