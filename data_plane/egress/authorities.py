"""Whom this node believes in TLS. Every door takes its context from here (tests/arch/test_authorities.py).

The tunnel is the exception by design: it believes the CA of the join string alone (tunnel/tls.py), so that no
authority of a network, however much a machine trusts it, can read or steer it. See docs/ops/networks.md.
"""

import logging
import ssl
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from data_plane.egress.errors import CA_DIR_UNUSABLE, CA_EXPIRED, CA_FILE_UNREADABLE
from faos_core import names
from faos_core.errors import SetupError

log = logging.getLogger(__name__)

SUFFIXES = (".pem", ".crt")


@dataclass(frozen=True, slots=True)
class Expired:
    """An authority that holds no more."""

    file: Path
    subject: str
    until: datetime

    def error(self) -> SetupError:
        return SetupError(CA_EXPIRED, file=self.file, subject=self.subject, until=f"{self.until:%Y-%m-%d}")


@dataclass(frozen=True, slots=True)
class Authorities:
    """The system's authorities, and besides them what the site's folder held when it was loaded."""

    pem: str = ""
    expired: tuple[Expired, ...] = ()

    def context(self, ca_file: Path | None = None) -> ssl.SSLContext:
        """For a client. ca_file: believe what is in it and nobody else. Blocking. Raises OSError.

        Not stricter from Python 3.13 on than before: inspecting proxies and companies' own authorities leave out what
        RFC 5280 wants (the authority's key identifier), and a site must not stop working with its Python's version.
        """
        context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if self.pem and not ca_file:
            context.load_verify_locations(cadata=self.pem)
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # inspection CAs are often handed out without root
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context

    def alarms(self) -> tuple[str, ...]:
        """Codes of the registry that need somebody's attention."""
        return (CA_EXPIRED.code,) if self.expired else ()


def blind_context() -> ssl.SSLContext:
    """Believes everybody: only to look who answers. Nothing is ever sent over it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context


def load_authorities(folder: Path | None, now: datetime) -> Authorities:
    """The .pem and .crt files of a folder; None: the system's only. Blocking.

    An expired one is an alarm, not an end: a site that was restarted without its cloud goes on.
    Raises SetupError: no such folder, nothing in it, a file that cannot be read or is not PEM.
    """
    if folder is None:
        return Authorities()
    found = {file: _read(file) for file in _files(folder)}
    expired = tuple(
        Expired(file, each.subject.rfc4514_string(), each.not_valid_after_utc)
        for file, (_, certificates) in found.items()
        for each in certificates
        if each.not_valid_after_utc < now
    )
    for each in expired:
        log.warning("authority.expired", extra={names.PATH: str(each.file)})
    return Authorities("\n".join(text for text, _ in found.values()), expired)


def _files(folder: Path) -> list[Path]:
    try:
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    except OSError as error:
        raise SetupError(CA_DIR_UNUSABLE, folder=folder, reason=error.strerror or type(error).__name__) from error
    if not found:
        raise SetupError(CA_DIR_UNUSABLE, folder=folder, reason="there is no .pem or .crt file in it")
    return found


def _read(file: Path) -> tuple[str, list[x509.Certificate]]:
    """Its certificates, written anew: what else stands in the file is nobody's."""
    try:
        certificates = x509.load_pem_x509_certificates(file.read_bytes())
    except OSError as error:
        raise SetupError(CA_FILE_UNREADABLE, file=file, reason=error.strerror or type(error).__name__) from error
    except ValueError as error:
        raise SetupError(CA_FILE_UNREADABLE, file=file, reason="there is no PEM certificate in it") from error
    return "".join(ssl.DER_cert_to_PEM_cert(each.public_bytes(Encoding.DER)) for each in certificates), certificates
