"""Which permission each RPC takes, from its own declaration in the proto."""

from collections.abc import Mapping
from types import MappingProxyType

from faos.admin.v1 import admin_pb2
from faos.options.v1 import options_pb2

PUBLIC_SERVICES = (
    "grpc.health.v1.Health",
    "grpc.reflection.v1alpha.ServerReflection",
    "grpc.reflection.v1.ServerReflection",
)
READ = ".read"


def declared_permissions() -> Mapping[str, str]:
    """ "/package.Service/Method" → permission, for every admin RPC that declares one."""
    return MappingProxyType(
        {
            f"/{service.full_name}/{method.name}": permission
            for service in admin_pb2.DESCRIPTOR.services_by_name.values()
            for method in service.methods
            if (permission := method.GetOptions().Extensions[options_pb2.permission])
        }
    )


def is_public(method: str) -> bool:
    """Whether anybody may call "/package.Service/Method"."""
    return method.split("/")[1] in PUBLIC_SERVICES


def is_mutation(permission: str) -> bool:
    """Whether what takes this permission changes something."""
    return not permission.endswith(READ)
