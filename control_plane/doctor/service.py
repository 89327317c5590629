"""All checks of a control plane on this machine, for `faos doctor --control-plane`. Reads; changes nothing."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa
from cryptography import x509

from control_plane.doctor.errors import (
    AUTHORITY_OVER,
    DATABASE_DAMAGED,
    PORT_NOT_TAKEN,
    PUBLIC_ADDRESS_DEAD,
    SCHEMA_MISSING,
)
from control_plane.identity.errors import CA_INCOMPLETE
from control_plane.settings import ENDPOINTS_FILE, ControlPlaneSettings
from faos_core import machine
from faos_core.address import Address, local_address, parse_address
from faos_core.checkup import Check, Finding, Verdict, failed, in_thread, passed, skipped
from faos_core.clock import Clock
from faos_core.errors import IntegrityError, SetupError, UnavailableError
from faos_core.store import dialect_for
from faos_core.store_dialect import Dialect
from tunnel.identity import CLOCK_SKEW, load_key

CONNECT_TIMEOUT_S = 5.0
EXPIRES_SOON = timedelta(days=180)


def checks_of(settings: ControlPlaneSettings, clock: Clock) -> list[Check]:
    own = ControlPlane(settings, clock)
    return [*own.checks(), *machine.disk_checks(settings.data_dir)]


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """Checks of one."""

    settings: ControlPlaneSettings
    clock: Clock

    def checks(self) -> Iterator[Check]:
        yield Check("clock", self.time)
        yield Check("database", self.database)
        yield Check("authority", self.authority)
        for setting in ("tunnel_listen", "admin_listen"):
            yield Check("port", partial(self.port, setting), setting)
        for address in self.settings.public_addresses:
            yield Check("public address", partial(self.public_address, address), address)

    async def time(self) -> Finding:
        certificate = await in_thread(self._certificate)
        earliest = certificate.not_valid_before_utc + CLOCK_SKEW if certificate else None
        return machine.clock(self.clock.now(), earliest, None)

    async def database(self) -> Finding:
        return await in_thread(self._database)

    def _database(self) -> Finding:
        url, dialect = sa.make_url(self.settings.database), dialect_for(self.settings.database)
        if url.get_backend_name() != "sqlite":
            return self._looked_into(dialect, dialect.engine(pool_size=1, writable=False))
        if not Path(url.database or "").exists():
            return skipped("there is none yet; the first start makes it")
        read_only = f"sqlite:///file:{quote(url.database or '')}?mode=ro&uri=true"
        return self._looked_into(dialect, sa.create_engine(read_only, hide_parameters=True))

    def _looked_into(self, dialect: Dialect, engine: sa.Engine) -> Finding:
        """Closes the engine."""
        try:
            with engine.connect() as connection:
                revision = self._revision(connection)
                return passed(f"{dialect.database}, schema {revision}")
        except sa.exc.DBAPIError as error:
            if ours := dialect.explain(error):
                raise ours from error
            raise IntegrityError(DATABASE_DAMAGED, file=dialect.database, problem=type(error.orig).__name__) from error
        finally:
            engine.dispose()

    def _revision(self, connection: sa.Connection) -> str:
        if not sa.inspect(connection).has_table("alembic_version"):
            raise SetupError(SCHEMA_MISSING)
        if connection.dialect.name == "sqlite":
            said = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar())
            if said != "ok":
                raise IntegrityError(DATABASE_DAMAGED, file=self.settings.database, problem=said)
        return str(connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar())

    async def authority(self) -> Finding:
        certificate = await in_thread(self._certificate)
        if certificate is None:
            return skipped("there is none yet; the first start makes it")
        until = certificate.not_valid_after_utc
        if until - self.clock.now() < EXPIRES_SOON:
            return failed(SetupError(AUTHORITY_OVER, until=f"{until:%Y-%m-%d}"), Verdict.WARN)
        return passed(f"holds until {until:%Y-%m-%d}")

    def _certificate(self) -> x509.Certificate | None:
        """Raises SetupError."""
        folder = self.settings.data_dir / "ca"
        if not folder.exists():
            return None
        try:
            key = load_key((folder / "ca.key").read_bytes())
            certificate = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
        except (OSError, ValueError) as error:
            raise SetupError(CA_INCOMPLETE, directory=folder) from error
        if certificate.public_key() != key.public_key():
            raise SetupError(CA_INCOMPLETE, directory=folder)
        return certificate

    async def port(self, setting: str) -> Finding:
        address = await in_thread(partial(self._address, setting))
        if address.port == 0:
            return skipped("it is chosen at each start, and there was none yet")
        try:
            await _connect(str(address))
        except (OSError, TimeoutError):
            folder = self.settings.data_dir
            error = UnavailableError(PORT_NOT_TAKEN, address=address, setting=setting, folder=folder)
            return failed(error, Verdict.WARN)
        return passed(f"something listens on {address}")

    def _address(self, setting: str) -> Address:
        """Where the latest start listened; without one, where the next one will."""
        listen: str = getattr(self.settings, setting)
        with suppress(OSError, ValueError, KeyError):
            return parse_address(json.loads((self.settings.data_dir / ENDPOINTS_FILE).read_bytes())[setting])
        return local_address(listen, parse_address(listen, lowest_port=0).port)

    async def public_address(self, address: str) -> Finding:
        try:
            await _connect(address)
        except (OSError, TimeoutError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            return failed(UnavailableError(PUBLIC_ADDRESS_DEAD, address=address, reason=reason), Verdict.WARN)
        return passed("reached from here")


async def _connect(address: str) -> None:
    """Raises OSError, TimeoutError."""
    place = parse_address(address)
    async with asyncio.timeout(CONNECT_TIMEOUT_S):
        _, writer = await asyncio.open_connection(place.host, place.port)
    writer.transport.abort()
