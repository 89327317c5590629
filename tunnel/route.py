"""How connections leave for the control plane, as far as the tunnel has to know."""

from typing import Protocol

from faos_core.errors import FaosError


class Route(Protocol):
    """Implemented by data_plane.egress.route."""

    async def target(self, address: str) -> str:
        """What gRPC dials to reach this address (host:port). Raises FaosError."""

    async def explain(self, address: str, error: FaosError, ca_pem: bytes) -> FaosError:
        """Why no connection came up, where more can be seen than `error` says; else `error`. Never raises FaosError."""


class Direct:
    """Straight to the address, and no second look."""

    async def target(self, address: str) -> str:
        return address

    async def explain(self, address: str, error: FaosError, ca_pem: bytes) -> FaosError:
        return error
