"""Addresses as people type them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faos_core.address import Address, local_address, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("cloud.example:7443", Address("cloud.example", 7443)),
        ("192.0.2.7:1", Address("192.0.2.7", 1)),
        ("[::1]:65535", Address("::1", 65535)),
        ("[fe80::1%eth0]:7443", Address("fe80::1%eth0", 7443)),
    ],
)
def test_address_is_read_and_written_alike(text: str, address: Address) -> None:
    """What a join string carries is what is dialled and what the ledger says."""
    assert parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host",
        "host:",
        ":7443",
        "host:0",
        "host:65536",
        "host:x",
        "::1:7443",
        "[]:1",
        "[host]:1",
        "ho st:1",
        "u@host:1",
        "host/x:1",
        "[::1]7443",
        "[[::1]]:1",
        "host:²",
        "host\n:1",
        "host:+1",
    ],
)
def test_what_nobody_could_dial_is_refused(text: str) -> None:
    """A header or a log line is made of it."""
    with pytest.raises(ValueError):
        parse_address(text)


@given(st.text())
def test_whatever_is_taken_comes_out_again(text: str) -> None:
    """No two texts may mean one place, and none may carry a line of its own into a request."""
    try:
        address = parse_address(text)
    except ValueError:
        return
    assert parse_address(str(address)) == address
    assert address.host.isprintable()
    assert " " not in address.host


@pytest.mark.parametrize(
    ("listen", "reached"),
    [
        ("0.0.0.0:0", "127.0.0.1:9"),
        ("[::]:7443", "[::1]:9"),
        ("[::1]:7443", "[::1]:9"),
        ("192.0.2.7:7443", "192.0.2.7:9"),
    ],
)
def test_own_servers_are_reached_where_they_listen(listen: str, reached: str) -> None:
    """A join string for this machine names an address on which somebody listens."""
    assert str(local_address(listen, 9)) == reached
