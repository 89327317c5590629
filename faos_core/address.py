"""Where something listens: host and port, with the brackets that IPv6 needs (RFC 3986, section 3.2.2)."""

from dataclasses import dataclass

HIGHEST_PORT = 65535


@dataclass(frozen=True, slots=True)
class Address:
    """Printed as it is typed: cloud.example:7443, 192.0.2.7:7443, [2001:db8::7]:7443."""

    host: str  # without brackets
    port: int  # 0: any free one, where one listens

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str, *, lowest_port: int = 1) -> Address:
    """Raises ValueError unless it is host:port or [IPv6]:port."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    bare = host[1:-1] if bracketed else host
    host_holds = bool(bare) and (":" in bare) == bracketed and bare.isprintable() and not set(bare) & set(" []/@")
    port_holds = port.isascii() and port.isdecimal() and lowest_port <= int(port) <= HIGHEST_PORT
    if not (colon and host_holds and port_holds):
        raise ValueError(f"must be host:port or [IPv6]:port, the port from {lowest_port} to {HIGHEST_PORT}")
    return Address(bare, int(port))


def local_address(listen: str, port: int) -> Address:
    """Where this machine itself reaches what listens there. port: the one that was taken, for a listen port of 0."""
    host = parse_address(listen, lowest_port=0).host
    return Address({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port)  # noqa: S104  # compared, not bound
