"""The way to the control plane: name, port, proxy, who answers, what time it is there."""

import asyncio
import errno
import ipaddress
import socket
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from cryptography import x509

from data_plane.doctor.errors import CREDENTIALS_OPEN, NAME_UNKNOWN, PORT_CLOSED
from data_plane.doctor.subject import Subject, listed, through
from data_plane.egress.authorities import load_authorities
from data_plane.egress.proxy import Proxy, str_of
from data_plane.egress.route import place_of
from data_plane.egress.tls_probe import judge, look, reach
from faos_core import machine
from faos_core.address import Address
from faos_core.checkup import Check, Finding, Verdict, failed, in_thread, passed, skipped
from faos_core.errors import FaosError, SetupError, UnavailableError
from tunnel.identity import CLOCK_SKEW

TOLERANCE = timedelta(minutes=2)
CAUSES = {
    errno.ECONNREFUSED: "The machine is there, and nothing listens on that port; or a firewall refuses it.",
    errno.ENETUNREACH: "This machine has no route to there.",
    errno.EHOSTUNREACH: "No machine answers at that address, or a firewall says so.",
}


@dataclass(frozen=True, slots=True)
class Link:
    """Checks of one subject."""

    subject: Subject

    def checks(self) -> Iterator[Check]:
        yield Check("authorities", self.authorities)
        yield Check("proxy", self.proxy)
        for address in self.subject.addresses:
            yield Check("dns", partial(self.dns, address), address)
            yield Check("port", partial(self.port, address), address)
            yield Check("tls", partial(self.tls, address), address)
        yield Check("clock", self.clock)

    async def authorities(self) -> Finding:
        folder = self.subject.network.ca_dir
        if folder is None:
            return passed("the system's only; the tunnel trusts the CA of the join string and nobody else")
        found = await in_thread(partial(load_authorities, folder, self.subject.clock.now()))
        if found.expired:
            return failed(found.expired[0].error(), Verdict.WARN)
        return passed(f"the system's, and those in {folder}")

    async def proxy(self) -> Finding:
        """Whether it lets this node through to every address."""
        proxy = await self._proxy()
        if proxy is None:
            return skipped("none is set; the node goes straight to the control plane")
        if not self.subject.addresses:
            return skipped("there is no control plane yet to which it should let this node through")
        for address in self.subject.addresses:
            await self._reach(place_of(address), proxy)
        file = self.subject.network.proxy_credentials_file
        if file and file.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
            return failed(SetupError(CREDENTIALS_OPEN, file=file), Verdict.WARN)
        return passed(f"{proxy.address} lets this node through to {listed(self.subject.addresses)}")

    async def dns(self, address: str) -> Finding:
        place, proxy = place_of(address), await self._proxy()
        if proxy:
            return skipped("the proxy looks it up")
        if is_literal(place.host):
            return skipped("it is an address, no name")
        try:
            found = await asyncio.get_running_loop().getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise UnavailableError(NAME_UNKNOWN, host=place.host, reason=str_of(error)) from error
        return passed(listed(list(dict.fromkeys(str(each[4][0]) for each in found))))

    async def port(self, address: str) -> Finding:
        place = place_of(address)
        if await self._proxy():
            return skipped("the proxy connects to it; see proxy")
        began_s = time.monotonic()
        await self._reach(place, None)
        return passed(f"connected in {(time.monotonic() - began_s) * 1000:.0f} ms")

    async def tls(self, address: str) -> Finding:
        place, proxy = place_of(address), await self._proxy()
        try:
            answerer = await look(place, proxy=proxy)
        except (OSError, TimeoutError):
            return skipped("there is no connection; see port")
        except FaosError as error:
            if error.code.code.startswith("proxy."):
                return skipped("there is no connection; see proxy")
            raise
        ca = self.subject.ca
        if ca is None:
            return skipped("without a join string, nobody can say whose certificate it should be")
        if problem := judge(answerer, place, ca, self.subject.clock.now()):
            raise problem
        return passed(f"the control plane of this node answers at {through(place, proxy)} ({answerer.tls_version})")

    async def clock(self) -> Finding:
        """Against what the control plane has signed, as far as it can be had now."""
        theirs = await self._server_certificates()
        made = [each.not_valid_before_utc + CLOCK_SKEW - TOLERANCE for each in (*theirs, *self._own_certificate())]
        latest = min((each.not_valid_after_utc for each in theirs), default=None)
        return machine.clock(self.subject.clock.now(), max(made, default=None), latest)

    async def _server_certificates(self) -> list[x509.Certificate]:
        """Of those who answer now and are by the right CA."""
        found, ca = [], self.subject.ca
        for address in self.subject.addresses if ca else ():
            try:
                answerer = await look(place_of(address), proxy=await self._proxy())
            except (FaosError, OSError, TimeoutError):
                continue
            if ca and answerer.is_by(ca):
                found.append(answerer.leaf)
        return found

    def _own_certificate(self) -> list[x509.Certificate]:
        member = self.subject.member
        return x509.load_pem_x509_certificates(member.credentials.chain_pem)[:1] if member else []

    async def _proxy(self) -> Proxy | None:
        """Raises SetupError."""
        folder = self.subject.network.ca_dir
        authorities = await in_thread(partial(load_authorities, folder, self.subject.clock.now()))
        return self.subject.proxy(authorities)

    async def _reach(self, place: Address, proxy: Proxy | None) -> None:
        """Raises UnavailableError, FaosError of the proxy."""
        try:
            await reach(place, proxy=proxy)
        except TimeoutError as error:
            cause = "Nothing comes back: a firewall drops it, or there is no such machine."
            raise UnavailableError(PORT_CLOSED, address=place, reason="no answer", cause=cause) from error
        except socket.gaierror as error:
            raise UnavailableError(NAME_UNKNOWN, host=place.host, reason=str_of(error)) from error
        except OSError as error:
            cause = CAUSES.get(error.errno or 0, "The system says no more.")
            raise UnavailableError(PORT_CLOSED, address=place, reason=str_of(error), cause=cause) from error


def is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
