"""Tells interception: looks who answers TLS at an address, without believing it. Nothing is said after the handshake.

Only the leaf can be seen from Python 3.11; the name of who issued it is in there.
"""

import asyncio
import errno
import os
import ssl
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.x509.oid import NameOID

from data_plane.egress.authorities import blind_context
from data_plane.egress.dialing import Streams, dial
from data_plane.egress.errors import CLOCK_OFF, TLS_INTERCEPTED, TLS_NOT_SPOKEN, TLS_OTHER_CONTROL_PLANE
from data_plane.egress.proxy import Proxy, str_of
from faos_core.address import Address
from faos_core.errors import FaosError, IntegrityError, SetupError, UnavailableError
from tunnel.identity import SERVER_NAME

TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Answerer:
    """Who answered: a certificate that nobody has checked."""

    leaf: x509.Certificate
    tls_version: str

    @property
    def issuer(self) -> str:
        """Its own words, cut: the common name, or all of the name without one."""
        return name_of(self.leaf.issuer)

    def is_by(self, ca: x509.Certificate) -> bool:
        try:
            self.leaf.verify_directly_issued_by(ca)
        except Exception:  # noqa: BLE001  # cryptography raises several kinds; all mean no
            return False
        return True


def name_of(name: x509.Name) -> str:
    common = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    text = str(common[0].value) if common else name.rfc4514_string()
    return "".join(each if each.isprintable() else "?" for each in text)[:120] or "nobody"


async def look(address: Address, *, proxy: Proxy | None = None, server_name: str = SERVER_NAME) -> Answerer:
    """Connect, shake hands, hang up. server_name: who is asked for (SNI).

    Raises: UnavailableError (tls.not_spoken), FaosError of the proxy, OSError and TimeoutError (no connection).
    """
    _, writer = await (proxy.connect(address) if proxy else _direct(address))
    try:
        shown = await shake_hands(writer, blind_context(), server_name)
        leaf = read_leaf(shown.getpeercert(binary_form=True) or b"", address)
        return Answerer(leaf, shown.version() or "no TLS")
    except ssl.SSLError as error:
        reason = (error.reason or "no handshake").replace("_", " ").lower()
        raise UnavailableError(TLS_NOT_SPOKEN, address=address, reason=reason) from error
    except TimeoutError as error:
        raise UnavailableError(TLS_NOT_SPOKEN, address=address, reason="it says nothing") from error
    except (OSError, ValueError) as error:
        raise UnavailableError(TLS_NOT_SPOKEN, address=address, reason=str_of(error)) from error
    finally:
        writer.transport.abort()


def read_leaf(der: bytes, address: Address) -> x509.Certificate:
    """One whose names and times can be read: who stands in between made it. Raises UnavailableError."""
    try:
        leaf = x509.load_der_x509_certificate(der)
        _ = leaf.issuer, leaf.not_valid_before_utc, leaf.not_valid_after_utc
    except Exception as error:  # cryptography raises several kinds; all mean that it is none
        raise UnavailableError(TLS_NOT_SPOKEN, address=address, reason="no certificate that can be read") from error
    return leaf


async def reach(address: Address, *, proxy: Proxy | None = None) -> None:
    """Connect and hang up. Raises OSError, TimeoutError; FaosError of the proxy."""
    _, writer = await (proxy.connect(address) if proxy else _direct(address))
    writer.transport.abort()


async def greet(address: Address, context: ssl.SSLContext, *, proxy: Proxy | None = None) -> None:
    """Shake hands with whom the context believes, and hang up. Raises as `reach`; ssl.SSLError is an OSError."""
    _, writer = await (proxy.connect(address) if proxy else _direct(address))
    try:
        await shake_hands(writer, context, address.host)
    finally:
        writer.transport.abort()


async def shake_hands(writer: asyncio.StreamWriter, context: ssl.SSLContext, server_name: str) -> ssl.SSLObject:
    """What was agreed. The writer keeps the connection below. Raises OSError, ssl.SSLError among them; TimeoutError."""
    loop, plain = asyncio.get_running_loop(), writer.transport
    async with asyncio.timeout(TIMEOUT_S):
        secured = await loop.start_tls(plain, asyncio.Protocol(), context, server_hostname=server_name)
    if secured is None:  # what the library leaves of a connection that ended right behind the handshake
        raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
    shown: ssl.SSLObject = secured.get_extra_info("ssl_object")
    return shown


async def _direct(address: Address) -> Streams:
    async with asyncio.timeout(TIMEOUT_S):
        return await dial(address.host, address.port)


def judge(answerer: Answerer, address: Address, ca: x509.Certificate, now: datetime) -> FaosError | None:
    """What is wrong with who answered; None for the control plane of this CA. Pure."""
    leaf = answerer.leaf
    if not answerer.is_by(ca):
        if leaf.issuer == ca.subject:
            return IntegrityError(TLS_OTHER_CONTROL_PLANE, address=address)
        return IntegrityError(TLS_INTERCEPTED, address=address, issuer=answerer.issuer)
    if not leaf.not_valid_before_utc <= now <= leaf.not_valid_after_utc:
        begins, ends = (f"{at:%Y-%m-%d %H:%M}Z" for at in (leaf.not_valid_before_utc, leaf.not_valid_after_utc))
        return SetupError(CLOCK_OFF, now=f"{now:%Y-%m-%d %H:%M}Z", address=address, begins=begins, ends=ends)
    return None
