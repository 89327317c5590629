"""Which ports are taken, and what that means for a node that has joined already."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from faos_cli.up.ports import choose, choose_tunnel_port, is_free
from faos_core.errors import ConflictError


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen(1)
        yield holder.getsockname()[1]


def test_a_taken_preference_gives_way_to_a_free_port(taken: int) -> None:
    """The usual number is a convenience, not a promise."""
    chosen = choose(0, taken, option="--admin-port")

    assert chosen != taken
    assert is_free(chosen)


def test_a_port_that_is_chosen_is_none_that_whoever_dials_is_given(taken: int) -> None:
    """The node is enrolled at it, and any connection of the machine could have it at the next start."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])

    assert max(choose(0, taken, option="--admin-port") for _ in range(20)) < lowest


def test_a_port_that_was_asked_for_does_not_give_way(taken: int) -> None:
    """Who names a port wants that one."""
    with pytest.raises(ConflictError) as refusal:
        choose(taken, 7443, option="--tunnel-port")

    assert str(taken) in refusal.value.what
    assert "--tunnel-port" in refusal.value.next_step


def test_both_servers_never_share_a_port(taken: int) -> None:
    """Asked for or preferred: the other one is spoken for."""
    free = choose(0, taken, option="")

    assert choose(0, free, option="", but=free) != free
    with pytest.raises(ConflictError):
        choose(free, 0, option="--admin-port", but=free)


def test_an_enrolled_node_decides_the_tunnel_port(taken: int) -> None:
    """Its address is in its identity: elsewhere it would never be found."""
    free = choose(0, taken, option="")

    assert choose_tunnel_port(0, enrolled=free, remembered=taken) == free
    for refused in ((free + 1, free), (0, taken)):
        with pytest.raises(ConflictError):
            choose_tunnel_port(refused[0], enrolled=refused[1], remembered=0)
