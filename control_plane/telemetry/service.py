"""The control plane's telemetry, put together."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from control_plane.telemetry.fleet import ObservedFleet, Push
from control_plane.telemetry.settings import TelemetrySettings
from faos_core.clock import Clock
from faos_core.ids import NAME_PATTERN, NodeIdentity
from faos_core.meters import Meters, as_prometheus
from faos_core.names import Resource
from faos_core.telemetry_target import Target

if TYPE_CHECKING:
    from faos_core.telemetry import Sink, Telemetry

FOLDER = "telemetry"


def make_telemetry(settings: TelemetrySettings, data_dir: Path, meters: Meters, clock: Clock) -> "Telemetry | None":
    """None where it is off: then the SDK is not even imported. No I/O."""
    if settings.to is Target.OFF:
        return None
    from faos_core.telemetry import Telemetry

    return Telemetry(
        sink_of(settings, data_dir),
        meters,
        resource={Resource.SERVICE_NAME: "faos-control-plane", Resource.SERVICE_VERSION: own_version()},
        vouches=lambda text: NAME_PATTERN.fullmatch(text) is not None,
        clock=clock,
        interval_s=settings.interval_s,
    )


def sink_of(settings: TelemetrySettings, data_dir: Path) -> "Sink":
    if settings.to is Target.OTLP:
        from control_plane.telemetry.collector import CollectorSink

        return CollectorSink(settings.endpoint, ca_file=settings.ca_file)
    from faos_core.telemetry_files import FileSink

    return FileSink(data_dir / FOLDER, file_bytes=settings.file_bytes, files=settings.files)


def own_version() -> str:
    try:
        return version("faos-hybrid")
    except PackageNotFoundError:
        return "0"


class Metering:
    """What the admin API tells of this process."""

    def __init__(self, meters: Meters, fleet: ObservedFleet) -> None:
        self._meters = meters
        self._fleet = fleet

    def text(self) -> str:
        return as_prometheus(self._meters.instruments)

    def sessions(self) -> int:
        return self._fleet.session_count()

    def pushes(self) -> Mapping[NodeIdentity, Push]:
        return self._fleet.pushes
