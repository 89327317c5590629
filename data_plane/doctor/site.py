"""What the site itself brings: site.toml, model files, the sandbox, endpoints."""

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from data_plane.ceiling.load import load_ceiling
from data_plane.ceiling.models import Ceiling, Endpoint
from data_plane.doctor.subject import Subject
from data_plane.egress.authorities import load_authorities
from data_plane.egress.errors import ENDPOINT_UNREACHABLE
from data_plane.egress.proxy import str_of
from data_plane.egress.service import refuse_without_proxy
from data_plane.egress.tls_probe import greet, look, reach
from data_plane.errors import EMBEDDER_MISSING
from data_plane.models.verification import FileVerifier
from data_plane.tools.sandbox import Isolation, available
from faos_core.address import Address
from faos_core.checkup import Check, Finding, Verdict, failed, in_thread, passed, skipped
from faos_core.errors import FaosError, SetupError, UnavailableError

HASHING_LIMIT_S = 300.0
PORTS = {"http": 80, "https": 443}
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Site:
    """Checks of one subject. ceiling: None where site.toml cannot be read, which `site.toml` then says."""

    subject: Subject
    ceiling: Ceiling | None
    problem: FaosError | None

    def checks(self) -> Iterator[Check]:
        yield Check("site.toml", self.site_file)
        yield Check("sandbox", self.sandbox)
        for name, file, sha256 in self._files():
            yield Check("model file", partial(self.model_file, file, sha256), name, HASHING_LIMIT_S)
        for endpoint in self.ceiling.endpoints.values() if self.ceiling else ():
            yield Check("endpoint", partial(self.endpoint, endpoint), endpoint.name)

    async def site_file(self) -> Finding:
        file = self.subject.settings.ceiling_path
        if self.problem:
            raise self.problem
        if self.ceiling is None:
            return skipped(f"there is none yet: write what the site allows into {file}")
        it = self.ceiling
        if it.embedder is None:
            raise SetupError(EMBEDDER_MISSING, file=file)
        refuse_without_proxy(it, self.subject.network)
        models, folders, programs = (len(each) for each in (it.models, it.folders, it.programs))
        return passed(f"{models} models, {folders} folders, {programs} programs, {len(it.endpoints)} endpoints")

    async def sandbox(self) -> Finding:
        needed = bool(self.ceiling and self.ceiling.programs)
        try:
            isolation = await in_thread(available)
        except SetupError as error:
            return failed(error, Verdict.FAIL if needed else Verdict.WARN)
        if isolation is Isolation.BUBBLEWRAP:
            return passed("bubblewrap works here")
        return Finding(
            Verdict.WARN,
            "Tool servers have no network, and see the files of the node's user.",
            "bubblewrap does not work here; a network namespace alone does.",
            "Install it: apt-get install bubblewrap",
        )

    async def model_file(self, file: Path, sha256: str) -> Finding:
        await FileVerifier().verify(file, sha256)
        size_bytes = (await in_thread(file.stat)).st_size
        return passed(f"{file.name}, {size_bytes / MIB:.0f} MiB: its checksum holds")

    async def endpoint(self, endpoint: Endpoint) -> Finding:
        """Connects, and for https:// shakes hands; asks nothing."""
        parts, network = urlsplit(endpoint.url), self.subject.network
        address = Address(parts.hostname or "", parts.port or PORTS[parts.scheme])
        authorities = await in_thread(partial(load_authorities, network.ca_dir, self.subject.clock.now()))
        proxy = self.subject.proxy(authorities) if endpoint.through_proxy else None
        try:
            if parts.scheme == "http":
                await reach(address, proxy=proxy)
                return passed(f"connected to {address}")
            context = await in_thread(partial(authorities.context, endpoint.ca_file))
            await greet(address, context, proxy=proxy)
        except ssl.SSLCertVerificationError as error:
            seen = await look(address, proxy=proxy, server_name=address.host)
            reason = f"{error.verify_message}: its certificate is issued by {seen.issuer!r}"
            raise UnavailableError(ENDPOINT_UNREACHABLE, endpoint=endpoint.name, reason=reason) from error
        except (OSError, TimeoutError) as error:
            raise UnavailableError(ENDPOINT_UNREACHABLE, endpoint=endpoint.name, reason=str_of(error)) from error
        return passed(f"connected to {address}, its certificate holds")

    def _files(self) -> Iterator[tuple[str, Path, str]]:
        """(name, file, SHA-256)"""
        if self.ceiling is None:
            return
        for model in self.ceiling.models.values():
            yield model.name, model.file, model.sha256
        if embedder := self.ceiling.embedder:
            yield "embedder", embedder.model, embedder.model_sha256
            yield "tokenizer", embedder.tokenizer, embedder.tokenizer_sha256


def site_of(subject: Subject) -> Site:
    """Blocking."""
    file = subject.settings.ceiling_path
    if not subject.member and not file.exists():
        return Site(subject, None, None)
    try:
        return Site(subject, load_ceiling(file), None)
    except FaosError as error:
        return Site(subject, None, error)
