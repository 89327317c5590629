"""Whether this node takes what was signed: schema, references, and the site's ceiling, judged again on the node."""

from collections.abc import Mapping, Sequence

from data_plane.ceiling.check import check, check_count
from data_plane.ceiling.models import Ceiling
from data_plane.link.approval import first_unapproved
from data_plane.link.interfaces import Configuration, ConfigurationError
from data_plane.link.nacks import refusal
from faos.resource.v1.resource_pb2 import Resource
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos.tunnel.v1.tunnel_pb2 import NackCode
from faos_core import resource_validation as validation
from faos_core.kinds import field_path_numbers, kind_of

# Everything else that validation finds is SPEC_INVALID.
CODES: Mapping[str, NackCode.ValueType] = {
    validation.REFERENCE_MISSING.code: tunnel.NACK_CODE_REFERENCE_MISSING,
    validation.REFERENCE_ELSEWHERE.code: tunnel.NACK_CODE_REFERENCE_MISSING,
    validation.NAMES_A_PLACE.code: tunnel.NACK_CODE_NAME_NOT_IN_CEILING,
    validation.TOO_LARGE.code: tunnel.NACK_CODE_TOO_LARGE,
    validation.KIND_MISSING.code: tunnel.NACK_CODE_KIND_UNKNOWN,
}


def admit(resources: Sequence[Resource], ceiling: Ceiling, before: Configuration) -> None:
    """Nothing, when all of them may run here together.

    resources: what this node selected, so a reference to what its labels do not select is missing too. before: last
    known good, which the site has taken already.
    Raises ConfigurationError for the first thing wrong: KIND_UNKNOWN, SPEC_INVALID, TOO_LARGE, REFERENCE_MISSING,
    NAME_NOT_IN_CEILING, APPROVAL_REQUIRED.
    """
    for violation in validation.validate(resources):
        raise _refused(violation, resources)
    for resource in resources:
        if nack := check(resource, ceiling):
            raise ConfigurationError(nack)
    if nack := check_count(resources, ceiling):
        raise ConfigurationError(nack)
    if nack := first_unapproved(resources, before, ceiling.approval_required):
        raise ConfigurationError(nack)


def _refused(violation: validation.Violation, resources: Sequence[Resource]) -> ConfigurationError:
    named = (violation.kind, violation.name)
    resource = next(each for each in resources if (kind_of(each), each.metadata.name) == named)
    has_spec = resource.WhichOneof("spec") is not None  # a path leads through it
    path = field_path_numbers(violation.field_path, resource) if has_spec else ()
    code = CODES.get(violation.code, tunnel.NACK_CODE_SPEC_INVALID)
    return refusal(code, kind=violation.kind, name=violation.name, path=path)
