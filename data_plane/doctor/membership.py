"""What the node is, keeps and does: identity, certificate, ledger, and itself when it runs."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import grpc
from cryptography import x509

from data_plane.api.server import channel
from data_plane.doctor.errors import CERTIFICATE_OVER
from data_plane.doctor.subject import Subject
from data_plane.egress.errors import LEDGER_DAMAGED
from data_plane.egress.ledger_verifier import Report, verify
from data_plane.egress.service import ledger_folder
from data_plane.identity.errors import CERTIFICATE_EXPIRING
from data_plane.identity.store import IdentityStore
from faos.site.v1 import site_pb2 as site
from faos.site.v1.site_pb2_grpc import SiteServiceStub
from faos_core.checkup import Check, Finding, Verdict, failed, in_thread, passed, skipped
from faos_core.errors import REGISTRY, IntegrityError, SetupError
from faos_core.site_socket import socket_path
from tunnel.identity import CLOCK_SKEW

CALL_TIMEOUT_S = 5.0
READING_LIMIT_S = 120.0
URGENT = 0.1  # of its lifetime


@dataclass(frozen=True, slots=True)
class OwnState:
    """Checks of one subject."""

    subject: Subject

    def checks(self) -> Iterator[Check]:
        yield Check("identity", self.identity)
        yield Check("certificate", self.certificate)
        yield Check("ledger", self.ledger, time_limit_s=READING_LIMIT_S)
        yield Check("node", self.node)

    async def identity(self) -> Finding:
        if self.subject.member_problem:
            raise self.subject.member_problem
        if self.subject.member is None:
            return skipped("this machine has not joined yet")
        return passed(self.subject.member.identity.spiffe_id)

    async def certificate(self) -> Finding:
        if self.subject.member is None:
            return skipped("this machine has not joined yet")
        leaf = x509.load_pem_x509_certificates(self.subject.member.credentials.chain_pem)[0]
        now, until = self.subject.clock.now(), leaf.not_valid_after_utc
        lifetime = until - leaf.not_valid_before_utc - CLOCK_SKEW
        if now > until:
            return self._over(f"{until:%Y-%m-%d %H:%M}Z")
        if until - now < lifetime * URGENT:
            return failed(SetupError(CERTIFICATE_EXPIRING), Verdict.WARN)
        return passed(f"holds until {until:%Y-%m-%d %H:%M}Z; it renews itself {_after(lifetime)} before")

    def _over(self, until: str) -> Finding:
        if IdentityStore(self.subject.data_dir).recovery():
            next_step = "Start the node: it asks for the next one with its recovery key."
            return failed(SetupError(CERTIFICATE_OVER, until=until, next_step=next_step), Verdict.WARN)
        next_step = "Join again into a new folder: faos join --data NEW_DIR STRING"
        return failed(SetupError(CERTIFICATE_OVER, until=until, next_step=next_step))

    async def ledger(self) -> Finding:
        folder = ledger_folder(self.subject.data_dir)
        if not folder.is_dir():
            return skipped("nothing has left this machine yet")
        report: Report = await in_thread(partial(verify, folder))
        if not report.ok:
            raise IntegrityError(LEDGER_DAMAGED, file=folder, index=report.size, problem=report.problem)
        return passed(f"{report.size} messages, every one there and intact")

    async def node(self) -> Finding:
        """What it says of itself, when it runs."""
        if not socket_path(self.subject.data_dir).exists():
            return skipped(f"it does not run; start it: faos node run --data {self.subject.data_dir}")
        try:
            async with channel(self.subject.data_dir) as to_node:
                said = await SiteServiceStub(to_node).GetStatus(site.GetStatusRequest(), timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError:
            return skipped("it does not answer: it stops, starts, or was killed and left its socket")
        return _told(said)


def _told(said: site.GetStatusResponse) -> Finding:
    if said.HasField("link_problem"):
        problem = said.link_problem
        return Finding(
            Verdict.WARN, f"It runs without its control plane: {problem.what}", problem.why, problem.next_step
        )
    if said.alarms:
        known = REGISTRY.get(said.alarms[0])
        next_step = "See all of it: faos status"
        return Finding(
            Verdict.WARN, f"It has an alarm: {', '.join(said.alarms)}.", known.why if known else "", next_step
        )
    how = "connected" if said.connected else "not connected yet"
    return passed(f"runs, {how}; revision {said.running_revision} runs, {said.healthy_revision} is last known good")


def _after(lifetime: timedelta) -> str:
    hours = lifetime.total_seconds() / 2 / 3600
    return f"about {hours:.0f} h" if hours >= 1 else f"about {hours * 60:.0f} min"
