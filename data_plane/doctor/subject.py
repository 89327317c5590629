"""What the doctor looks at: a node's settings and what is known of its control plane. Reads; changes nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from data_plane.egress.authorities import Authorities
from data_plane.egress.proxy import Proxy, open_proxy
from data_plane.identity.store import IdentityStore, Membership
from data_plane.network import Network
from data_plane.settings import NodeSettings
from faos_core.address import Address
from faos_core.clock import Clock
from faos_core.errors import FaosError
from tunnel.identity import decode_join_string


@dataclass(frozen=True, slots=True)
class Subject:
    """A node that joined, or a machine that is about to."""

    settings: NodeSettings
    network: Network
    clock: Clock
    addresses: tuple[str, ...] = ()  # of the control plane, as the join string had them
    ca_der: bytes = b""  # empty: not known yet
    member: Membership | None = None
    member_problem: FaosError | None = None

    @property
    def ca(self) -> x509.Certificate | None:
        return x509.load_der_x509_certificate(self.ca_der) if self.ca_der else None

    @property
    def data_dir(self) -> Path:
        return self.settings.data_dir

    def proxy(self, authorities: Authorities) -> Proxy | None:
        """One that records nothing: what the doctor does is a person's doing, not the node's. Raises SetupError."""
        return open_proxy(self.network, authorities)


def subject_of(settings: NodeSettings, network: Network, clock: Clock, join_string: str = "") -> Subject:
    """join_string: of a node that is about to join; else what the data folder says. Blocking.

    Raises InvalidError (the string).
    """
    if join_string:
        string = decode_join_string(join_string)
        return Subject(settings, network, clock, tuple(string.addresses), string.ca_certificate_der)
    try:
        member = IdentityStore(settings.data_dir).load()
    except FaosError as error:
        return Subject(settings, network, clock, member_problem=error)
    return Subject(settings, network, clock, member.addresses, member.ca_der, member)


def through(address: Address, proxy: Proxy | None) -> str:
    """For a sentence."""
    return f"{address} through the proxy {proxy.address}" if proxy else str(address)


def listed(items: Sequence[object]) -> str:
    return ", ".join(map(str, items))
