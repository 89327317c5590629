"""The tunnel's way out: straight, or through the network's proxy. Implements tunnel.route.Route."""

import logging

from cryptography import x509

from data_plane.egress.relay import Relay
from data_plane.egress.tls_probe import judge, look
from faos_core import names
from faos_core.address import Address, parse_address
from faos_core.clock import Clock
from faos_core.errors import FaosError, InvalidError
from tunnel.errors import ADDRESS_MALFORMED, CONTROL_PLANE_UNREACHABLE

log = logging.getLogger(__name__)

TLS_WORDS = ("ssl", "handshake", "certificate", "socket closed", "reset by peer", "end of tcp stream", "eof")


class TunnelRoute:
    """Any number of dials at once. `relay` is open for as long as this is used."""

    def __init__(self, clock: Clock, relay: Relay | None = None) -> None:
        self._clock = clock
        self._relay = relay

    async def target(self, address: str) -> str:
        """Raises InvalidError, SetupError."""
        place = place_of(address)
        return f"unix:{await self._relay.listen(place)}" if self._relay else address

    async def explain(self, address: str, error: FaosError, ca_pem: bytes) -> FaosError:
        """Looks for itself only where it was TLS that failed: a control plane that is merely down is left alone."""
        if error.code is not CONTROL_PLANE_UNREACHABLE:
            return error
        place = place_of(address)
        if self._relay and (failure := self._relay.failure(place)):
            return failure
        if not is_about_tls(str(error.fields.get("details", ""))):
            return error
        try:
            answerer = await look(place, proxy=self._relay.proxy if self._relay else None)
        except FaosError as seen:
            return seen
        except (OSError, TimeoutError):
            return error
        found = judge(answerer, place, x509.load_pem_x509_certificate(ca_pem), self._clock.now())
        log.info("tls.looked", extra={names.ADDRESS: address, names.ISSUER: answerer.issuer})
        return found or error


def place_of(address: str) -> Address:
    """Raises InvalidError."""
    try:
        return parse_address(address)
    except ValueError as error:
        raise InvalidError(ADDRESS_MALFORMED, address=address) from error


def is_about_tls(details: str) -> bool:
    """Whether gRPC's words say that a connection came up and no session did."""
    return any(word in details.lower() for word in TLS_WORDS)
