"""A connection to a host of either family: the other of IPv4 and IPv6 is tried soon when the first does not answer.
Source: RFC 8305. Not every event loop has a way of its own to do it."""

import asyncio
import socket
import ssl
from asyncio.staggered import staggered_race
from collections.abc import Sequence
from functools import partial
from typing import Any

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Place = tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]  # as getaddrinfo says it
NEXT_AFTER_S = 0.25


async def dial(host: str, port: int, *, tls: ssl.SSLContext | None = None) -> Streams:
    """Connected, and with TLS the handshake done. Raises OSError (ssl.SSLError among them). Cancel-safe."""
    places = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    attempts = [partial(_connected, place) for place in alternating(places)]
    winner, _, failures = await staggered_race(attempts, NEXT_AFTER_S)
    if winner is None:
        raise next(each for each in failures if each is not None)
    try:
        return await asyncio.open_connection(sock=winner, ssl=tls, server_hostname=host if tls else None)
    except BaseException:
        winner.close()
        raise


def alternating(places: Sequence[Place]) -> list[Place]:
    """The first one's family first, then the other, and so on: half of them may lead nowhere."""
    first = [place for place in places if place[0] == places[0][0]]
    others = [place for place in places if place[0] != places[0][0]]
    ranked = [(rank, 0, place) for rank, place in enumerate(first)] + [(rank, 1, it) for rank, it in enumerate(others)]
    return [place for _, _, place in sorted(ranked, key=lambda it: it[:2])]


async def _connected(place: Place) -> socket.socket:
    family, kind, protocol, _, address = place
    made = socket.socket(family, kind, protocol)
    try:
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, address)
    except BaseException:
        made.close()
        raise
    return made
