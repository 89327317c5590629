"""Hosts of two families, of which one may lead nowhere; on both event loops that dial."""

import asyncio
import socket
from collections.abc import Callable

import pytest
import uvloop

from data_plane.egress.dialing import Place, alternating, dial

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


def place(family: socket.AddressFamily, host: str, port: int = 1) -> Place:
    return family, socket.SOCK_STREAM, 6, "", (host, port)


def test_families_take_turns() -> None:
    """A network whose IPv6 swallows everything costs a moment, and not one for each of its addresses."""
    sixes = [place(socket.AF_INET6, f"::{number}") for number in range(3)]
    fours = [place(socket.AF_INET, "10.0.0.1")]

    assert alternating([*sixes, *fours]) == [sixes[0], fours[0], sixes[1], sixes[2]]
    assert alternating([*fours, *sixes]) == [fours[0], *sixes]


@pytest.mark.parametrize("loop", LOOPS)
def test_host_is_reached_by_the_family_that_answers(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Nobody at the one, a server at the other."""

    async def exchange() -> bytes:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.readline())
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            reader, writer = await dial("localhost", port)  # ::1 and 127.0.0.1, where a machine has both
            writer.write(b"hello\n")
            said = await reader.read()
            writer.close()
            return said

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(exchange()) == b"hello\n"


@pytest.mark.parametrize("loop", LOOPS)
def test_host_that_nobody_answers_at_is_said_to_refuse(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """The reason is the operating system's own, for the message that a person reads."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and not listening
        port = taken.getsockname()[1]

        with asyncio.Runner(loop_factory=loop) as runner, pytest.raises(ConnectionRefusedError):
            runner.run(dial("127.0.0.1", port))


@pytest.mark.parametrize("loop", LOOPS)
def test_name_that_nobody_knows_is_an_error_of_the_system(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Callers tell what is an OSError."""
    with asyncio.Runner(loop_factory=loop) as runner, pytest.raises(socket.gaierror):
        runner.run(dial("nowhere.invalid", 1))
