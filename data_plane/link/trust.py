"""The node's side of The Update Framework: who may say what this node runs, and how new that must be.

The TUF client workflow runs on a copy of the node's metadata folder, over the bytes of an offer, without any
network. The copy becomes the node's metadata only when the whole offer has been checked (see config_store).
Source: TUF specification 1.0.33, section 5 "Detailed client workflow".
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tuf.api import exceptions as tuf_errors
from tuf.api.metadata import TargetFile  # type: ignore[attr-defined]  # tuf re-exports it without saying so
from tuf.ngclient.config import UpdaterConfig
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.updater import Updater

from data_plane.link.nacks import refusal
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos.tunnel.v1.tunnel_pb2 import NackCode, TufMetadata
from faos_core.clock import Clock, SystemClock
from faos_core.manifests import MOST_MANIFEST_BYTES

MANIFEST_TARGET = "manifest"
BASE = "offer:///"
PINNED_ROOT_VERSION = 1


@dataclass(frozen=True, slots=True)
class TrustLimits:
    """Upper bounds, checked before anything is parsed."""

    root_count: int = 64
    root_bytes: int = 64 * 1024
    timestamp_bytes: int = 16 * 1024
    snapshot_bytes: int = 64 * 1024
    targets_bytes: int = 256 * 1024
    manifest_bytes: int = MOST_MANIFEST_BYTES


class Trust:
    """Checks offers against the tenant's TUF repository. Blocking; holds no state but the pinned root."""

    def __init__(self, tuf_root: bytes, *, limits: TrustLimits | None = None, clock: Clock | None = None) -> None:
        """tuf_root: version 1 of the tenant's root, whose SHA-256 enrolment compared with the join string.
        clock: says what has expired; None means the machine's."""
        self._root = tuf_root
        self._clock = clock or SystemClock()
        self._limits = limits or TrustLimits()

    def check(self, metadata: TufMetadata, manifest: bytes, *, trusted: Path | None, work: Path) -> None:
        """Check signatures, freshness, versions and the digest of the manifest.

        trusted: the node's metadata folder, which is only read; None before the first offer.
        work: where the updated copy goes; must not exist. It is left there only when the check succeeds, and it
            is not yet durable.
        Raises: ConfigurationError with a code of trust or form, STORAGE_FAILED when the disk fails.
        """
        self._check_sizes(metadata, manifest)
        try:
            with mapped_errors():
                _copy(trusted, work)
                self._update(metadata, work).verify_length_and_hashes(manifest)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise

    def _check_sizes(self, metadata: TufMetadata, manifest: bytes) -> None:
        bounds = self._limits
        sizes = [
            (len(metadata.roots), bounds.root_count),
            (max(map(len, metadata.roots), default=0), bounds.root_bytes),
            (len(metadata.timestamp), bounds.timestamp_bytes),
            (len(metadata.snapshot), bounds.snapshot_bytes),
            (len(metadata.targets), bounds.targets_bytes),
            (len(manifest), bounds.manifest_bytes),
        ]
        if any(size > bound for size, bound in sizes):
            raise refusal(tunnel.NACK_CODE_TOO_LARGE)

    def _update(self, metadata: TufMetadata, work: Path) -> TargetFile:
        """Run the client workflow in the folder; what it trusts about the manifest in the end."""
        fetcher = OfferFetcher(_files_of(metadata))
        updater = Updater(str(work), BASE, fetcher=fetcher, config=self._config(), bootstrap=self._root)
        updater._trusted_set.reference_time = self._clock.now()  # its own is the machine's, and there is no door to it
        updater.refresh()
        target = updater.get_targetinfo(MANIFEST_TARGET)
        if target is None:
            raise refusal(tunnel.NACK_CODE_DIGEST_MISMATCH)
        if "sha256" not in target.hashes:
            raise refusal(tunnel.NACK_CODE_UNPARSABLE)
        return target

    def _config(self) -> UpdaterConfig:
        bounds = self._limits
        return UpdaterConfig(
            max_root_rotations=bounds.root_count,
            max_delegations=1,
            root_max_length=bounds.root_bytes,
            timestamp_max_length=bounds.timestamp_bytes,
            snapshot_max_length=bounds.snapshot_bytes,
            targets_max_length=bounds.targets_bytes,
        )


class OfferFetcher(FetcherInterface):
    """Serves what came with an offer; everything else is 404."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = url.removeprefix(BASE)
        if name not in self._files:
            raise tuf_errors.DownloadHTTPError("not in the offer", 404)
        return iter([self._files[name]])


def _files_of(metadata: TufMetadata) -> dict[str, bytes]:
    """The offer by the file names of a repository without consistent snapshots; empty ones are absent."""
    roots = {f"{version}.root.json": data for version, data in enumerate(metadata.roots, PINNED_ROOT_VERSION + 1)}
    files = {
        "timestamp.json": metadata.timestamp,
        "snapshot.json": metadata.snapshot,
        "targets.json": metadata.targets,
    }
    return {name: data for name, data in (roots | files).items() if data}


def _copy(trusted: Path | None, work: Path) -> None:
    if trusted is None:
        work.mkdir(mode=0o700)
    else:
        shutil.copytree(trusted, work, symlinks=True)


# First match wins, so subclasses stand before their bases.
CODES: tuple[tuple[type[Exception], NackCode.ValueType], ...] = (
    (tuf_errors.UnsignedMetadataError, tunnel.NACK_CODE_SIGNATURE_INVALID),
    (tuf_errors.ExpiredMetadataError, tunnel.NACK_CODE_METADATA_EXPIRED),
    (tuf_errors.BadVersionNumberError, tunnel.NACK_CODE_ROLLBACK),
    (tuf_errors.LengthOrHashMismatchError, tunnel.NACK_CODE_DIGEST_MISMATCH),
    (tuf_errors.DownloadLengthMismatchError, tunnel.NACK_CODE_DIGEST_MISMATCH),  # our own bounds were met
    (tuf_errors.RepositoryError, tunnel.NACK_CODE_UNPARSABLE),
    (tuf_errors.DownloadError, tunnel.NACK_CODE_UNPARSABLE),  # a file is missing
    (OSError, tunnel.NACK_CODE_STORAGE_FAILED),
    # What python-tuf lets through for metadata that is signed, parses, and makes no sense.
    (ValueError, tunnel.NACK_CODE_UNPARSABLE),
    (TypeError, tunnel.NACK_CODE_UNPARSABLE),
    (LookupError, tunnel.NACK_CODE_UNPARSABLE),
    (AttributeError, tunnel.NACK_CODE_UNPARSABLE),
    (RuntimeError, tunnel.NACK_CODE_UNPARSABLE),  # RecursionError among them
)
MAPPED = tuple(error for error, _ in CODES)


@contextmanager
def mapped_errors() -> Iterator[None]:
    """Turns what TUF and the disk raise into the refusal that goes up."""
    try:
        yield
    except MAPPED as error:
        raise refusal(code_of(error)) from error


def code_of(error: Exception) -> NackCode.ValueType:
    return next(code for kind, code in CODES if isinstance(error, kind))
