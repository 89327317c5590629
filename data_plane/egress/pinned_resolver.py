"""Name → addresses for one endpoint: one look-up a connection, and none that a name has no business with."""

import asyncio
import ipaddress
import socket

from aiohttp.abc import AbstractResolver, ResolveResult

LOCAL_NAMES = frozenset({"localhost"})


class PinnedResolver(AbstractResolver):
    """Resolves the endpoint's own host and no other. A connection goes to an address of its one look-up.

    A name that the site wrote for a machine of its network must not turn into this machine (DNS rebinding) or into the
    cloud metadata service: loopback, link-local, multicast and unspecified addresses are only for who names them.
    """

    def __init__(self, host: str) -> None:
        self._host = host

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Raises OSError: another host, no address, or none that may be used."""
        if host != self._host:
            raise OSError(None, "not the endpoint's host")
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        usable = [(kind, str(place[0])) for kind, _, _, _, place in found if may_be(host, str(place[0]))]
        if not usable:
            raise OSError(None, "no address that this name may have")
        return [
            ResolveResult(hostname=host, host=address, port=port, family=kind, proto=0, flags=socket.AI_NUMERICHOST)
            for kind, address in usable
        ]

    async def close(self) -> None:
        """Nothing is held."""


def may_be(host: str, address: str) -> bool:
    """Whether a name may stand for this address. Addresses that the ceiling itself spells out never come here."""
    found: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(address.split("%")[0])
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    if host in LOCAL_NAMES:
        return found.is_loopback
    return not (found.is_loopback or found.is_link_local or found.is_multicast or found.is_unspecified)
