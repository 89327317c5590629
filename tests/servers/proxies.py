"""Proxies of a company's network: one that passes CONNECT on and counts, and one that looks into TLS on the way.

As a program, for another machine or network: python tests/servers/proxies.py HOST:PORT [inspect].
"""

import asyncio
import base64
import ipaddress
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

INSPECTOR = "Corp Inspection CA"


class Authority:
    """A CA of its own, that makes a server certificate for any name while one waits."""

    def __init__(self, name: str = INSPECTOR, *, days: int = 30) -> None:
        """days: until it expires; negative: since."""
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder().subject_name(self.name).issuer_name(self.name)
        builder = builder.public_key(self.key.public_key()).serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(days=60)).not_valid_after(now + timedelta(days=days))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.certificate = builder.sign(self.key, hashes.SHA256())

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def server(self, host: str) -> ssl.SSLContext:
        """What a server of this name, or an impostor, presents."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(self.name)
        builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=7))
        builder = builder.add_extension(x509.SubjectAlternativeName([_name(host)]), critical=True)
        leaf = builder.sign(self.key, hashes.SHA256())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["h2", "http/1.1"])
        with tempfile.NamedTemporaryFile(suffix=".pem") as file:
            file.write(_pem(key) + leaf.public_bytes(serialization.Encoding.PEM) + self.pem)
            file.flush()
            context.load_cert_chain(file.name)
        return context


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@dataclass
class ConnectProxy:
    """requests: each CONNECT head as it came. Byte counts are of what passed after it, up being away from the client.

    credentials: user:password that it demands; "": none. answer: is given instead of a connection, and the end.
    inspector: terminates TLS in the destination's place, with a certificate of this authority. hosts: addresses of
    names that nobody but the proxy knows.
    """

    credentials: str = ""
    answer: bytes = b""
    inspector: Authority | None = None
    hosts: Mapping[str, str] = field(default_factory=dict)
    host: str = "127.0.0.1"
    tls: ssl.SSLContext | None = None
    port: int = 0
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    up_bytes: int = 0
    down_bytes: int = 0
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    def destinations(self) -> set[str]:
        return {head.split(b" ")[1].decode() for head in self.requests}

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        with suppress(OSError, asyncio.IncompleteReadError, ssl.SSLError):
            await self._serve(reader, writer)
        self._writers.discard(writer)
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.requests.append(head)
        if refusal := self.answer or self._unauthorised(head):
            writer.write(refusal)
            await writer.drain()
            return
        host, _, port = head.split(b" ")[1].decode().rpartition(":")
        host = host.strip("[]")
        if self.inspector:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            plain = writer.transport
            await writer.start_tls(self.inspector.server(host))
            if writer.transport is None:  # the client is gone already; the library fails over its own writer otherwise
                writer._transport = plain  # type: ignore[attr-defined]  # of the library
                return
        try:
            far_reader, far_writer = await asyncio.open_connection(self.hosts.get(host, host), int(port))
        except OSError:
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
            return
        self._writers.add(far_writer)
        if not self.inspector:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pump(reader, far_writer, "up_bytes"))
            group.create_task(self._pump(far_reader, writer, "down_bytes"))

    def _unauthorised(self, head: bytes) -> bytes:
        said = b"Basic " + base64.b64encode(self.credentials.encode())
        if not self.credentials or said in head:
            return b""
        return b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=x\r\n\r\n"

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: str) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                setattr(self, direction, getattr(self, direction) + len(data))
                writer.write(data)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def running(proxy: ConnectProxy) -> AsyncIterator[ConnectProxy]:
    """It listens at its host, on a free port when it has none."""
    server = await asyncio.start_server(proxy.accepted, proxy.host, proxy.port, ssl=proxy.tls)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        proxy.cut()


async def main(listen: str, *words: str) -> None:
    host, _, port = listen.rpartition(":")
    inspector = Authority() if "inspect" in words else None
    async with running(ConnectProxy(host=host, port=int(port), inspector=inspector)):
        sys.stdout.write("proxy is ready\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


def write(folder: Path, **files: bytes) -> Path:
    """A folder with these PEM files, its names without their suffix."""
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / f"{name}.pem").write_bytes(data)
    return folder


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main(*sys.argv[1:]))
