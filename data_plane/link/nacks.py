"""Refusals of an offer, as the exception that carries the NACK."""

from collections.abc import Sequence

from data_plane.link.interfaces import ConfigurationError
from faos.resource.v1 import resource_pb2
from faos.tunnel.v1 import tunnel_pb2 as tunnel


def refusal(
    code: tunnel.NackCode.ValueType,
    *,
    kind: resource_pb2.Kind.ValueType = resource_pb2.KIND_UNSPECIFIED,
    name: str = "",
    path: Sequence[int] = (),
) -> ConfigurationError:
    """To be raised. The state that could not be reached is filled in by the apply machine."""
    return ConfigurationError(tunnel.Nack(code=code, kind=kind, resource_name=name, field_path=path))
