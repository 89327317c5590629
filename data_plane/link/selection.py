"""From the bytes of a manifest to the configuration of this node: which resources, and are they what was signed."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from google.protobuf.message import DecodeError

from data_plane.link.interfaces import Configuration
from data_plane.link.nacks import refusal
from faos.resource.v1.resource_pb2 import Manifest, ManifestEntry, Resource, Selector
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core.ids import NAME_PATTERN
from faos_core.kinds import BY_KIND, kind_of
from faos_core.manifests import MOST_ENTRIES

RESOURCE_BYTES = 1024 * 1024
SELECTED_BYTES = 64 * 1024 * 1024

BlobReader = Callable[[bytes], bytes]

GROUPS: Mapping[str, str] = {
    "agent": "agents",
    "model": "models",
    "tool_server": "tool_servers",
    "knowledge_base": "knowledge_bases",
    "policy": "policies",
}


def digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def parse_manifest(data: bytes, *, tenant: str) -> Manifest:
    """The manifest of this tenant. Raises ConfigurationError: UNPARSABLE, TOO_LARGE, WRONG_TENANT."""
    try:
        manifest = Manifest.FromString(data)
    except DecodeError as error:
        raise refusal(tunnel.NACK_CODE_UNPARSABLE) from error
    if manifest.tenant != tenant:
        raise refusal(tunnel.NACK_CODE_WRONG_TENANT)
    if manifest.revision == 0:
        raise refusal(tunnel.NACK_CODE_UNPARSABLE)
    if len(manifest.entries) > MOST_ENTRIES:
        raise refusal(tunnel.NACK_CODE_TOO_LARGE)
    return manifest


def select(manifest: Manifest, labels: Mapping[str, str]) -> list[ManifestEntry]:
    """The entries whose selector matches the labels that this node was enrolled with.

    Raises ConfigurationError: KIND_UNKNOWN, UNPARSABLE (name or digest malformed, or a name twice), TOO_LARGE.
    """
    entries = [entry for entry in manifest.entries if matches(entry.sites, labels)]
    for entry in entries:
        _check_entry(entry)
    if len({(entry.kind, entry.name) for entry in entries}) != len(entries):
        raise refusal(tunnel.NACK_CODE_UNPARSABLE)
    if sum(entry.length_bytes for entry in entries) > SELECTED_BYTES:
        raise refusal(tunnel.NACK_CODE_TOO_LARGE)
    return entries


def matches(selector: Selector, labels: Mapping[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in selector.match_labels.items())


def _check_entry(entry: ManifestEntry) -> None:
    if entry.kind not in BY_KIND:
        raise refusal(tunnel.NACK_CODE_KIND_UNKNOWN)
    if not NAME_PATTERN.fullmatch(entry.name) or len(entry.sha256) != hashlib.sha256().digest_size:
        raise refusal(tunnel.NACK_CODE_UNPARSABLE, kind=entry.kind)
    if entry.length_bytes > RESOURCE_BYTES:
        raise refusal(tunnel.NACK_CODE_TOO_LARGE, kind=entry.kind, name=entry.name)


def check_blob(entry: ManifestEntry, data: bytes) -> bytes:
    """The bytes themselves, when they are what the manifest signed for. Raises ConfigurationError: DIGEST_MISMATCH."""
    if len(data) != entry.length_bytes or digest(data) != entry.sha256:
        raise refusal(tunnel.NACK_CODE_DIGEST_MISMATCH, kind=entry.kind, name=entry.name)
    return data


def read_resources(entries: Iterable[ManifestEntry], read: BlobReader) -> list[Resource]:
    """The bodies of the entries, in order. read: a blob by its SHA-256, as `check_blob` accepted it.

    Raises ConfigurationError: UNPARSABLE, or SPEC_INVALID for a body of another kind or name than its entry.
    """
    return [_read_resource(entry, read(entry.sha256)) for entry in entries]


def _read_resource(entry: ManifestEntry, data: bytes) -> Resource:
    try:
        resource = Resource.FromString(data)
    except DecodeError as error:
        raise refusal(tunnel.NACK_CODE_UNPARSABLE, kind=entry.kind, name=entry.name) from error
    if kind_of(resource) != entry.kind or resource.metadata.name != entry.name:
        raise refusal(tunnel.NACK_CODE_SPEC_INVALID, kind=entry.kind, name=entry.name)
    return resource


def assemble(revision: int, manifest_sha256: bytes, resources: Iterable[Resource]) -> Configuration:
    """Resources by kind and name."""
    groups: dict[str, dict[str, Any]] = {group: {} for group in GROUPS.values()}
    for resource in resources:
        field = resource.WhichOneof("spec")
        assert field is not None, "read_resources has compared the kinds"
        groups[GROUPS[field]][resource.metadata.name] = getattr(resource, field)
    return Configuration(revision=revision, manifest_sha256=manifest_sha256, **groups)
