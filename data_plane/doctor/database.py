"""The database of a node that has one on a server: reached, and over a connection that nobody in between reads."""

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from data_plane.doctor.errors import DATABASE_EXPOSED
from data_plane.doctor.subject import Subject
from faos_core.checkup import Finding, Verdict, failed, in_thread, passed, skipped
from faos_core.errors import SetupError
from faos_core.store import dialect_for
from faos_core.store_dialect import Dialect

VERIFIED = "verify-full"


@dataclass(frozen=True, slots=True)
class Database:
    """Checks of one subject."""

    subject: Subject

    async def server(self) -> Finding:
        """Connects and reads nothing; it does not disturb a node that runs."""
        given = self.subject.settings.database_url
        if given is None or sa.make_url(given).get_backend_name() == "sqlite":
            return skipped("the node keeps its data in a file of its own")
        dialect = dialect_for(given)
        await in_thread(lambda: connect(dialect))
        if host := exposed_host(sa.make_url(given), os.environ):
            return failed(SetupError(DATABASE_EXPOSED, host=host), Verdict.WARN)
        return passed(f"connected to {dialect.database}")


def connect(dialect: Dialect) -> None:
    """Raises FaosError."""
    engine = dialect.engine(pool_size=1, writable=False)
    try:
        with engine.connect():
            return
    except sa.exc.DBAPIError as error:
        raise dialect.explain(error) or error from error
    finally:
        engine.dispose()


def exposed_host(url: sa.URL, environment: Mapping[str, str]) -> str:
    """The host that is reached over a network without being sure that it is the one; empty: none."""
    host = str(url.host or url.query.get("host") or environment.get("PGHOST", ""))
    sslmode = url.query.get("sslmode") or environment.get("PGSSLMODE", "")
    return "" if sslmode == VERIFIED or is_this_machine(host) else host


def is_this_machine(host: str) -> bool:
    """host: a name, an address, a folder with a socket, or empty."""
    if not host or host.startswith("/") or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
