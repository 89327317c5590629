"""What an operator applies in a simulation, how it behaves on a node, and who vouches for it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from random import Random
from typing import Any

from data_plane.ceiling.models import Ceiling, ModelFile, Program
from data_plane.link.nacks import refusal
from faos.resource.v1 import resource_pb2
from faos.resource.v1.resource_pb2 import Manifest, ManifestEntry, Metadata, Model, Resource, Selector, ToolServer
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos.tunnel.v1.tunnel_pb2 import ConfigOffer, TufMetadata
from faos_core.kinds import kind_of
from tests.sim.virtual_loop import VirtualClock

TENANT = "acme"
CEILING = Ceiling(
    approval_required=frozenset(),
    models={"small": ModelFile("small", Path("/m/small.gguf"), "0" * 64)},
    programs={"clock": Program("clock", ("/usr/bin/clock",))},
)
NEWER_KIND = resource_pb2.KIND_TOOL_SERVER  # what an old node of a simulation cannot parse
VALID_S = 86_400.0


class Behaviour(StrEnum):
    """What becomes of a revision on a node that applies it."""

    GOOD = "good"
    SLOW = "slow"  # its activation takes longer than the machine waits before it lets a newer one in
    FLAKY = "flaky"  # its activation fails for want of disk the first times
    CEILING = "ceiling"  # the site does not allow it
    FAILS = "fails"  # its model does not load
    BREAKS = "breaks"  # its activation meets a defect of ours
    HANGS = "hangs"  # its activation never ends
    SICK = "sick"  # it falls ill while it is watched
    DEADLY = "deadly"  # it kills the process that activates or watches it


RUNS = frozenset({Behaviour.GOOD, Behaviour.SLOW, Behaviour.FLAKY})
# For which codes, that park, there is a cause in the revision itself.
CAUSES: Mapping[Behaviour, frozenset[int]] = {
    Behaviour.CEILING: frozenset({tunnel.NACK_CODE_NAME_NOT_IN_CEILING}),
    Behaviour.FAILS: frozenset({tunnel.NACK_CODE_MODEL_LOAD_FAILED}),
    Behaviour.BREAKS: frozenset({tunnel.NACK_CODE_INTERNAL}),
    Behaviour.SICK: frozenset({tunnel.NACK_CODE_TOOL_SERVER_FAILED, tunnel.NACK_CODE_QUARANTINED}),
    Behaviour.DEADLY: frozenset({tunnel.NACK_CODE_CRASHED}),
}


@dataclass(frozen=True, slots=True)
class Revision:
    """One revision as the operator made it."""

    number: int
    behaviour: Behaviour
    manifest: bytes
    sha256: bytes
    blobs: Mapping[bytes, bytes]
    kinds_by_region: Mapping[str, frozenset[int]]
    names_by_region: Mapping[str, frozenset[str]]
    large: frozenset[bytes]  # bodies that do not travel in offers
    since_s: float = 0.0  # when it was published


@dataclass(slots=True)
class Publisher:
    """Signs revisions and timestamps. What it has not signed never runs."""

    rng: Random
    revisions: dict[int, Revision] = field(default_factory=dict)
    by_sha256: dict[bytes, Revision] = field(default_factory=dict)
    timestamps: int = 0

    @property
    def standing(self) -> Revision | None:
        return self.revisions.get(len(self.revisions))

    def publish(self, behaviour: Behaviour, *, with_newer_kind: bool, now_s: float) -> Revision:
        """The next revision: some bodies of the one before, some new, some for one region alone."""
        resources = _resources(self.rng, len(self.revisions) + 1, behaviour, with_newer_kind)
        revision = replace(revision_of(len(self.revisions) + 1, behaviour, resources, self.rng), since_s=now_s)
        self.revisions[revision.number] = self.by_sha256[revision.sha256] = revision
        return revision

    def offer(self, revision: Revision, nonce: bytes, known: frozenset[bytes], clock: VirtualClock) -> ConfigOffer:
        self.timestamps += 1
        metadata = signed(self.timestamps, clock.wall_s() + VALID_S, revision.number, revision.sha256)
        offer = ConfigOffer(nonce=nonce, revision=revision.number, metadata=metadata, manifest=revision.manifest)
        for sha256, body in revision.blobs.items():
            if sha256 not in known and sha256 not in revision.large:
                offer.blobs.add(sha256=sha256, data=body)
        return offer


def model(name: str, *, context_tokens: int = 0, source: str = "small", **match_labels: str) -> Resource:
    metadata = Metadata(name=name, sites=Selector(match_labels=match_labels) if match_labels else None)
    runtime = resource_pb2.MODEL_RUNTIME_LLAMA_CPP
    return Resource(metadata=metadata, model=Model(runtime=runtime, source=source, context_tokens=context_tokens))


def _resources(rng: Random, number: int, behaviour: Behaviour, with_newer_kind: bool) -> list[Resource]:
    source = "stranger" if behaviour is Behaviour.CEILING else "small"
    resources = [model("llm", source=source, context_tokens=1000 + number)]
    if rng.random() < 0.3:
        resources.append(model("north-only", region="north"))
    if with_newer_kind:
        server = ToolServer(program="clock", allowed_tools=["now"])
        resources.append(Resource(metadata=Metadata(name="time"), tool_server=server))
    return resources


def revision_of(number: int, behaviour: Behaviour, resources: list[Resource], rng: Random) -> Revision:
    blobs: dict[bytes, bytes] = {}
    entries = []
    for resource in resources:
        body = resource.SerializeToString(deterministic=True)
        sha256 = hashlib.sha256(body).digest()
        blobs[sha256] = body
        entries.append(
            ManifestEntry(
                kind=kind_of(resource),
                name=resource.metadata.name,
                sites=resource.metadata.sites,
                sha256=sha256,
                length_bytes=len(body),
            )
        )
    manifest = Manifest(tenant=TENANT, revision=number, entries=entries).SerializeToString(deterministic=True)
    return Revision(
        number,
        behaviour,
        manifest,
        hashlib.sha256(manifest).digest(),
        blobs,
        {region: frozenset(int(kind_of(each)) for each in _for(resources, region)) for region in ("north", "south")},
        {region: frozenset(each.metadata.name for each in _for(resources, region)) for region in ("north", "south")},
        frozenset(sha256 for sha256 in blobs if rng.random() < 0.3),
    )


def _for(resources: list[Resource], region: str) -> list[Resource]:
    return [each for each in resources if each.metadata.sites.match_labels.get("region", region) == region]


# ---- trust, as far as the machines can tell it from The Update Framework


def signed(version: int, expires_s: float, revision: int, sha256: bytes) -> TufMetadata:
    """Metadata that vouches for a manifest; nobody else than the publisher calls this."""
    timestamp = f"{version} {expires_s} {revision} {sha256.hex()}".encode()
    return TufMetadata(timestamp=timestamp, targets=_signature(timestamp))


def _signature(data: bytes) -> bytes:
    return hashlib.sha256(b"publisher's key" + data).digest()


class ModelTrust:
    """Stands for data_plane.link.trust.Trust, whose own tests use real metadata: signature, freshness, no step back,
    digest; over a copy, which it leaves in `work`."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock

    def check(self, metadata: TufMetadata, manifest: bytes, *, trusted: Any, work: Any) -> None:
        if metadata.targets != _signature(metadata.timestamp):
            raise refusal(tunnel.NACK_CODE_SIGNATURE_INVALID)
        version, expires_s, revision, sha256 = metadata.timestamp.decode().split()
        if trusted is not None:
            self._check_progress((trusted / "timestamp.json").read_bytes(), int(version), int(revision))
        if float(expires_s) <= self._clock.wall_s():
            raise refusal(tunnel.NACK_CODE_METADATA_EXPIRED)
        if hashlib.sha256(manifest).hexdigest() != sha256:
            raise refusal(tunnel.NACK_CODE_DIGEST_MISMATCH)
        work.mkdir()
        (work / "timestamp.json").write_bytes(metadata.timestamp)

    @staticmethod
    def _check_progress(before: bytes, version: int, revision: int) -> None:
        trusted_version, _, trusted_revision, _ = before.decode().split()
        if version < int(trusted_version) or revision < int(trusted_revision):
            raise refusal(tunnel.NACK_CODE_ROLLBACK)
