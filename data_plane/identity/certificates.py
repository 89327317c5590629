"""The node's certificates over time. Implements tunnel.client.Certificates.

A new pair is on the disk, whole, before it is used, and the old pair stays until a session has opened with the new
one; one rename then makes it the current one. So a crash at any point leaves a pair that works.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from datetime import datetime

from cryptography import x509

from data_plane.identity.errors import CERTIFICATE_EXPIRING
from data_plane.identity.schedule import Schedule
from data_plane.identity.store import IdentityStore
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core import names
from faos_core.clock import Clock
from faos_core.lifecycle import undivided
from tunnel.egress import Allow
from tunnel.enrolment import accept_renewal
from tunnel.identity import CLOCK_SKEW, certificate_request, new_key
from tunnel.tls import Credentials

log = logging.getLogger(__name__)


class NodeCertificates:
    """Belongs to one event loop. `allow` tells the gate which requests this node made."""

    def __init__(self, store: IdentityStore, clock: Clock, *, allow: Allow, rng: random.Random | None = None) -> None:
        self._store = store
        self._clock = clock
        self._allow = allow
        self._rng = rng or random.Random()  # noqa: S311  # spreads load, keeps no secret
        self._current = store.load().credentials
        self._next = store.load_next()
        self._identity = store.load().identity
        self._schedule = self._begin(self._current)
        self._failures = 0
        self._not_before_s = 0.0

    def for_dialling(self) -> Credentials:
        """The next pair when there is one: whether it came into use is for the control plane to say."""
        return self._next or self._current

    async def welcomed(self, used: Credentials) -> None:
        """A session opened with this pair."""
        if used == self._next:
            await undivided(asyncio.to_thread(self._store.promote))
            self._current, self._next = used, None
            self._failures = 0
            log.info("certificate.renewed", extra={names.NODE: self._identity.node})

    async def refused(self, used: Credentials) -> bool:
        """The control plane does not honour this pair. Whether there is another to try."""
        if used != self._next:
            return False
        await undivided(asyncio.to_thread(self._store.discard_next))
        self._next = None
        self._schedule = self._begin(self._current)
        return True

    async def due(self) -> None:
        """Return when it is time to ask for the next certificate. Cancel-safe."""
        while not self._is_due():
            await self._clock.sleep(self._schedule.look_again_s())

    async def renew(self, ask: Callable[[bytes], Awaitable[tunnel.RenewResponse]]) -> None:
        """Ask for a certificate for a new key, and keep it as the next pair. Raises FaosError, OSError."""
        self._failures += 1
        self._not_before_s = self._clock.monotonic_s() + self._schedule.retry_s(self._failures, self._rng)
        key = new_key()
        csr_der = certificate_request(key)
        self._allow(csr_der)
        answer = await ask(csr_der)
        renewed = accept_renewal(answer, self._identity.spiffe_id, key, self._current.ca_pem)
        await undivided(asyncio.to_thread(self._store.put_next, renewed))
        self._next, self._schedule = renewed, self._begin(renewed)

    def recovery(self) -> Credentials | None:
        """What asks for a certificate when the one in hand has expired; None while it holds, or without such a key."""
        over = self._schedule.is_over(self._clock.now(), self._clock.monotonic_s())
        return self._store.recovery() if over else None

    async def recover(self, ask: Callable[[int, bytes], Awaitable[tunnel.RenewResponse]]) -> None:
        """As `renew`, under a counter that was never used. Raises FaosError, OSError."""
        counter = await undivided(asyncio.to_thread(self._store.next_recovery_counter))

        async def counted(csr_der: bytes) -> tunnel.RenewResponse:
            return await ask(counter, csr_der)

        await self.renew(counted)

    def expires_at(self) -> datetime:
        """Of the certificate in use."""
        return x509.load_pem_x509_certificates(self._current.chain_pem)[0].not_valid_after_utc

    def alarms(self) -> tuple[str, ...]:
        """Codes of the registry that need somebody's attention."""
        urgent = self._schedule.is_urgent(self._clock.now(), self._clock.monotonic_s())
        return (CERTIFICATE_EXPIRING.code,) if urgent else ()

    def _is_due(self) -> bool:
        now_s = self._clock.monotonic_s()
        return now_s >= self._not_before_s and self._schedule.is_due(self._clock.now(), now_s)

    def _begin(self, credentials: Credentials) -> Schedule:
        certificate = x509.load_pem_x509_certificates(credentials.chain_pem)[0]
        made_at = certificate.not_valid_before_utc + CLOCK_SKEW
        lifetime_s = max(1.0, (certificate.not_valid_after_utc - made_at).total_seconds())
        wall = self._clock.now()
        fresh = credentials is not self._current  # just answered: its age is 0, whatever this machine's clock says
        age_s = 0.0 if fresh else (wall - made_at).total_seconds()
        return Schedule.begin(lifetime_s, age_s, wall=wall, monotonic_s=self._clock.monotonic_s(), rng=self._rng)
